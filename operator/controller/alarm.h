// A task at the earliest of several moments, on the loop.
#ifndef ECHELON_OPERATOR_CONTROLLER_ALARM_H_
#define ECHELON_OPERATOR_CONTROLLER_ALARM_H_

#include <functional>
#include <memory>
#include <utility>

#include "absl/time/time.h"
#include "operator/kube/timer.h"

namespace echelon::op {

class Alarm {
 public:
  // `ring` runs on the timer's thread, where Set must be called too; never after the destructor.
  Alarm(Timer* timer, std::function<void()> ring)
      : timer_(timer), ring_(std::move(ring)), alive_(std::make_shared<int>()) {}

  // Rings at `when` (of the timer's clock), or earlier if that was asked for.
  void Set(absl::Time when) {
    if (when >= when_) return;
    when_ = when;
    timer_->After(when - timer_->Now(), [this, when, alive = std::weak_ptr(alive_)] {
      if (alive.expired() || when != when_) return;
      when_ = absl::InfiniteFuture();
      ring_();
    });
  }

 private:
  Timer* const timer_;
  const std::function<void()> ring_;
  absl::Time when_ = absl::InfiniteFuture();
  std::shared_ptr<int> alive_;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_ALARM_H_
