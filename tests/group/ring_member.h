// A Member whose links are real and whose stage is empty: it passes a frame round the ring when an
// epoch has formed.
#ifndef ECHELON_TESTS_GROUP_RING_MEMBER_H_
#define ECHELON_TESTS_GROUP_RING_MEMBER_H_

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/group/group.h"
#include "runtime/link/tcp_link.h"
#include "runtime/sync/mutex.h"

namespace echelon::group {

class RingMember : public Member {
 public:
  RingMember(int rank, int world) : rank_(rank), world_(world) {
    spdlog::set_level(spdlog::level::critical);
    listener_ = *link::TcpListener::Listen("127.0.0.1", 0, {});
  }

  int link_port() const { return listener_->port(); }

  absl::Status Load(const std::string& plan_json,
                    std::function<void(int64_t, int64_t)> progress) override {
    ++loads;
    {
      MutexLock lock(&mutex_);
      plan_ = plan_json;
      mutex_.Await([this] { return may_load_; });
    }
    progress(50, 100);
    progress(100, 100);
    return load_status;
  }

  absl::Status OpenEpoch(const Epoch& epoch, absl::Duration timeout) override {
    ++opens;
    if (world_ == 1) return absl::OkStatus();
    uint64_t through = cancelled_through_.load();
    if (epoch.number <= through) return absl::CancelledError("the epoch is over");
    dial_cancelled_ = false;
    auto next = link::Dial(epoch.next_address, {epoch.number, rank_, epoch.token}, {}, timeout,
                           {.cancelled = &dial_cancelled_});
    if (!next.ok()) return next.status();
    auto before =
        listener_->Accept({epoch.number, (rank_ + world_ - 1) % world_, epoch.token}, timeout);
    if (!before.ok()) return before.status();
    MutexLock lock(&mutex_);
    next_ = *std::move(next);
    before_ = *std::move(before);
    return absl::OkStatus();
  }

  void CancelOpen(uint64_t epoch) override {
    cancelled_through_ = std::max(cancelled_through_.load(), epoch);
    dial_cancelled_ = true;
    listener_->CancelThrough(epoch);
  }

  void EpochFormed(uint64_t epoch) override {
    Set([&] { formed_ = epoch; });
  }

  void CloseEpoch(uint64_t epoch, const absl::Status& why) override {
    Set([&] {
      if (next_ != nullptr) next_->Close();
      if (before_ != nullptr) before_->Close();
      next_ = nullptr;
      before_ = nullptr;
      closed_ = epoch;
      formed_ = 0;
      why_ = why;
    });
  }

  void Hold(uint64_t, std::function<void()> idle) override {
    {
      MutexLock lock(&mutex_);
      ++holds;
      idle_ = std::move(idle);
      if (busy_) return;
    }
    TellIdle();
  }

  // The head's: whether requests run.
  void KeepBusy(bool busy) {
    Set([&] { busy_ = busy; });
    if (!busy) TellIdle();
  }

  // A frame goes to the next rank; one comes from the rank before.
  absl::Status PassOn(uint64_t step) {
    std::shared_ptr<link::Link> next, before;
    uint64_t epoch = 0;
    {
      MutexLock lock(&mutex_);
      next = next_;
      before = before_;
      epoch = formed_;
    }
    if (next == nullptr) return absl::UnavailableError("no epoch");
    if (absl::Status status = next->Send({.epoch = epoch, .step = step}); !status.ok())
      return status;
    auto frame = before->Receive();
    if (!frame.ok()) return frame.status();
    return frame->step == step && frame->epoch == epoch ? absl::OkStatus()
                                                        : absl::InternalError("another frame came");
  }

  uint64_t formed() const {
    MutexLock lock(&mutex_);
    return formed_;
  }
  absl::Status why_closed() const {
    MutexLock lock(&mutex_);
    return why_;
  }
  std::string plan() const {
    MutexLock lock(&mutex_);
    return plan_;
  }
  void HoldLoading(bool hold) {
    Set([&] { may_load_ = !hold; });
  }

  std::atomic<int> loads = 0, opens = 0, holds = 0;
  absl::Status load_status;  // set before the group starts

 private:
  void TellIdle() {
    std::function<void()> idle;
    Set([&] { idle.swap(idle_); });
    if (idle) idle();
  }

  template <typename Change>
  void Set(Change change) {
    MutexLock lock(&mutex_);
    change();
  }

  const int rank_, world_;
  std::unique_ptr<link::TcpListener> listener_;
  std::atomic<uint64_t> cancelled_through_ = 0;
  std::atomic<bool> dial_cancelled_ = false;
  mutable Mutex mutex_;
  bool may_load_ = true, busy_ = false;
  std::function<void()> idle_;
  uint64_t formed_ = 0, closed_ = 0;
  std::string plan_;
  absl::Status why_;
  std::shared_ptr<link::Link> next_, before_;
};

}  // namespace echelon::group

#endif  // ECHELON_TESTS_GROUP_RING_MEMBER_H_
