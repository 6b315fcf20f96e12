#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/schedule/continuous.h"

namespace echelon::schedule {
namespace {

std::string Span(int32_t first, int32_t last) {
  return first == last ? absl::StrCat(first) : absl::StrCat(first, "..", last);
}

std::string Runs(const std::vector<int32_t>& blocks) {
  std::vector<std::string> runs;
  for (size_t first = 0; first < blocks.size();) {
    size_t last = first;
    while (last + 1 < blocks.size() && blocks[last + 1] == blocks[last] + 1) ++last;
    runs.push_back(Span(blocks[first], blocks[last]));
    first = last + 1;
  }
  return absl::StrJoin(runs, " ");
}

std::string Text(const Continuous::Request& event) {
  return absl::StrCat("request ", event.id, ": prompt ", event.prompt_tokens, ", at most ",
                      event.max_tokens, " tokens");
}
std::string Text(const Continuous::StepDone& event) {
  return absl::StrCat("step ", event.step, " done", event.finished.empty() ? "" : ", finished ",
                      absl::StrJoin(event.finished, " "));
}
std::string Text(const Continuous::StepFailed& event) {
  return absl::StrCat("step ", event.step, " failed: ", event.status.ToString());
}
std::string Text(const Continuous::Cancel& event) {
  return absl::StrCat("cancel request ", event.id);
}
std::string Text(const Continuous::EpochEnded& event) {
  return absl::StrCat("epoch ended: ", event.why.ToString());
}
std::string Text(const Continuous::Hold&) { return "hold"; }
std::string Text(const Continuous::Resume&) { return "resume"; }
std::string Text(const Continuous::Part& part) {
  return absl::StrCat("request ", part.request, " tokens ",
                      Span(part.start, part.start + part.count - 1), " in ", Runs(part.blocks),
                      part.draws ? " draws" : "");
}
std::string Text(const Continuous::Launch& action) {
  const auto append = [](std::string* out, const Continuous::Part& part) {
    absl::StrAppend(out, Text(part));
  };
  return absl::StrCat("launch step ", action.step, ": ", absl::StrJoin(action.parts, ", ", append));
}
std::string Text(const Continuous::Fail& action) {
  return absl::StrCat("fail request ", action.request, ": ", action.status.ToString());
}
std::string Text(const Continuous::Reject& action) {
  return absl::StrCat("reject request ", action.request, ": ", action.status.ToString());
}

}  // namespace

std::string ToString(const Continuous::Event& event) {
  return std::visit([](const auto& one) { return Text(one); }, event);
}

std::string ToString(const Continuous::Action& action) {
  return std::visit([](const auto& one) { return Text(one); }, action);
}

std::string ToString(const std::vector<Continuous::Action>& actions) {
  std::string text;
  for (const Continuous::Action& action : actions) absl::StrAppend(&text, ToString(action), "\n");
  return text;
}

std::string Continuous::ToString() const {
  std::string text = absl::StrCat("in flight ", in_flight(), "/", options_.window, ":");
  for (const auto& [step, flight] : flights_)
    absl::StrAppend(&text, " step ", step, " (", absl::StrJoin(flight.requests, " "), ")");
  absl::StrAppend(&text, "; running:");
  for (const RequestId id : running_) {
    const State& state = requests_.at(id);
    absl::StrAppend(&text, " ", id, " (", state.launched, "/", state.known, ")");
  }
  absl::StrAppend(&text, "; waiting: ", absl::StrJoin(waiting_, " "), "; ", pool_.ToText());
  return text;
}

}  // namespace echelon::schedule
