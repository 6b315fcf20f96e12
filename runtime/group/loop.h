// One thread that runs what it is given, in order, and ticks when one is due. Private to
// runtime/group.
#ifndef ECHELON_RUNTIME_GROUP_LOOP_H_
#define ECHELON_RUNTIME_GROUP_LOOP_H_

#include <deque>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "runtime/sync/mutex.h"

namespace echelon::group {

class Loop {
 public:
  Loop() = default;  // never ticks
  // due is asked, on the loop's thread, after every task and tick; on_tick runs at the time it
  // gives, which on_tick must move on. It is told since when it could have come: that time, or the
  // last one at which this thread ran.
  Loop(std::function<absl::Time()> due, std::function<void(absl::Time since)> on_tick);
  ~Loop();  // as Stop

  void Start();
  void Post(std::function<void()> task);  // any thread; ignored after Stop
  // Waits for the task that runs; what has not begun is dropped. Not from the loop's own thread.
  void Stop();

 private:
  void Run();

  const std::function<absl::Time()> due_;
  const std::function<void(absl::Time)> on_tick_;
  Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  Mutex join_mutex_;  // Stop may be called twice at once
  std::thread thread_ ABSL_GUARDED_BY(join_mutex_);
};

}  // namespace echelon::group

#endif  // ECHELON_RUNTIME_GROUP_LOOP_H_
