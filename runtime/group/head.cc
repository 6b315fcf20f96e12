#include <grpcpp/grpcpp.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/group.grpc.pb.h"
#include "runtime/group/formation.h"
#include "runtime/group/group.h"
#include "runtime/group/head_stream.h"
#include "runtime/group/loop.h"
#include "runtime/group/member_thread.h"
#include "runtime/group/wire.h"
#include "runtime/host_port.h"
#include "runtime/link/socket.h"
#include "runtime/sync/mutex.h"
#include "runtime/sync/steady_clock.h"

namespace echelon::group {
namespace {

const absl::Duration kHelloTimeout = absl::Seconds(2);
const absl::Duration kShutdownTimeout = absl::Milliseconds(300);
constexpr size_t kTokenBytes = 16;
constexpr size_t kMaxHelloText = 1024;

std::string NewToken() {
  std::random_device random;
  std::string token;
  while (token.size() < kTokenBytes) token.push_back(static_cast<char>(random()));
  return token;
}

// Epochs grow across restarts of the head, since the clock does.
uint64_t FirstEpoch() { return static_cast<uint64_t>(absl::ToUnixMicros(absl::Now())); }

// The shell around Formation: streams, the head's own rank, time. Everything marked "the loop's" is
// touched by the loop's thread alone.
class Head final : public Node, v1::Group::CallbackService {
 public:
  Head(const Identity& self, const std::string& plan_json, int link_port, Member* member,
       const std::string& advertise, const Timing& timing, StatusCallback on_status)
      : self_(self),
        plan_json_(plan_json),
        link_port_(link_port),
        advertise_(advertise),
        timing_(timing),
        on_status_(std::move(on_status)),
        formation_(self, timing, FirstEpoch(), SteadyNow()),
        status_(formation_.status()),
        member_(member, timing.open, CallbacksOfMember()),
        loop_([this] { return NextTick(); }, [this](absl::Time since) { OnTick(since); }) {}

  ~Head() override { Stop(); }

  absl::Status Start(const std::string& host, int port);

  int port() const override { return port_; }

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

  void Leave(absl::Duration) override {
    loop_.Post([this] { Apply(Leaving{kSelf}); });
  }

  void ReportFailure(uint64_t epoch, const absl::Status& why) override {
    loop_.Post([this, epoch, why] { Apply(Failed{kSelf, epoch, why}); });
  }

 private:
  struct Stream {
    std::shared_ptr<HeadStream> stream;
    absl::Time began;
    bool said_hello = false;
  };

  grpc::ServerBidiReactor<v1::FromRank, v1::FromHead>* Join(
      grpc::CallbackServerContext* context) override;
  MemberThread::Callbacks CallbacksOfMember();
  absl::Time NextTick() const;
  void OnTick(absl::Time since);
  void OnMessage(StreamId id, const v1::FromRank& message);
  void OnHello(StreamId id, Stream* stream, const v1::Hello& hello);
  void Apply(const Event& event);
  void Do(const SendPlan& action);
  void Do(const Refuse& action);
  void Do(const Drop& action);
  void Do(const OpenLinks& action);
  void Do(const Formed& action);
  void Do(const Close& action);
  void Do(const Hold& action) { member_.Hold(action.epoch); }
  void Do(const Release& action);
  void Do(const End& action);
  void Do(const Log& action) { spdlog::info("{}", action.text); }
  void SendTo(StreamId id, const v1::FromHead& message);
  void EndStreams(const grpc::Status& status);
  void Finish(const absl::Status& result);
  void PublishStatus();

  const Identity self_;
  const std::string plan_json_;
  const int link_port_;
  const std::string advertise_;
  const Timing timing_;
  const StatusCallback on_status_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::atomic<StreamId> next_stream_ = kSelf + 1;

  // The loop's.
  Formation formation_;
  std::map<StreamId, Stream> streams_;
  uint64_t token_epoch_ = 0;
  std::string token_;
  absl::Time next_heartbeat_, last_tick_ = SteadyNow();

  mutable Mutex mutex_;
  GroupStatus status_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status result_ ABSL_GUARDED_BY(mutex_);
  int live_streams_ ABSL_GUARDED_BY(mutex_) = 0;  // that may still call back
  Mutex stop_mutex_;
  bool stopped_ ABSL_GUARDED_BY(stop_mutex_) = false;

  MemberThread member_;
  Loop loop_;
};

absl::Status Head::Start(const std::string& host, int port) {
  RouteGrpcLog();
  grpc::ServerBuilder builder;
  const std::string where = host.empty() ? "0.0.0.0" : host;
  // Without this a second head would share the port, and each would get some of the ranks.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxFromRankBytes);
  builder.AddListeningPort(JoinHostPort(where, port), grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port_ == 0) {
    // gRPC does not say why; the socket does.
    const absl::Status why = link::ListenOn(where, port).status();
    if (why.ok() || absl::IsAlreadyExists(why)) {
      return absl::AlreadyExistsError(
          absl::StrCat("port ", port, " is taken; choose another with --port or PORT"));
    }
    return absl::UnavailableError(absl::StrCat("the head ", why.message()));
  }
  loop_.Start();
  loop_.Post([this] {
    Apply(Joined{kSelf, self_, "this process", absl::StrCat(advertise_, ":", link_port_)});
  });
  return absl::OkStatus();
}

void Head::Stop() {
  MutexLock once(&stop_mutex_);
  if (std::exchange(stopped_, true)) return;
  if (server_ != nullptr && port_ != 0) {
    loop_.Post([this] {
      for (const auto& [id, stream] : streams_) Do(Release{id});
      EndStreams(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the head has left"));
      Finish(absl::OkStatus());
    });
    {
      MutexLock lock(&mutex_);
      mutex_.Await([this] { return ended_; });
    }
    server_->Shutdown(absl::ToChronoTime(absl::Now() + kShutdownTimeout));
    MutexLock lock(&mutex_);
    const auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return live_streams_ == 0; };
    mutex_.Await(idle);
  }
  loop_.Stop();
  member_.Stop();
  streams_.clear();
  server_.reset();
}

grpc::ServerBidiReactor<v1::FromRank, v1::FromHead>* Head::Join(
    grpc::CallbackServerContext* context) {
  const StreamId id = next_stream_.fetch_add(1);
  const std::shared_ptr<HeadStream> stream = HeadStream::Create(context);
  {
    MutexLock lock(&mutex_);
    ++live_streams_;
  }
  loop_.Post([this, id, stream] {
    const size_t most = 2 * static_cast<size_t>(self_.world) + 64;
    if (streams_.size() >= most) {
      return stream->End(
          grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too many streams; try again later"));
    }
    streams_[id] = Stream{.stream = stream, .began = SteadyNow()};
  });
  stream->Begin(
      {.message =
           [this, id](const v1::FromRank& message) {
             loop_.Post([this, id, message] { OnMessage(id, message); });
           },
       .lost = [this, id] { loop_.Post([this, id] {
                              Apply(Lost{id, "its stream broke"});
                            }); },
       .ended =
           [this, id] {
             loop_.Post([this, id] { streams_.erase(id); });
             MutexLock lock(&mutex_);
             --live_streams_;
           }});
  return stream.get();
}

MemberThread::Callbacks Head::CallbacksOfMember() {
  return {.progress =
              [this](uint64_t, int64_t loaded_bytes, int64_t total_bytes) {
                loop_.Post([this, loaded_bytes, total_bytes] {
                  Apply(Progressed{kSelf, loaded_bytes, total_bytes});
                });
              },
          .loaded =
              [this](uint64_t, const absl::Status& status) {
                loop_.Post([this, status] {
                  if (status.ok()) return Apply(Loaded{kSelf});
                  Apply(LoadFailed{kSelf, status});
                });
              },
          .opened =
              [this](uint64_t epoch, const absl::Status& status) {
                loop_.Post([this, epoch, status] {
                  if (status.ok()) return Apply(Opened{kSelf, epoch});
                  Apply(Failed{kSelf, epoch, status});
                });
              },
          .idle = [this](uint64_t epoch) { loop_.Post([this, epoch] { Apply(Idle{epoch}); }); }};
}

// An idle group wakes for its heartbeats alone; one that forms, four times as often.
absl::Time Head::NextTick() const {
  const bool all_known = std::all_of(streams_.begin(), streams_.end(),
                                     [](const auto& entry) { return entry.second.said_hello; });
  const absl::Time least = last_tick_ + timing_.heartbeat / 4;
  if (!all_known) return least;
  return std::max(least, std::min(next_heartbeat_, formation_.NextDeadline()));
}

void Head::OnTick(absl::Time since) {
  const absl::Time now = SteadyNow();
  last_tick_ = now;
  if (now >= next_heartbeat_) {
    next_heartbeat_ = now + timing_.heartbeat;
    for (auto& [id, stream] : streams_) stream.stream->SendHeartbeat();
  }
  const absl::Duration stall = Stall(since, now, timing_);
  for (auto& [id, stream] : streams_) {
    stream.began = std::min(now, stream.began + stall);
    if (!stream.said_hello && now > stream.began + kHelloTimeout) stream.stream->Abort();
  }
  Apply(Tick{since});
}

void Head::OnMessage(StreamId id, const v1::FromRank& message) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  Stream& stream = found->second;
  if (message.has_hello()) return OnHello(id, &stream, message.hello());
  if (!stream.said_hello) return stream.stream->Abort();
  Apply(Heard{id});
  switch (message.kind_case()) {
    case v1::FromRank::kProgress:
      return Apply(
          Progressed{id, message.progress().loaded_bytes(), message.progress().total_bytes()});
    case v1::FromRank::kLoaded:
      return Apply(Loaded{id});
    case v1::FromRank::kOpened:
      return Apply(Opened{id, message.opened().epoch()});
    case v1::FromRank::kLeaving:
      return Apply(Leaving{id});
    case v1::FromRank::kFailure: {
      const v1::Failure& failure = message.failure();
      const absl::Status why = StatusFrom(failure.code(), failure.message());
      if (failure.epoch() == 0) return Apply(LoadFailed{id, why});
      return Apply(Failed{id, failure.epoch(), why});
    }
    default:
      return;
  }
}

void Head::OnHello(StreamId id, Stream* stream, const v1::Hello& hello) {
  const bool too_long =
      hello.graph_digest().size() > kMaxHelloText || hello.revision().size() > kMaxHelloText ||
      hello.incarnation().size() > kMaxHelloText || hello.advertise().size() > kMaxHelloText ||
      hello.pod_name().size() > kMaxHelloText;
  if (stream->said_hello || too_long || hello.link_port() < 0 || hello.link_port() > 65535) {
    return stream->stream->Abort();
  }
  stream->said_hello = true;
  const std::string& peer = stream->stream->peer();
  const std::string host =
      hello.advertise().empty() ? HostOfPeer(peer) : OneLine(hello.advertise());
  Apply(Joined{id,
               Identity{.rank = hello.rank(),
                        .world = hello.world(),
                        .graph_digest = OneLine(hello.graph_digest()),
                        .revision = OneLine(hello.revision()),
                        .incarnation = OneLine(hello.incarnation()),
                        .pod_name = OneLine(hello.pod_name()),
                        .started_ms = hello.started_ms()},
               AddressOfPeer(peer), JoinHostPort(host, hello.link_port())});
}

void Head::Apply(const Event& event) {
  {
    MutexLock lock(&mutex_);
    if (ended_) return;
  }
  const std::vector<Action> actions = formation_.On(event, SteadyNow());
  // First, so that who is told of an epoch finds it in the status.
  if (!actions.empty() || std::holds_alternative<Progressed>(event) ||
      std::holds_alternative<Loaded>(event) || std::holds_alternative<Opened>(event)) {
    PublishStatus();
  }
  for (const Action& action : actions) {
    std::visit([this](const auto& one) { Do(one); }, action);
  }
}

void Head::PublishStatus() {
  const GroupStatus status = formation_.status();
  {
    MutexLock lock(&mutex_);
    status_ = status;
  }
  if (on_status_) on_status_(status);
}

void Head::SendTo(StreamId id, const v1::FromHead& message) {
  const auto found = streams_.find(id);
  if (found != streams_.end()) found->second.stream->Send(message);
}

void Head::Do(const SendPlan& action) {
  if (action.stream == kSelf) return member_.Load(0, plan_json_);
  v1::FromHead message;
  message.mutable_plan()->set_json(plan_json_);
  SendTo(action.stream, message);
}

void Head::Do(const Refuse& action) {
  const auto found = streams_.find(action.stream);
  if (found != streams_.end()) found->second.stream->End(ToGrpc(action.why));
}

void Head::Do(const Drop& action) {
  const auto found = streams_.find(action.stream);
  if (found != streams_.end()) found->second.stream->Abort();
}

void Head::Do(const OpenLinks& action) {
  if (std::exchange(token_epoch_, action.epoch) != action.epoch) token_ = NewToken();
  if (action.stream == kSelf) {
    const bool alone = self_.world == 1;
    return member_.Open(
        Epoch{action.epoch, token_,
              alone ? absl::StrCat("127.0.0.1:", link_port_) : action.next_address});
  }
  v1::FromHead message;
  message.mutable_open()->set_epoch(action.epoch);
  message.mutable_open()->set_token(token_);
  message.mutable_open()->set_next_address(action.next_address);
  SendTo(action.stream, message);
}

void Head::Do(const Formed& action) {
  if (action.stream == kSelf) return member_.Formed(action.epoch);
  v1::FromHead message;
  message.mutable_formed()->set_epoch(action.epoch);
  SendTo(action.stream, message);
}

void Head::Do(const Close& action) {
  if (action.stream == kSelf) return member_.Close(action.epoch, action.why);
  v1::FromHead message;
  message.mutable_close()->set_epoch(action.epoch);
  message.mutable_close()->set_code(action.why.raw_code());
  message.mutable_close()->set_message(std::string(action.why.message()));
  SendTo(action.stream, message);
}

void Head::Do(const Release& action) {
  v1::FromHead message;
  message.mutable_release();
  SendTo(action.stream, message);
}

void Head::Do(const End& action) {
  EndStreams(
      grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, std::string(action.why.message())));
  member_.Close(UINT64_MAX, action.why);
  Finish(action.why);
}

void Head::EndStreams(const grpc::Status& status) {
  for (auto& [id, stream] : streams_) stream.stream->End(status);
}

void Head::Finish(const absl::Status& result) {
  MutexLock lock(&mutex_);
  if (std::exchange(ended_, true)) return;
  result_ = result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Node>> StartHead(const Identity& self, const std::string& host,
                                                int port, const std::string& plan_json,
                                                int link_port, const std::string& advertise,
                                                Member* member, const Timing& timing,
                                                StatusCallback on_status) {
  if (self.world < 1 || self.rank != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the head is rank 0 of at least 1, not rank ", self.rank, " of ", self.world));
  }
  auto head = std::make_unique<Head>(self, plan_json, link_port, member, advertise, timing,
                                     std::move(on_status));
  if (absl::Status status = head->Start(host, port); !status.ok()) return status;
  return head;
}

}  // namespace echelon::group
