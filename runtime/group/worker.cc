#include <grpcpp/grpcpp.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/group.grpc.pb.h"
#include "runtime/group/formation.h"
#include "runtime/group/group.h"
#include "runtime/group/loop.h"
#include "runtime/group/member_thread.h"
#include "runtime/group/wire.h"
#include "runtime/group/worker_stream.h"
#include "runtime/sync/mutex.h"
#include "runtime/sync/steady_clock.h"

namespace echelon::group {
namespace {

const absl::Duration kFirstRedialPause = absl::Milliseconds(20);
const absl::Duration kLongestRedialPause = absl::Milliseconds(200);
// Short, since a head that has moved may have left an address that never answers.
const absl::Duration kAnswerTimeout = absl::Seconds(2);  // from the dial to the head's first word
const absl::Duration kGoodbyeTimeout = absl::Milliseconds(300);
const absl::Duration kLogEvery = absl::Seconds(10);
const absl::Duration kProgressEvery = absl::Milliseconds(50);

// Everything marked "the loop's" is touched by the loop's thread alone.
class Worker final : public Node {
 public:
  Worker(const Identity& self, const std::string& address, int link_port,
         const std::string& advertise, Member* member, const Timing& timing,
         StatusCallback on_status);
  ~Worker() override { Stop(); }

  int port() const override { return 0; }

  GroupStatus status() const override {
    MutexLock lock(&mutex_);
    return status_;
  }

  absl::Status Wait() override {
    MutexLock lock(&mutex_);
    mutex_.Await([this] { return ended_; });
    return result_;
  }

  void Stop() override;
  void Leave(absl::Duration patience) override;

  void ReportFailure(uint64_t epoch, const absl::Status& why) override {
    loop_.Post([this, epoch, why] { SendFailure(epoch, why); });
  }

 private:
  MemberThread::Callbacks CallbacksOfMember();
  absl::Time NextTick() const;
  void OnTick(absl::Time since);
  void Dial();
  void OnMessage(uint64_t dial, const v1::FromHead& message);
  void OnOpen(const v1::Open& open);
  void OnClose(const v1::Close& close);
  void OnLoaded(uint64_t dial, const absl::Status& status);
  void OnOpened(uint64_t epoch, const absl::Status& status);
  void OnEnded(uint64_t dial, const grpc::Status& status);
  // The stream is of no use any more: the epoch ends here and the head is dialled anew.
  void Detach(const std::string& why);
  void BeginLeaving();
  void Left();
  void CheckDeadline(absl::Time now);
  void CloseEpoch(const absl::Status& why);
  void SendFailure(uint64_t epoch, const absl::Status& why);
  void SendProgress();
  void End(const absl::Status& result);
  void SetPhase(Phase phase);
  void Publish();
  absl::Status Unreachable() const;

  const Identity self_;
  const std::string address_, host_;  // the head's
  const Timing timing_;
  const StatusCallback on_status_;
  v1::FromRank hello_;

  // The loop's.
  std::shared_ptr<WorkerStream> stream_;  // null between dials
  uint64_t dial_ = 0;                     // numbers the streams: what an older one says is ignored
  bool answered_ = false;                 // the head has spoken on this stream
  absl::Time dialled_at_, heard_, next_dial_, next_heartbeat_, next_progress_, log_at_,
      connected_until_, last_tick_ = SteadyNow();
  absl::Duration pause_ = kFirstRedialPause;
  std::string last_error_ = "not dialled yet";
  uint64_t epoch_ = 0;  // the one that is open or opening; 0: none
  bool ever_formed_ = false, progress_due_ = false, leaving_ = false, done_ = false;
  GroupStatus current_;

  mutable Mutex mutex_;
  GroupStatus status_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false, left_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status result_ ABSL_GUARDED_BY(mutex_);
  int live_streams_ ABSL_GUARDED_BY(mutex_) = 0;  // that may still call back
  Mutex stop_mutex_;
  bool stopped_ ABSL_GUARDED_BY(stop_mutex_) = false;

  MemberThread member_;
  Loop loop_;
};

Worker::Worker(const Identity& self, const std::string& address, int link_port,
               const std::string& advertise, Member* member, const Timing& timing,
               StatusCallback on_status)
    : self_(self),
      address_(address),
      host_(address.substr(0, address.rfind(':'))),
      timing_(timing),
      on_status_(std::move(on_status)),
      member_(member, timing.open, CallbacksOfMember()),
      loop_([this] { return NextTick(); }, [this](absl::Time since) { OnTick(since); }) {
  RouteGrpcLog();
  v1::Hello* hello = hello_.mutable_hello();
  hello->set_rank(self.rank);
  hello->set_world(self.world);
  hello->set_graph_digest(self.graph_digest);
  hello->set_revision(self.revision);
  hello->set_incarnation(self.incarnation);
  hello->set_link_port(link_port);
  hello->set_advertise(advertise);
  hello->set_pod_name(self.pod_name);
  hello->set_started_ms(self.started_ms);
  current_.ranks.push_back(RankStatus{.rank = self.rank, .incarnation = self.incarnation});
  status_ = current_;
  connected_until_ = SteadyNow();
  log_at_ = connected_until_ + kLogEvery;
  loop_.Start();
  loop_.Post([this] { Dial(); });
}

void Worker::Stop() {
  MutexLock once(&stop_mutex_);
  if (std::exchange(stopped_, true)) return;
  loop_.Post([this] { End(absl::OkStatus()); });
  {
    MutexLock lock(&mutex_);
    mutex_.Await([this] { return ended_; });
  }
  {
    MutexLock lock(&mutex_);
    const auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return live_streams_ == 0; };
    if (!mutex_.AwaitUntil(idle, SteadyNow() + kGoodbyeTimeout)) {
      loop_.Post([this] {
        if (stream_ != nullptr) stream_->Abort();
      });
      mutex_.Await(idle);
    }
  }
  loop_.Stop();
  member_.Stop();
  stream_.reset();
}

void Worker::Leave(absl::Duration patience) {
  loop_.Post([this] { BeginLeaving(); });
  MutexLock lock(&mutex_);
  mutex_.AwaitUntil([this] { return left_ || ended_; }, SteadyNow() + patience);
}

void Worker::BeginLeaving() {
  if (done_ || std::exchange(leaving_, true)) return;
  if (stream_ == nullptr || !answered_) return Left();
  v1::FromRank message;
  message.mutable_leaving();
  stream_->Send(message);
}

// Nothing keeps a rank that is leaving: it was released, or has no head. Without a head there is no
// epoch, and what ran in the last one has failed.
void Worker::Left() {
  if (!leaving_) return;
  MutexLock lock(&mutex_);
  left_ = true;
}

MemberThread::Callbacks Worker::CallbacksOfMember() {
  return {.progress =
              [this](uint64_t dial, int64_t loaded_bytes, int64_t total_bytes) {
                loop_.Post([this, dial, loaded_bytes, total_bytes] {
                  if (dial != dial_ || done_) return;
                  current_.ranks[0].loaded_bytes = loaded_bytes;
                  current_.ranks[0].total_bytes = total_bytes;
                  progress_due_ = true;
                });
              },
          .loaded =
              [this](uint64_t dial, const absl::Status& status) {
                loop_.Post([this, dial, status] { OnLoaded(dial, status); });
              },
          .opened =
              [this](uint64_t epoch, const absl::Status& status) {
                loop_.Post([this, epoch, status] { OnOpened(epoch, status); });
              }};
}

// The first tick may come before the first dial's turn: one of the two is enough.
void Worker::Dial() {
  if (done_ || stream_ != nullptr) return;
  const uint64_t dial = ++dial_;
  answered_ = false;
  dialled_at_ = SteadyNow();
  {
    MutexLock lock(&mutex_);
    ++live_streams_;
  }
  stream_ = WorkerStream::Start(
      address_, hello_,
      {.message =
           [this, dial](const v1::FromHead& message) {
             loop_.Post([this, dial, message] { OnMessage(dial, message); });
           },
       .ended =
           [this, dial](const grpc::Status& status, std::shared_ptr<WorkerStream> stream) {
             loop_.Post(
                 [this, dial, status, dies_here = std::move(stream)] { OnEnded(dial, status); });
             MutexLock lock(&mutex_);
             --live_streams_;
           }});
}

// An idle rank wakes for its heartbeats alone; one that dials or loads, four times as often.
absl::Time Worker::NextTick() const {
  if (done_) return absl::InfiniteFuture();
  const absl::Time least = last_tick_ + timing_.heartbeat / 4;
  if (stream_ == nullptr || !answered_ || progress_due_) return least;
  return std::max(least, std::min(next_heartbeat_, heard_ + timing_.liveness));
}

void Worker::OnTick(absl::Time since) {
  const absl::Time now = SteadyNow();
  last_tick_ = now;
  if (done_) return;
  if (stream_ == nullptr) {
    if (leaving_) return;
    CheckDeadline(now);
    if (!done_ && now >= next_dial_) Dial();
    return;
  }
  const absl::Duration stall = Stall(since, now, timing_);
  heard_ = std::min(now, heard_ + stall);
  dialled_at_ = std::min(now, dialled_at_ + stall);
  if (!answered_) {
    if (now > dialled_at_ + std::max(timing_.liveness, kAnswerTimeout))
      Detach("it does not answer");
    return;
  }
  if (now - heard_ > timing_.liveness) {
    return Detach(absl::StrCat("it was silent for ", absl::FormatDuration(timing_.liveness)));
  }
  if (progress_due_ && now >= next_progress_) {
    next_progress_ = now + kProgressEvery;
    SendProgress();
  }
  if (now < next_heartbeat_) return;
  next_heartbeat_ = now + timing_.heartbeat;
  stream_->SendHeartbeat();
}

absl::Status Worker::Unreachable() const {
  return absl::UnavailableError(absl::StrCat("cannot reach the head at ", address_, " within ",
                                             absl::ToInt64Seconds(timing_.join),
                                             " s (last error: ", last_error_, ")"));
}

void Worker::CheckDeadline(absl::Time now) {
  if (!ever_formed_ && now > connected_until_ + timing_.join) return End(Unreachable());
  if (now < log_at_) return;
  log_at_ = now + kLogEvery;
  spdlog::info("rank {} is dialling the head at {}: {}", self_.rank, address_, last_error_);
}

void Worker::OnMessage(uint64_t dial, const v1::FromHead& message) {
  if (dial != dial_ || stream_ == nullptr || done_) return;
  heard_ = SteadyNow();
  if (!std::exchange(answered_, true)) pause_ = kFirstRedialPause;
  connected_until_ = heard_;
  switch (message.kind_case()) {
    case v1::FromHead::kPlan:
      current_.ranks[0].joins++;
      SetPhase(Phase::kLoading);
      return member_.Load(dial, message.plan().json());
    case v1::FromHead::kOpen:
      return OnOpen(message.open());
    case v1::FromHead::kFormed:
      if (message.formed().epoch() != epoch_) return;
      ever_formed_ = true;
      current_.epoch = epoch_;
      current_.formed = true;
      spdlog::info("rank {} is in epoch {}", self_.rank, epoch_);
      member_.Formed(epoch_);
      return SetPhase(Phase::kReady);
    case v1::FromHead::kClose:
      return OnClose(message.close());
    case v1::FromHead::kRelease:
      return Left();
    default:
      return;
  }
}

void Worker::OnOpen(const v1::Open& open) {
  CloseEpoch(absl::UnavailableError("a newer epoch opens"));
  epoch_ = open.epoch();
  const std::string& next = open.next_address();
  member_.Open(
      Epoch{epoch_, open.token(), next.starts_with(':') ? absl::StrCat(host_, next) : next});
}

void Worker::OnClose(const v1::Close& close) {
  if (close.epoch() != epoch_) return;
  CloseEpoch(StatusFrom(close.code(), close.message()));
}

void Worker::OnLoaded(uint64_t dial, const absl::Status& status) {
  if (done_) return;
  if (!status.ok()) {
    // Said even on a newer stream than the one that asked: this process ends with it.
    SendFailure(0, status);
    return End(status);
  }
  if (dial != dial_ || stream_ == nullptr) return;
  if (progress_due_) SendProgress();
  v1::FromRank message;
  message.mutable_loaded();
  stream_->Send(message);
  SetPhase(Phase::kLoaded);
}

void Worker::OnOpened(uint64_t epoch, const absl::Status& status) {
  if (done_ || epoch != epoch_ || stream_ == nullptr) return;
  if (!status.ok()) return SendFailure(epoch, status);
  v1::FromRank message;
  message.mutable_opened()->set_epoch(epoch);
  stream_->Send(message);
}

void Worker::OnEnded(uint64_t dial, const grpc::Status& status) {
  if (dial != dial_ || stream_ == nullptr || done_) return;
  const std::string why = OneLine(status.error_message());
  if (status.error_code() == grpc::StatusCode::FAILED_PRECONDITION && !leaving_) {
    stream_.reset();
    return End(absl::FailedPreconditionError(why));
  }
  Detach(why.empty() ? "its stream ended" : why);
}

void Worker::Detach(const std::string& why) {
  const bool was_in = answered_;
  last_error_ = why;
  if (was_in) spdlog::warn("rank {} lost the head at {}: {}", self_.rank, address_, why);
  stream_->Abort();
  stream_.reset();
  CloseEpoch(absl::UnavailableError(absl::StrCat("lost the head at ", address_, ": ", why)));
  current_.ranks[0].last_error = why;
  SetPhase(Phase::kMissing);
  Left();
  next_dial_ = SteadyNow() + pause_;
  pause_ = std::min(pause_ * 2, kLongestRedialPause);
}

void Worker::CloseEpoch(const absl::Status& why) {
  const uint64_t epoch = std::exchange(epoch_, 0);
  if (epoch == 0) return;
  member_.Close(epoch, why);
  current_.formed = false;
  SetPhase(Phase::kLoaded);
}

void Worker::SendFailure(uint64_t epoch, const absl::Status& why) {
  if (stream_ == nullptr || done_) return;
  v1::FromRank message;
  message.mutable_failure()->set_epoch(epoch);
  message.mutable_failure()->set_code(why.raw_code());
  message.mutable_failure()->set_message(std::string(why.message()));
  stream_->Send(message);
}

void Worker::SendProgress() {
  progress_due_ = false;
  v1::FromRank message;
  message.mutable_progress()->set_loaded_bytes(current_.ranks[0].loaded_bytes);
  message.mutable_progress()->set_total_bytes(current_.ranks[0].total_bytes);
  stream_->Send(message);
  Publish();
}

void Worker::End(const absl::Status& result) {
  if (std::exchange(done_, true)) return;
  CloseEpoch(result.ok() ? absl::UnavailableError("this rank is leaving its group") : result);
  // What was said last is still sent: the head then knows why this rank goes.
  if (stream_ != nullptr && answered_) {
    stream_->End();
  } else if (stream_ != nullptr) {
    stream_->Abort();
  }
  current_.ranks[0].last_error = std::string(result.message());
  SetPhase(Phase::kMissing);
  MutexLock lock(&mutex_);
  ended_ = true;
  result_ = result;
}

void Worker::SetPhase(Phase phase) {
  current_.ranks[0].phase = phase;
  Publish();
}

void Worker::Publish() {
  {
    MutexLock lock(&mutex_);
    status_ = current_;
  }
  if (on_status_) on_status_(current_);
}

}  // namespace

std::unique_ptr<Node> StartWorker(const Identity& self, const std::string& address, int link_port,
                                  const std::string& advertise, Member* member,
                                  const Timing& timing, StatusCallback on_status) {
  return std::make_unique<Worker>(self, address, link_port, advertise, member, timing,
                                  std::move(on_status));
}

}  // namespace echelon::group
