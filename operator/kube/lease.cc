#include "operator/kube/lease.h"

#include <atomic>
#include <mutex>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "nlohmann/json.hpp"
#include "operator/kube/lease_json.h"
#include "operator/kube/lease_state.h"
#include "operator/kube/resource.h"

namespace echelon::op {

using nlohmann::json;

class Lease::Loop : public std::enable_shared_from_this<Loop> {
 public:
  Loop(Api* api, Timer* timer, Options options, Callbacks callbacks)
      : api_(api),
        timer_(timer),
        options_(std::move(options)),
        callbacks_(std::move(callbacks)),
        state_(options_.identity, {options_.duration}) {}

  void Start() {
    const std::lock_guard lock(mutex_);
    Go();
  }

  void Stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    deadline_ns_ = kNever;
    callbacks_ = {};
    on_released_ = {};
  }

  absl::Duration WriteTimeLeft() const {
    const int64_t deadline = deadline_ns_;
    if (deadline == kNever) return absl::ZeroDuration();
    return absl::Nanoseconds(deadline) - (timer_->Now() - absl::UnixEpoch());
  }

  void Release(absl::Duration limit, std::function<void()> done) {
    const std::lock_guard lock(mutex_);
    on_released_ = std::move(done);
    state_.Release(timer_->Now());
    timer_->After(limit, [self = shared_from_this()] {
      const std::lock_guard late(self->mutex_);
      self->Released();
    });
    Go();
  }

  std::string holder() const {
    const std::lock_guard lock(mutex_);
    return state_.holder();
  }

 private:
  static constexpr int64_t kNever = INT64_MIN;

  // All of these: locked.

  // Does what is due, tells what has changed, and comes back when more is due.
  void Go() {
    if (stopped_) return;
    const absl::Time now = timer_->Now();
    const LeaseState::Action action = state_.Tick(now, options_.wall());
    Tell(now);
    if (std::holds_alternative<LeaseState::Read>(action)) Read();
    if (const auto* write = std::get_if<LeaseState::Write>(&action)) Write(*write);
    if (state_.released()) return Released();
    const absl::Time at = state_.wake_at();
    if (at == absl::InfiniteFuture() || at == wake_at_) return;
    wake_at_ = at;
    timer_->After(at - now, [self = shared_from_this(), at] {
      const std::lock_guard lock(self->mutex_);
      if (self->wake_at_ != at) return;
      self->wake_at_ = absl::InfinitePast();
      self->Go();
    });
  }

  void Tell(absl::Time now) {
    const bool leads = state_.Leads(now);
    deadline_ns_ = leads ? absl::ToInt64Nanoseconds(state_.deadline() - absl::UnixEpoch()) : kNever;
    if (leads == led_) return;
    led_ = leads;
    const auto& tell = leads ? callbacks_.acquired : callbacks_.lost;
    if (tell) tell();
  }

  void Released() {
    if (const auto done = std::exchange(on_released_, nullptr)) done();
  }

  void Read() {
    Send(Get(kLeases, options_.ns, options_.name), [](Loop& loop, const Response& response) {
      if (response.code == 404) return loop.state_.OnRead(std::nullopt, loop.timer_->Now());
      if (!response.ok()) return loop.Refused("reading", response);
      loop.lease_ = json::parse(response.body, nullptr, false);
      const auto spec = ReadLease(loop.lease_);
      if (!spec.ok()) return loop.Failed("reading", spec.status());
      loop.state_.OnRead(*spec, loop.timer_->Now());
    });
  }

  void Write(const LeaseState::Write& write) {
    if (write.create) {
      lease_ = {{"metadata", {{"name", options_.name}, {"namespace", options_.ns}}}};
    }
    json body = lease_;
    WriteLease(write.spec, body);
    Request request = write.create ? Create(kLeases, options_.ns, body.dump())
                                   : Replace(kLeases, options_.ns, options_.name, body.dump());
    Send(std::move(request), [](Loop& loop, const Response& response) {
      // 404: it was deleted in between.
      if (response.code == 409 || response.code == 404) {
        return loop.state_.OnConflict(loop.timer_->Now());
      }
      if (!response.ok()) return loop.Refused("writing", response);
      loop.lease_ = json::parse(response.body, nullptr, false);
      if (!loop.lease_.is_object()) {
        return loop.Failed("writing", absl::DataLossError("the answer is no JSON object"));
      }
      loop.state_.OnWritten(loop.timer_->Now());
    });
  }

  void Send(Request request, void (*on_response)(Loop&, const Response&)) {
    // Two tries fit in before the deadline.
    request.timeout = options_.duration / 3;
    api_->Call(std::move(request),
               [self = shared_from_this(), on_response](const absl::StatusOr<Response>& response) {
                 const std::lock_guard lock(self->mutex_);
                 if (self->stopped_) return;
                 if (response.ok()) {
                   on_response(*self, *response);
                 } else {
                   self->Failed("reaching the API server for", response.status());
                 }
                 self->Go();
               });
  }

  void Refused(const char* doing, const Response& response) { Failed(doing, ToStatus(response)); }

  void Failed(const char* doing, const absl::Status& why) {
    if (callbacks_.error) {
      callbacks_.error(
          absl::Status(why.code(), absl::StrCat(doing, " Lease ", options_.ns, "/", options_.name,
                                                ": ", std::string(why.message()))));
    }
    state_.OnFailed(timer_->Now(), RetryAfter(why));
  }

  Api* const api_;
  Timer* const timer_;
  const Options options_;

  mutable std::mutex mutex_;
  Callbacks callbacks_;
  std::function<void()> on_released_;
  LeaseState state_;
  json lease_;  // as the server last had it: what others put there stays
  absl::Time wake_at_ = absl::InfinitePast();
  bool led_ = false, stopped_ = false;
  std::atomic<int64_t> deadline_ns_ = kNever;  // since the Unix epoch, of the Timer's clock
};

namespace {

Lease::Options WithWall(Lease::Options options) {
  if (!options.wall) options.wall = absl::Now;
  return options;
}

}  // namespace

Lease::Lease(Api* api, Timer* timer, Options options, Callbacks callbacks)
    : loop_(
          std::make_shared<Loop>(api, timer, WithWall(std::move(options)), std::move(callbacks))) {}

Lease::~Lease() { loop_->Stop(); }

void Lease::Start() { loop_->Start(); }

absl::Duration Lease::WriteTimeLeft() const { return loop_->WriteTimeLeft(); }

void Lease::Release(absl::Duration limit, std::function<void()> done) {
  loop_->Release(limit, std::move(done));
}

std::string Lease::holder() const { return loop_->holder(); }

std::string NewIdentity(const std::string& pod_uid) {
  std::random_device random;
  return absl::StrFormat("%s_%08x", pod_uid.empty() ? "no-pod" : pod_uid, random());
}

}  // namespace echelon::op
