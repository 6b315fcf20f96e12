#include "runtime/schedule/fill_drain.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace echelon::schedule {
namespace {

struct Rows {
  int64_t first = 0, count = 0;
};

// Near-equal parts: where rows do not divide, the first ones have one more.
Rows ChunkRows(int64_t rows, int chunks, int chunk) {
  const int64_t part = rows / chunks, extra = rows % chunks;
  return {.first = chunk * part + std::min<int64_t>(chunk, extra),
          .count = part + (chunk < extra ? 1 : 0)};
}

std::string Text(const Request& event) {
  return absl::StrCat("request ", event.id, ": ", event.rows, " rows in ", event.chunks, " chunks",
                      event.chunkable ? "" : ", not chunkable");
}
std::string Text(const StepDone& event) { return absl::StrCat("step ", event.step, " done"); }
std::string Text(const StepFailed& event) {
  return absl::StrCat("step ", event.step, " failed: ", event.status.ToString());
}
std::string Text(const Cancel& event) { return absl::StrCat("cancel request ", event.id); }
std::string Text(const EpochEnded& event) {
  return absl::StrCat("epoch ended: ", event.why.ToString());
}
std::string Text(const Hold&) { return "hold"; }
std::string Text(const Resume&) { return "resume"; }
std::string Text(const Launch& action) {
  return absl::StrCat("launch step ", action.step, ": request ", action.request, " chunk ",
                      action.chunk, "/", action.chunks, " rows ", action.first_row, "..",
                      action.first_row + action.row_count);
}
std::string Text(const Finish& action) { return absl::StrCat("finish request ", action.request); }
std::string Text(const Fail& action) {
  return absl::StrCat("fail request ", action.request, ": ", action.status.ToString());
}
std::string Text(const Reject& action) {
  return absl::StrCat("reject request ", action.request, ": ", action.status.ToString());
}

}  // namespace

std::string ToString(const Event& event) {
  return std::visit([](const auto& one) { return Text(one); }, event);
}

std::string ToString(const Action& action) {
  return std::visit([](const auto& one) { return Text(one); }, action);
}

std::string ToString(const std::vector<Action>& actions) {
  std::string text;
  for (const Action& action : actions) absl::StrAppend(&text, ToString(action), "\n");
  return text;
}

std::vector<Action> FillDrain::On(const Event& event) {
  std::vector<Action> actions;
  std::visit([&](const auto& one) { Handle(one, &actions); }, event);
  return actions;
}

void FillDrain::Handle(const Request& event, std::vector<Action>* actions) {
  if (in_flight() >= options_.window || !feeding_.empty()) {
    if (waiting() >= options_.max_waiting) {
      actions->push_back(Reject{
          event.id, absl::ResourceExhaustedError(absl::StrCat("the queue is full: ", waiting(),
                                                              " requests wait; try again later"))});
      return;
    }
  }
  const int64_t most = event.chunkable ? std::max<int64_t>(event.rows, 1) : 1;
  const int chunks = static_cast<int>(std::clamp<int64_t>(event.chunks, 1, most));
  requests_[event.id] = State{.request = event, .chunks = chunks};
  feeding_.push_back(event.id);
  waiting_.push_back(event.id);
  Pump(actions);
}

void FillDrain::Handle(const StepDone& event, std::vector<Action>* actions) {
  const auto flight = in_flight_.find(event.step);
  if (flight == in_flight_.end()) return;
  const auto state = requests_.find(flight->second.request);
  if (state != requests_.end() && ++state->second.done == state->second.chunks) {
    actions->push_back(Finish{state->first});
    requests_.erase(state);
  }
  in_flight_.erase(flight);
  Pump(actions);
}

void FillDrain::Handle(const StepFailed& event, std::vector<Action>* actions) {
  const auto flight = in_flight_.find(event.step);
  if (flight == in_flight_.end()) return;
  const RequestId request = flight->second.request;
  in_flight_.erase(flight);
  Drop(request, event.status, actions);
  Pump(actions);
}

void FillDrain::Handle(const Cancel& event, std::vector<Action>* actions) {
  Drop(event.id, event.why, actions);
  Pump(actions);
}

void FillDrain::Handle(const EpochEnded& event, std::vector<Action>* actions) {
  std::erase_if(requests_, [&](const auto& entry) {
    const bool stays = held_ && entry.second.launched == 0;
    if (!stays) actions->push_back(Fail{entry.first, event.why});
    return !stays;
  });
  if (!held_) waiting_.clear();
  feeding_ = waiting_;
  in_flight_.clear();
}

void FillDrain::Handle(const Hold&, std::vector<Action>*) { held_ = true; }

void FillDrain::Handle(const Resume&, std::vector<Action>* actions) {
  held_ = false;
  Pump(actions);
}

void FillDrain::Drop(RequestId id, const absl::Status& why, std::vector<Action>* actions) {
  if (requests_.erase(id) == 0) return;
  std::erase(feeding_, id);
  std::erase(waiting_, id);
  actions->push_back(Fail{id, why});
}

void FillDrain::Pump(std::vector<Action>* actions) {
  while (!feeding_.empty() && in_flight() < options_.window) {
    State& state = requests_.at(feeding_.front());
    if (state.launched == 0) {
      if (held_) return;
      waiting_.pop_front();
    }
    const int chunk = state.launched++;
    const Rows rows = ChunkRows(state.request.rows, state.chunks, chunk);
    const StepId step = next_step_++;
    in_flight_[step] = Flight{.request = state.request.id, .chunk = chunk};
    actions->push_back(Launch{.step = step,
                              .request = state.request.id,
                              .chunk = chunk,
                              .chunks = state.chunks,
                              .first_row = rows.first,
                              .row_count = rows.count});
    if (state.launched == state.chunks) feeding_.pop_front();
  }
}

std::string FillDrain::ToString() const {
  std::string text = absl::StrCat("in flight ", in_flight(), "/", options_.window, ":");
  for (const auto& [step, flight] : in_flight_) {
    absl::StrAppend(&text, " step ", step, " (request ", flight.request, " chunk ", flight.chunk,
                    requests_.contains(flight.request) ? ")" : ", dropped)");
  }
  absl::StrAppend(&text, held_ ? "; held: " : "; waiting: ", absl::StrJoin(waiting_, " "));
  return text;
}

}  // namespace echelon::schedule
