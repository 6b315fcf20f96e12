#include "operator/controller/reporter.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "operator/controller/seen.h"
#include "operator/kube/resource.h"

namespace echelon::op {
namespace {

using nlohmann::json;

constexpr size_t kMaxNotes = 16;
constexpr size_t kMaxNoteBytes = 1024;  // the API server takes no longer one
constexpr absl::Duration kFirstBackoff = absl::Milliseconds(250), kMaxBackoff = absl::Seconds(30);

std::string ResultOf(const absl::StatusOr<Response>& response) {
  if (response.ok()) return std::to_string(response->code);
  return absl::IsAborted(response.status()) ? "not_leader" : "unreachable";
}

std::string Shortened(std::string text) {
  if (text.size() <= kMaxNoteBytes) return text;
  size_t end = kMaxNoteBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // whole UTF-8
  text.resize(end);
  return text;
}

}  // namespace

Reporter::Reporter(Writer* writer, Timer* loop, std::function<absl::Time()> wall_clock,
                   Options options, OnRequest on_request, OnError on_error)
    : writer_(writer),
      loop_(loop),
      wall_clock_(std::move(wall_clock)),
      options_(std::move(options)),
      on_request_(std::move(on_request)),
      on_error_(std::move(on_error)),
      alarm_(loop, [this] { WriteDue(); }) {}

Reporter::StatePtr Reporter::StateOf(const Deployment& deployment) {
  StatePtr& state = states_[KeyOf(deployment.ns, deployment.name)];
  if (state == nullptr || state->uid != deployment.uid) {
    if (state != nullptr) due_.erase({state->due, KeyOf(deployment.ns, deployment.name)});
    state = std::make_shared<State>();
    state->ns = deployment.ns;
    state->name = deployment.name;
    state->uid = deployment.uid;
    state->planned = deployment.status;
  }
  return state;
}

const Status& Reporter::Current(const Deployment& deployment) {
  return StateOf(deployment)->planned;
}

void Reporter::Say(const Deployment& deployment, Status status, std::vector<Note> notes) {
  const StatePtr state = StateOf(deployment);
  if (state->planned == status) return;
  if (!state->written) state->written = std::move(state->planned);
  state->planned = std::move(status);
  for (Note& note : notes) {
    if (state->notes.size() < kMaxNotes) state->notes.push_back(std::move(note));
  }
  Flush(KeyOf(deployment.ns, deployment.name), state);
}

void Reporter::Saw(const Deployment& deployment) {
  const std::string key = KeyOf(deployment.ns, deployment.name);
  const auto at = states_.find(key);
  if (at == states_.end() || at->second->uid != deployment.uid) return;
  State& state = *at->second;
  state.differed = deployment.status != StatusFromJson(ToJson(state.planned));
  if (state.in_flight || state.errors > 0) return;  // Written looks
  if (!state.differed && state.written) {
    state.written = state.planned;
    Flush(key, at->second);
  } else if (state.differed && !state.written) {
    Correct(key, state);
  }
}

// Not at once: an own word may be on its way, and another may not stop talking.
void Reporter::Correct(const std::string& key, State& state) {
  state.written = Status{};
  SetDue(key, state, std::max(loop_->Now(), state.last_write) + options_.progress_every);
}

void Reporter::SetDue(const std::string& key, State& state, absl::Time due) {
  due_.erase({state.due, key});
  state.due = due;
  if (due == absl::InfiniteFuture()) return;
  due_.emplace(due, key);
  alarm_.Set(due);
}

void Reporter::Flush(const std::string& key, const StatePtr& state) {
  if (state->in_flight || !state->written || state->errors > 0) return;
  if (*state->written == state->planned) {  // as it was: nothing has happened
    state->written.reset();
    state->notes.clear();
    SetDue(key, *state, absl::InfiniteFuture());
    return;
  }
  const absl::Time next_progress = state->last_write + options_.progress_every;
  if (loop_->Now() < next_progress && OnlyProgress(*state->written, state->planned)) {
    SetDue(key, *state, next_progress);
    return;
  }
  Write(key, state);
}

void Reporter::Write(const std::string& key, const StatePtr& state) {
  SetDue(key, *state, absl::InfiniteFuture());
  state->in_flight = true;
  struct Sent {
    Status status;
    std::vector<Note> notes;
  };
  auto sent = std::make_shared<Sent>();
  writer_->SendLate(
      [state, sent] {
        sent->status = state->planned;
        sent->notes = std::exchange(state->notes, {});
        const json object{
            {"apiVersion", kPipelineDeployments.ApiVersion()},
            {"kind", kPipelineDeployments.kind},
            {"metadata", {{"name", state->name}, {"namespace", state->ns}, {"uid", state->uid}}},
            {"status", ToJson(sent->status)}};
        return op::Apply(kPipelineDeployments, state->ns, state->name, object.dump(),
                         {.subresource = "status"});
      },
      Lane::kWords,
      [this, key, state, sent](auto response) -> Writer::Task {
        if (response.ok() && response->ok()) response->body.clear();
        return [this, key, state, sent, response = std::move(response)] {
          if (response.ok() && response->ok()) state->written = std::move(sent->status);
          Written(key, state, std::move(sent->notes), response);
        };
      });
}

void Reporter::Written(const std::string& key, const StatePtr& state, std::vector<Note> notes,
                       const absl::StatusOr<Response>& response) {
  on_request_("status", ResultOf(response));
  state->in_flight = false;
  const auto current = states_.find(key);
  const bool is_current = current != states_.end() && current->second == state;
  if (response.ok() && response->ok()) {
    for (const Note& note : notes) Post(*state, note);
    state->last_write = loop_->Now();
    state->errors = 0;
    if (is_current) Flush(key, state);
    if (is_current && state->differed && !state->written) Correct(key, *state);
    return;
  }
  if (!is_current || absl::IsAborted(response.status())) return;
  if (response.ok() && response->code == 404) return;  // deleted; its watch will tell
  state->notes.insert(state->notes.begin(), notes.begin(), notes.end());
  const int doublings = std::min(state->errors++, 10);
  absl::Duration wait = std::min(kFirstBackoff * (1 << doublings), kMaxBackoff);
  if (response.ok()) wait = std::max(wait, response->retry_after);
  SetDue(key, *state, loop_->Now() + wait);
  on_error_(key,
            absl::StrCat("status: ", response.ok() ? ErrorText(*response)
                                                   : std::string(response.status().message())));
}

void Reporter::WriteDue() {
  while (!due_.empty() && due_.begin()->first <= loop_->Now()) {
    const std::string key = due_.begin()->second;
    const StatePtr state = states_.at(key);
    SetDue(key, *state, absl::InfiniteFuture());
    if (!state->in_flight && state->written) Write(key, state);
  }
  if (!due_.empty()) alarm_.Set(due_.begin()->first);
}

void Reporter::Post(const State& state, const Note& note) {
  const absl::Time now = wall_clock_();
  const json event{
      {"apiVersion", kEvents.ApiVersion()},
      {"kind", kEvents.kind},
      {"metadata",
       {{"name", absl::StrFormat("%s.%x", state.name, absl::ToUnixNanos(now) + events_++)},
        {"namespace", state.ns}}},
      {"eventTime", absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", now, absl::UTCTimeZone())},
      {"reportingController", "echelon.dev/operator"},
      {"reportingInstance", options_.instance.empty() ? "echelon-operator" : options_.instance},
      {"action", "Reconcile"},
      {"type", note.warning ? "Warning" : "Normal"},
      {"reason", note.reason},
      {"note", Shortened(note.message)},
      {"regarding",
       {{"apiVersion", kPipelineDeployments.ApiVersion()},
        {"kind", kPipelineDeployments.kind},
        {"namespace", state.ns},
        {"name", state.name},
        {"uid", state.uid}}}};
  writer_->Send(Create(kEvents, state.ns, event.dump()), Lane::kWords,
                [this](auto response) -> Writer::Task {
                  return [this, result = ResultOf(response)] { on_request_("event", result); };
                });
}

void Reporter::Forget(std::string_view key) {
  const auto at = states_.find(key);
  if (at == states_.end()) return;
  due_.erase({at->second->due, at->first});
  states_.erase(at);
}

void Reporter::Clear() {
  states_.clear();
  due_.clear();
}

}  // namespace echelon::op
