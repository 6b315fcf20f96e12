#include "runtime/schedule/continuous.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace echelon::schedule {
namespace {

Continuous::Options InForce(Continuous::Options options) {
  options.stages = std::max(options.stages, 1);
  options.window =
      options.window > 0 ? std::max(options.window, options.stages) : 2 * options.stages;
  // A decode and a prompt's token fit any step, so that neither waits for the other for ever.
  options.step_tokens = std::max(options.step_tokens, 2);
  options.chunk_tokens = std::clamp(options.chunk_tokens, 1, options.step_tokens - 1);
  options.max_running = std::max(options.max_running, 1);
  return options;
}

// The last token drawn is never fed back.
int32_t CachedTokens(const Continuous::Request& request) {
  return std::max(request.prompt_tokens, request.max_tokens - 1);
}

}  // namespace

Continuous::Continuous(const Options& options)
    : options_(InForce(options)), pool_(options.blocks), next_step_(options.first_step) {}

std::vector<Continuous::Action> Continuous::On(const Event& event) {
  std::vector<Action> actions;
  std::visit([&](const auto& one) { Handle(one, &actions); }, event);
  return actions;
}

void Continuous::Handle(const Request& event, std::vector<Action>* actions) {
  if (BlocksFor(CachedTokens(event)) > pool_.capacity()) {
    const int64_t held = int64_t{pool_.capacity()} * options_.block_tokens;
    actions->push_back(
        Reject{event.id, absl::InvalidArgumentError(absl::StrCat(
                             "prompt and answer may take ", CachedTokens(event),
                             " tokens of KV cache, but it holds ", held,
                             "; ask for fewer tokens, or start with a larger --kv-memory"))});
    return;
  }
  requests_[event.id] = State{.request = event, .known = event.prompt_tokens};
  waiting_.insert(event.id);
  Admit();
  const auto is_new = [&](RequestId id) { return !requests_.at(id).began; };
  const auto fresh = std::count_if(waiting_.begin(), waiting_.end(), is_new);
  if (waiting_.contains(event.id) && fresh > options_.max_waiting) {
    Drop(event.id);
    actions->push_back(Reject{
        event.id, absl::ResourceExhaustedError(absl::StrCat("the queue is full: ", fresh - 1,
                                                            " requests wait; try again later"))});
    return;
  }
  Pump(actions);
}

void Continuous::Handle(const StepDone& event, std::vector<Action>* actions) {
  const auto node = flights_.extract(event.step);
  if (node.empty()) return;
  const Flight& flight = node.mapped();
  for (size_t i = 0; i < flight.requests.size(); ++i) {
    const RequestId id = flight.requests[i];
    const auto found = requests_.find(id);
    if (!flight.draws[i] || found == requests_.end()) continue;
    if (std::find(event.finished.begin(), event.finished.end(), id) != event.finished.end()) {
      Drop(id);
      continue;
    }
    State& state = found->second;
    state.drawing = false;
    ++state.known;
    if (running_.contains(id)) ready_.push_back(id);
  }
  Pump(actions);
}

void Continuous::Handle(const StepFailed& event, std::vector<Action>* actions) {
  const auto node = flights_.extract(event.step);
  if (node.empty()) return;
  for (const RequestId id : node.mapped().requests) {
    if (!requests_.contains(id)) continue;
    Drop(id);
    actions->push_back(Fail{id, event.status});
  }
  Pump(actions);
}

void Continuous::Handle(const Cancel& event, std::vector<Action>* actions) {
  if (!requests_.contains(event.id)) return;
  Drop(event.id);
  actions->push_back(Fail{event.id, event.why});
  Pump(actions);
}

void Continuous::Handle(const EpochEnded& event, std::vector<Action>* actions) {
  std::erase_if(requests_, [&](const auto& entry) {
    const bool stays = held_ && !entry.second.began;
    if (!stays) actions->push_back(Fail{entry.first, event.why});
    return !stays;
  });
  std::erase_if(waiting_, [&](RequestId id) { return !requests_.contains(id); });
  running_.clear();
  ready_.clear();
  flights_.clear();
  pool_ = BlockPool(options_.blocks);
}

void Continuous::Handle(const Hold&, std::vector<Action>*) { held_ = true; }

void Continuous::Handle(const Resume&, std::vector<Action>* actions) {
  held_ = false;
  Pump(actions);
}

void Continuous::Pump(std::vector<Action>* actions) {
  while (in_flight() < options_.window) {
    Admit();
    Launch launch{.step = next_step_};
    Flight flight;
    for (const RequestId id : TakeDecodes()) launch.parts.push_back(Advance(id, 1));
    flight.decodes = static_cast<int>(launch.parts.size());
    if (flight.decodes > 0 || in_flight() < options_.stages || Decoding() == 0) {
      const int room = options_.step_tokens - flight.decodes;
      AddPrefill(std::min(room, options_.chunk_tokens), &launch);
    }
    if (launch.parts.empty()) return;
    for (const Part& part : launch.parts) {
      flight.requests.push_back(part.request);
      flight.draws.push_back(part.draws);
    }
    ++next_step_;
    flights_[launch.step] = std::move(flight);
    actions->push_back(std::move(launch));
  }
}

void Continuous::Admit() {
  while (!waiting_.empty() && running() < options_.max_running) {
    const RequestId id = *waiting_.begin();
    State& state = requests_.at(id);
    if (held_ && !state.began) return;  // preempted ones are older than it
    if (state.drawing) return;  // preempted; the token on its way belongs to what it starts from
    const int32_t wanted = BlocksFor(state.known);
    // Running sequences grow: without blocks to spare, the next one that does would throw this
    // one out again.
    if (wanted + running() > pool_.free()) return;
    state.blocks = *pool_.Take(wanted);
    state.launched = 0;
    state.began = true;
    waiting_.erase(id);
    running_.insert(id);
  }
}

// Ready sequences for the next step, with the blocks they need.
std::vector<Continuous::RequestId> Continuous::TakeDecodes() {
  std::vector<RequestId> group;
  if (DecodeFlights() >= options_.stages) return group;
  // Of seven sequences on three stages two groups have two and one has three.
  const int decoding = Decoding(), even = decoding / options_.stages;
  const auto is_larger = [&](const auto& flight) { return flight.second.decodes > even; };
  const auto larger = std::count_if(flights_.begin(), flights_.end(), is_larger);
  int most = std::max(1, larger < decoding % options_.stages ? even + 1 : even);
  const int reserved = Prefilling() > 0 ? options_.chunk_tokens : 0;
  most = std::min(most, options_.step_tokens - reserved);
  while (static_cast<int>(group.size()) < most && !ready_.empty()) {
    const RequestId id = ready_.front();
    ready_.pop_front();
    if (Grow(id)) group.push_back(id);
  }
  // A sequence that grew later may have taken an earlier one's blocks.
  std::erase_if(group, [&](RequestId id) { return !running_.contains(id); });
  return group;
}

void Continuous::AddPrefill(int budget, Launch* launch) {
  for (const RequestId id : running_) {
    if (budget <= 0) return;
    const State& state = requests_.at(id);
    if (state.decoding) continue;
    const int32_t count = std::min<int32_t>(budget, state.known - state.launched);
    launch->parts.push_back(Advance(id, count));
    budget -= count;
  }
}

Continuous::Part Continuous::Advance(RequestId id, int32_t count) {
  State& state = requests_.at(id);
  Part part{.request = id, .start = state.launched, .count = count};
  state.launched += count;
  part.draws = state.launched == state.known;
  state.drawing = part.draws;
  state.decoding = part.draws;
  const auto covered = state.blocks.begin() + BlocksFor(state.launched);
  part.blocks.assign(state.blocks.begin(), covered);
  return part;
}

// A block for the next token, at others' cost if need be. False: the sequence itself was preempted.
bool Continuous::Grow(RequestId id) {
  State& state = requests_.at(id);
  while (BlocksFor(state.known) > static_cast<int32_t>(state.blocks.size())) {
    if (const auto block = pool_.Take(1, state.blocks.back())) {
      state.blocks.push_back(block->front());
      continue;
    }
    const RequestId youngest = *running_.rbegin();
    Preempt(youngest);
    if (youngest == id) return false;
  }
  return true;
}

void Continuous::Preempt(RequestId id) {
  State& state = requests_.at(id);
  Release(&state);
  running_.erase(id);
  std::erase(ready_, id);
  state.launched = 0;
  state.decoding = false;
  waiting_.insert(id);
  ++preemptions_;
}

void Continuous::Release(State* state) {
  pool_.Give(state->blocks).IgnoreError();  // they are its own: taken once, given once
  state->blocks.clear();
}

void Continuous::Drop(RequestId id) {
  Release(&requests_.at(id));
  requests_.erase(id);
  waiting_.erase(id);
  running_.erase(id);
  std::erase(ready_, id);
}

int Continuous::begun() const {
  return static_cast<int>(std::count_if(requests_.begin(), requests_.end(),
                                        [](const auto& entry) { return entry.second.began; }));
}

int32_t Continuous::BlocksFor(int64_t tokens) const {
  return static_cast<int32_t>((tokens + options_.block_tokens - 1) / options_.block_tokens);
}

int Continuous::Decoding() const {
  return static_cast<int>(std::count_if(running_.begin(), running_.end(),
                                        [&](RequestId id) { return requests_.at(id).decoding; }));
}

int Continuous::DecodeFlights() const {
  const auto decodes = [](const auto& flight) { return flight.second.decodes > 0; };
  return static_cast<int>(std::count_if(flights_.begin(), flights_.end(), decodes));
}

int Continuous::Prefilling() const { return running() - Decoding(); }

}  // namespace echelon::schedule
