// A mutex that both checkers know: clang's -Wthread-safety by annotation, and ThreadSanitizer
// because it is the standard library's (a packaged absl::Mutex is not instrumented, so every use of
// it looks like a race).
#ifndef ECHELON_RUNTIME_SYNC_MUTEX_H_
#define ECHELON_RUNTIME_SYNC_MUTEX_H_

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "runtime/sync/steady_clock.h"

namespace echelon {

class ABSL_LOCKABLE Mutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }

  // Wakes who waits: whatever they wait for changed under the lock. Before the lock is released,
  // since who sees the change may then destroy the mutex.
  void Unlock() ABSL_UNLOCK_FUNCTION() {
    if (waiters_ > 0) changed_.notify_all();
    mutex_.unlock();
  }

  // Waits, the lock released meanwhile, until condition() holds.
  template <typename Condition>
  void Await(Condition condition) ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
    AwaitUntil(condition, absl::InfiniteFuture());
  }

  // deadline: of SteadyNow's clock. Returns condition().
  template <typename Condition>
  bool AwaitUntil(Condition condition, absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
    std::unique_lock<std::mutex> lock(mutex_, std::adopt_lock);
    bool held = condition();
    if (!held && waiters_ > 0) changed_.notify_all();  // to wait releases the lock as well
    ++waiters_;
    while (!held) {
      if (deadline == absl::InfiniteFuture()) {
        changed_.wait(lock);
      } else {
        const absl::Duration left = deadline - SteadyNow();
        if (left <= absl::ZeroDuration()) break;
        changed_.wait_for(lock, absl::ToChronoNanoseconds(std::min(left, absl::Hours(1))));
      }
      held = condition();
    }
    --waiters_;
    lock.release();
    return held;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int waiters_ = 0;
};

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) {
    mutex_->Lock();
  }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mutex_;
};

}  // namespace echelon

#endif  // ECHELON_RUNTIME_SYNC_MUTEX_H_
