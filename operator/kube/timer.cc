#include "operator/kube/timer.h"

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "runtime/sync/steady_clock.h"

namespace echelon::op {
namespace {

class TimerThread final : public Timer {
 public:
  TimerThread() : thread_([this] { Run(); }) {}

  ~TimerThread() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  absl::Time Now() override { return SteadyNow(); }

  void After(absl::Duration delay, std::function<void()> task) override {
    const absl::Time at = Now() + delay;
    {
      const std::lock_guard lock(mutex_);
      tasks_.emplace(std::pair(at, next_++), std::move(task));
    }
    changed_.notify_all();
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      if (tasks_.empty()) {
        changed_.wait(lock);
        continue;
      }
      const absl::Duration left = tasks_.begin()->first.first - Now();
      if (left > absl::ZeroDuration()) {
        changed_.wait_for(lock, absl::ToChronoNanoseconds(std::min(left, absl::Hours(1))));
        continue;
      }
      auto task = tasks_.extract(tasks_.begin());
      lock.unlock();
      task.mapped()();
      task = {};  // what it holds goes while the lock is free
      lock.lock();
    }
    auto dropped = std::move(tasks_);
    tasks_.clear();
    lock.unlock();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  uint64_t next_ = 0;  // tasks of one moment run in the order they were given
  std::map<std::pair<absl::Time, uint64_t>, std::function<void()>> tasks_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Timer> MakeTimerThread() { return std::make_unique<TimerThread>(); }

}  // namespace echelon::op
