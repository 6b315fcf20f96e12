#include "tests/operator/kube/fake_api.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace echelon::op {

struct FakeApi::Stream {
  Filter filter;
  OnLine on_line;
  OnEnd on_end;
  std::deque<std::shared_ptr<const std::string>> lines;  // not yet delivered
  bool open = false;                                     // the server has accepted it
  bool broken = false;                                   // nothing arrives any more
  bool ended = false;
};

struct FakeApi::State : std::enable_shared_from_this<FakeApi::State> {
  State(Timer* timer, Options options)
      : timer(timer), options(options), random(options.seed), store(options.store) {}

  // All below: under the mutex, except where it says "unlocked".
  absl::Duration Latency() {
    const double spread = absl::ToDoubleNanoseconds(options.max_latency - options.min_latency);
    const double part = std::uniform_real_distribution<double>(0, 1)(random);
    return options.min_latency + absl::Nanoseconds(spread * part);
  }
  void Later(absl::Duration delay, std::function<void(State&)> task) {
    timer->After(delay, [weak = weak_from_this(), task = std::move(task)] {
      if (const auto self = weak.lock()) task(*self);  // unlocked
    });
  }
  Fault FaultOf(const Request& request) {
    Fault fault = faults ? faults(request) : Fault();
    if (down) fault.lose_request = true;
    return fault;
  }
  void Log(const Request& request, int code, bool changed) {
    log.push_back({request.method, request.path, code, changed, timer->Now()});
  }

  // Unlocked. The request arrives at the server.
  void Arrive(const Request& request, const Fault& fault, const Done& done, absl::Time deadline);
  void Open(const std::shared_ptr<Stream>& stream, const Request& request, const Fault& fault);
  void Deliver(const std::shared_ptr<Stream>& stream);
  void End(const std::shared_ptr<Stream>& stream, absl::Status why);

  void Publish(const Change& change);
  void Queue(const std::shared_ptr<Stream>& stream, std::shared_ptr<const std::string> line);
  void Bookmark(const std::shared_ptr<Stream>& stream);
  void KeepBookmarking(const std::shared_ptr<Stream>& stream);

  Timer* const timer;
  const Options options;
  std::mutex mutex;
  std::mt19937_64 random;
  FakeStore store;
  FaultHook faults;
  bool down = false, silent = false;
  std::vector<std::shared_ptr<Stream>> streams;
  std::vector<LoggedRequest> log;
  std::function<void(const Change&)> on_change;
};

namespace {

std::string Line(const std::string& type, const Json& object) {
  return absl::StrCat(R"({"type":")", type, R"(","object":)", object.dump(), "}");
}

// How a change looks through a filter, as an object may enter and leave it; "": not at all.
std::string TypeFor(const Filter& filter, const Change& change) {
  if (change.collection != filter.collection) return "";
  const bool was = change.before != nullptr && filter.Has(*change.before);
  const bool is = change.type != "DELETED" && filter.Has(*change.after);
  if (was) return is ? "MODIFIED" : "DELETED";
  return is ? "ADDED" : "";
}

}  // namespace

// ---- calls --------------------------------------------------------------------------------------

void FakeApi::State::Arrive(const Request& request, const Fault& fault, const Done& done,
                            absl::Time deadline) {
  absl::StatusOr<Response> answer = absl::UnavailableError("the connection was cut");
  absl::Duration back;
  {
    const std::lock_guard lock(mutex);
    back = Latency() + fault.after;
    if (silent) {
      Log(request, 0, false);
      answer = absl::DeadlineExceededError("no answer in time");
      back = absl::InfiniteDuration();
    } else if (fault.lose_request || down) {
      Log(request, 0, false);
    } else if (fault.code != 0) {
      Log(request, fault.code, false);
      Response refusal = Failure(fault.code, fault.reason, "made to fail");
      refusal.retry_after = fault.retry_after;
      answer = std::move(refusal);
    } else {
      const int64_t before = store.version();
      Response response = store.Handle(request, timer->Now());
      Log(request, response.code, store.version() != before);
      if (!fault.lose_response) answer = std::move(response);
    }
  }
  if (timer->Now() + back > deadline) {
    answer = absl::DeadlineExceededError(
        absl::StrCat(request.method, " ", request.path, ": no answer in time"));
    back = deadline - timer->Now();
  }
  timer->After(back, [done, answer = std::move(answer)] { done(answer); });
}

void FakeApi::Call(Request request, Done done) {
  const std::lock_guard lock(state_->mutex);
  const Fault fault = state_->FaultOf(request);
  const absl::Time deadline = state_->timer->Now() + request.timeout;
  const absl::Duration there = std::min(state_->Latency() + fault.before, request.timeout);
  state_->timer->After(there, [weak = std::weak_ptr(state_), request = std::move(request), fault,
                               done = std::move(done), deadline] {
    if (const auto state = weak.lock()) {
      state->Arrive(request, fault, done, deadline);
    } else {
      done(absl::CancelledError("the API is being destroyed"));
    }
  });
}

Response FakeApi::Do(const Request& request) {
  const std::lock_guard lock(state_->mutex);
  return state_->store.Handle(request, state_->timer->Now());
}

// ---- watches ------------------------------------------------------------------------------------

class FakeApi::Handle final : public WatchStream {
 public:
  Handle(std::weak_ptr<State> state, std::shared_ptr<Stream> stream)
      : state_(std::move(state)), stream_(std::move(stream)) {}
  ~Handle() override { Cancel(); }
  void Cancel() override {
    const auto state = state_.lock();
    if (state == nullptr) return;
    {
      const std::lock_guard lock(state->mutex);
      stream_->broken = true;
      stream_->lines.clear();
    }
    state->Later(absl::ZeroDuration(), [stream = stream_](State& state) {
      state.End(stream, absl::CancelledError("cancelled"));
    });
  }

 private:
  std::weak_ptr<State> state_;
  std::shared_ptr<Stream> stream_;
};

std::unique_ptr<WatchStream> FakeApi::Watch(std::string path, OnLine on_line, OnEnd on_end) {
  const std::lock_guard lock(state_->mutex);
  auto stream = std::make_shared<Stream>();
  stream->on_line = std::move(on_line);
  stream->on_end = std::move(on_end);
  Request request;
  request.path = std::move(path);
  const Fault fault = state_->FaultOf(request);
  state_->streams.push_back(stream);
  state_->Later(state_->Latency() + fault.before,
                [stream, request, fault](State& state) { state.Open(stream, request, fault); });
  return std::make_unique<Handle>(state_, stream);
}

void FakeApi::State::Open(const std::shared_ptr<Stream>& stream, const Request& request,
                          const Fault& fault) {
  absl::Status refused;
  {
    const std::lock_guard lock(mutex);
    if (stream->broken || stream->ended) return;
    if (silent) {
      Log(request, 0, false);
      stream->broken = true;
      return Later(options.idle_timeout, [stream](State& state) {
        state.End(stream, absl::DeadlineExceededError("the watch was silent for too long"));
      });
    }
    if (fault.lose_request || fault.lose_response || down) {
      refused = absl::UnavailableError("the connection was cut");
    } else if (fault.code != 0) {
      Response refusal = Failure(fault.code, fault.reason, "made to fail");
      refusal.retry_after = fault.retry_after;
      refused = ToStatus(refusal);
    }
    const Target target = Target::Of(request.path);
    if (refused.ok() && FindCollection(target.group_version, target.plural) == nullptr) {
      refused = ToStatus(NoSuchResource());
    }
    Log(request, refused.ok() ? 200 : fault.code, false);
    if (refused.ok()) {
      stream->filter = {target.collection(), target.ns, target.Param("labelSelector"),
                        target.Param("fieldSelector")};
      stream->open = true;
      int64_t from = 0, seconds = 0;
      const bool at_once = !absl::SimpleAtoi(target.Param("resourceVersion"), &from) || from == 0;
      if (at_once) {
        for (const auto& object : store.Select(stream->filter)) {
          Queue(stream, std::make_shared<const std::string>(Line("ADDED", *object)));
        }
      } else if (const auto changes = store.Since(from)) {
        for (const Change* change : *changes) {
          const std::string type = TypeFor(stream->filter, *change);
          if (type.empty()) continue;
          Queue(stream, std::make_shared<const std::string>(Line(type, *change->after)));
        }
      } else {  // the server answers 200 and says it in the stream
        const Response gone = Failure(410, "Expired", "too old resource version");
        Queue(stream, std::make_shared<const std::string>(Line("ERROR", Json::parse(gone.body))));
        stream->open = false;
        Later(options.max_latency, [stream](State& state) { state.End(stream, absl::OkStatus()); });
        return;
      }
      if (absl::SimpleAtoi(target.Param("timeoutSeconds"), &seconds) && seconds > 0) {
        Later(absl::Seconds(seconds),
              [stream](State& state) { state.End(stream, absl::OkStatus()); });
      }
      if (target.Param("allowWatchBookmarks") == "true") KeepBookmarking(stream);
      return;
    }
  }
  End(stream, refused);
}

void FakeApi::State::Queue(const std::shared_ptr<Stream>& stream,
                           std::shared_ptr<const std::string> line) {
  if (stream->broken || stream->ended) return;
  if (silent) {
    stream->broken = true;
    return Later(options.idle_timeout, [stream](State& state) {
      state.End(stream, absl::DeadlineExceededError("the watch was silent for too long"));
    });
  }
  stream->lines.push_back(std::move(line));
  // Whichever task comes first takes the oldest line, so the order holds.
  Later(Latency(), [stream](State& state) { state.Deliver(stream); });
}

void FakeApi::State::Deliver(const std::shared_ptr<Stream>& stream) {
  std::shared_ptr<const std::string> line;
  {
    const std::lock_guard lock(mutex);
    if (stream->broken || stream->ended || stream->lines.empty()) return;
    line = std::move(stream->lines.front());
    stream->lines.pop_front();
  }
  stream->on_line(*line);
}

void FakeApi::State::End(const std::shared_ptr<Stream>& stream, absl::Status why) {
  {
    const std::lock_guard lock(mutex);
    if (stream->ended) return;
    // A clean end comes after what was sent before it.
    if (why.ok() && !stream->broken && !stream->lines.empty()) {
      stream->open = false;
      return Later(options.max_latency,
                   [stream](State& state) { state.End(stream, absl::OkStatus()); });
    }
    stream->ended = true;
    std::erase(streams, stream);
  }
  stream->on_end(std::move(why));
}

void FakeApi::State::Publish(const Change& change) {
  if (on_change) on_change(change);
  std::map<std::string, std::shared_ptr<const std::string>> lines;  // by type: mostly one for all
  for (const auto& stream : streams) {
    if (!stream->open) continue;
    const std::string type = TypeFor(stream->filter, change);
    if (type.empty()) continue;
    auto& line = lines[type];
    if (line == nullptr) line = std::make_shared<const std::string>(Line(type, *change.after));
    Queue(stream, line);
  }
}

void FakeApi::State::Bookmark(const std::shared_ptr<Stream>& stream) {
  if (!stream->open || stream->ended) return;
  const Json object{{"metadata", {{"resourceVersion", std::to_string(store.version())}}}};
  Queue(stream, std::make_shared<const std::string>(Line("BOOKMARK", object)));
}

void FakeApi::State::KeepBookmarking(const std::shared_ptr<Stream>& stream) {
  Later(options.bookmark_period, [stream](State& state) {
    const std::lock_guard lock(state.mutex);
    if (stream->ended || stream->broken) return;
    state.Bookmark(stream);
    state.KeepBookmarking(stream);
  });
}

// ---- what tests do to it ------------------------------------------------------------------------

FakeApi::FakeApi(Timer* timer, Options options) : state_(std::make_shared<State>(timer, options)) {
  state_->store.OnChange([state = state_.get()](const Change& change) { state->Publish(change); });
}

FakeApi::~FakeApi() { CutWatches(absl::CancelledError("the API is being destroyed")); }

void FakeApi::SetFaults(FaultHook faults) {
  const std::lock_guard lock(state_->mutex);
  state_->faults = std::move(faults);
}

void FakeApi::SetDown(bool down) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->down = down;
  }
  if (down) CutWatches();
}

void FakeApi::SetSilent(bool silent) {
  const std::lock_guard lock(state_->mutex);
  state_->silent = silent;
}

void FakeApi::CutWatches(const absl::Status& why) {
  const std::lock_guard lock(state_->mutex);
  for (const auto& stream : state_->streams) {
    stream->open = false;
    if (!why.ok()) stream->lines.clear();
    // Not by Later: it must come also while the Api is being destroyed.
    state_->timer->After(absl::ZeroDuration(),
                         [state = state_, stream, why] { state->End(stream, why); });
  }
}

void FakeApi::Compact() {
  const std::lock_guard lock(state_->mutex);
  state_->store.Compact();
}

void FakeApi::Restart() {
  CutWatches();
  Compact();
}

void FakeApi::SendBookmarks() {
  const std::lock_guard lock(state_->mutex);
  for (const auto& stream : state_->streams) state_->Bookmark(stream);
}

void FakeApi::OnChange(std::function<void(const Change&)> on_change) {
  const std::lock_guard lock(state_->mutex);
  state_->on_change = std::move(on_change);
}

void FakeApi::SetAdmission(FakeStore::Admission admission) {
  const std::lock_guard lock(state_->mutex);
  state_->store.SetAdmission(std::move(admission));
}

size_t FakeApi::open_watches() {
  const std::lock_guard lock(state_->mutex);
  return static_cast<size_t>(std::count_if(state_->streams.begin(), state_->streams.end(),
                                           [](const auto& stream) { return stream->open; }));
}

int64_t FakeApi::version() {
  const std::lock_guard lock(state_->mutex);
  return state_->store.version();
}

std::vector<LoggedRequest> FakeApi::log() {
  const std::lock_guard lock(state_->mutex);
  return state_->log;
}

void FakeApi::ClearLog() {
  const std::lock_guard lock(state_->mutex);
  state_->log.clear();
}

Json FakeApi::Put(const Resource& resource, const Json& object) {
  const std::string ns = object["metadata"].value("namespace", "");
  const std::string name = object["metadata"].value("name", "");
  ApplyOptions options;
  options.field_manager = "test";
  const Response response = Do(Apply(resource, ns, name, object.dump(), options));
  EXPECT_TRUE(response.ok()) << ErrorText(response);
  return Json::parse(response.body);
}

void FakeApi::PutStatus(const Resource& resource, const std::string& ns, const std::string& name,
                        const Json& status) {
  const Response response =
      Do(MergePatch(resource, ns, name, Json{{"status", status}}.dump(), "status"));
  EXPECT_TRUE(response.ok()) << ErrorText(response);
}

void FakeApi::Remove(const Resource& resource, const std::string& ns, const std::string& name) {
  DeleteOptions options;
  options.grace_seconds = 0;
  const Response response = Do(Delete(resource, ns, name, options));
  EXPECT_TRUE(response.ok()) << ErrorText(response);
}

std::shared_ptr<const Json> FakeApi::Find(const Resource& resource, const std::string& ns,
                                          const std::string& name) {
  const std::lock_guard lock(state_->mutex);
  return state_->store.Find(resource, ns, name);
}

std::vector<std::shared_ptr<const Json>> FakeApi::All(const Resource& resource) {
  const std::lock_guard lock(state_->mutex);
  return state_->store.All(resource);
}

}  // namespace echelon::op
