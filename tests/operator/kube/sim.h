// Time that tests turn by hand: tasks run in the order of their times, and no one waits. Seeded
// schedules replay exactly.
#ifndef ECHELON_TESTS_OPERATOR_KUBE_SIM_H_
#define ECHELON_TESTS_OPERATOR_KUBE_SIM_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <utility>

#include "absl/time/time.h"
#include "operator/kube/timer.h"

namespace echelon::op {

class Sim final : public Timer {
 public:
  absl::Time Now() override {
    const std::lock_guard lock(mutex_);
    return now_;
  }

  // Tasks of one moment run in the order they were given.
  void After(absl::Duration delay, std::function<void()> task) override {
    const std::lock_guard lock(mutex_);
    tasks_.emplace(std::pair(now_ + std::max(delay, absl::ZeroDuration()), next_++),
                   std::move(task));
  }

  // Runs the next task that is due by `limit`, turning the clock to its time. False: there is none.
  bool Step(absl::Time limit = absl::InfiniteFuture()) {
    std::function<void()> task;
    {
      const std::lock_guard lock(mutex_);
      if (tasks_.empty() || tasks_.begin()->first.first > limit) return false;
      now_ = std::max(now_, tasks_.begin()->first.first);
      task = std::move(tasks_.begin()->second);
      tasks_.erase(tasks_.begin());
    }
    task();
    return true;
  }

  void RunFor(absl::Duration time) {
    const absl::Time end = Now() + time;
    while (Step(end)) {
    }
    const std::lock_guard lock(mutex_);
    now_ = std::max(now_, end);
  }

  // Returns done(); false: not within `limit` of this clock.
  bool RunUntil(const std::function<bool()>& done, absl::Duration limit = absl::Minutes(2)) {
    const absl::Time end = Now() + limit;
    while (!done()) {
      if (!Step(end)) return done();
    }
    return true;
  }

  size_t waiting() const { return tasks_.size(); }

 private:
  std::mutex mutex_;
  absl::Time now_ = absl::FromUnixSeconds(1'900'000'000);
  uint64_t next_ = 0;
  std::map<std::pair<absl::Time, uint64_t>, std::function<void()>> tasks_;
};

}  // namespace echelon::op

#endif  // ECHELON_TESTS_OPERATOR_KUBE_SIM_H_
