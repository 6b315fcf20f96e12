// The seam to time: tests turn the clock by hand (tests/operator/kube/sim.h).
#ifndef ECHELON_OPERATOR_KUBE_TIMER_H_
#define ECHELON_OPERATOR_KUBE_TIMER_H_

#include <functional>
#include <memory>

#include "absl/time/time.h"

namespace echelon::op {

class Timer {
 public:
  virtual ~Timer() = default;
  // Monotonic: it goes on through changes of the wall clock; only differences mean something.
  virtual absl::Time Now() = 0;
  // Runs `task` once, not before `delay` is over; never from within After. From any thread.
  virtual void After(absl::Duration delay, std::function<void()> task) = 0;
};

// One thread that runs the tasks; destroying it drops those still waiting, after the running one.
std::unique_ptr<Timer> MakeTimerThread();

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_TIMER_H_
