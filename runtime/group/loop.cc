#include "runtime/group/loop.h"

#include <algorithm>
#include <utility>

#include "runtime/sync/steady_clock.h"

namespace echelon::group {

Loop::Loop(std::function<absl::Time()> due, std::function<void(absl::Time since)> on_tick)
    : due_(std::move(due)), on_tick_(std::move(on_tick)) {}

Loop::~Loop() { Stop(); }

void Loop::Start() {
  MutexLock lock(&join_mutex_);
  thread_ = std::thread([this] { Run(); });
}

void Loop::Post(std::function<void()> task) {
  MutexLock lock(&mutex_);
  if (!stopped_) tasks_.push_back(std::move(task));
}

void Loop::Stop() {
  std::deque<std::function<void()>> dropped;
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    dropped.swap(tasks_);
  }
  MutexLock lock(&join_mutex_);
  if (thread_.joinable()) thread_.join();
}

void Loop::Run() {
  const auto ready = [this]()
                         ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopped_ || !tasks_.empty(); };
  absl::Time ran = SteadyNow();
  for (;;) {
    const absl::Time next_tick = due_ ? due_() : absl::InfiniteFuture();
    std::deque<std::function<void()>> tasks;
    {
      MutexLock lock(&mutex_);
      mutex_.AwaitUntil(ready, next_tick);
      if (stopped_) return;
      if (!tasks_.empty()) {
        tasks.push_back(std::move(tasks_.front()));
        tasks_.pop_front();
      }
    }
    for (const auto& task : tasks) task();
    const absl::Time since = std::max(next_tick, ran);
    ran = SteadyNow();
    if (ran >= next_tick) on_tick_(since);
  }
}

}  // namespace echelon::group
