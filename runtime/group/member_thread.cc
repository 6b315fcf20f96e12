#include "runtime/group/member_thread.h"

#include <utility>

#include "runtime/sync/mutex.h"

namespace echelon::group {

struct MemberThread::Progress {
  Mutex mutex;
  const Callbacks* callbacks ABSL_GUARDED_BY(mutex) = nullptr;  // null once the thread is gone
};

MemberThread::MemberThread(Member* member, absl::Duration open_timeout, Callbacks callbacks)
    : member_(member),
      open_timeout_(open_timeout),
      callbacks_(std::move(callbacks)),
      progress_(std::make_shared<Progress>()) {
  {
    MutexLock lock(&progress_->mutex);
    progress_->callbacks = &callbacks_;
  }
  loop_.Start();
}

MemberThread::~MemberThread() { Stop(); }

void MemberThread::Load(uint64_t tag, const std::string& plan_json) {
  loop_.Post([this, tag, plan_json] {
    const auto report = [progress = progress_, tag](int64_t loaded_bytes, int64_t total_bytes) {
      MutexLock lock(&progress->mutex);
      if (progress->callbacks != nullptr)
        progress->callbacks->progress(tag, loaded_bytes, total_bytes);
    };
    callbacks_.loaded(tag, member_->Load(plan_json, report));
  });
}

void MemberThread::Open(const Epoch& epoch) {
  loop_.Post([this, epoch] {
    if (epoch.number <= closed_through_.load()) return;
    open_ = epoch.number;
    callbacks_.opened(epoch.number, member_->OpenEpoch(epoch, open_timeout_));
  });
}

void MemberThread::Formed(uint64_t epoch) {
  loop_.Post([this, epoch] {
    if (epoch > closed_through_.load()) member_->EpochFormed(epoch);
  });
}

void MemberThread::Hold(uint64_t epoch) {
  loop_.Post([this, epoch] {
    if (epoch <= closed_through_.load()) return;
    member_->Hold(epoch, [progress = progress_, epoch] {
      MutexLock lock(&progress->mutex);
      if (progress->callbacks != nullptr) progress->callbacks->idle(epoch);
    });
  });
}

void MemberThread::Close(uint64_t epoch, const absl::Status& why) {
  uint64_t through = closed_through_.load();
  while (through < epoch && !closed_through_.compare_exchange_weak(through, epoch)) {
  }
  member_->CancelOpen(epoch);
  loop_.Post([this, epoch, why] { CloseNow(epoch, why); });
}

void MemberThread::CloseNow(uint64_t epoch, const absl::Status& why) {
  if (open_ == 0 || open_ > epoch) return;
  member_->CloseEpoch(std::exchange(open_, 0), why);
}

void MemberThread::Stop() {
  closed_through_.store(UINT64_MAX);
  member_->CancelOpen(UINT64_MAX);
  loop_.Stop();
  CloseNow(UINT64_MAX, absl::UnavailableError("this rank is leaving its group"));
  MutexLock lock(&progress_->mutex);
  progress_->callbacks = nullptr;
}

}  // namespace echelon::group
