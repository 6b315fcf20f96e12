#include "absl/strings/str_cat.h"
#include "runtime/group/formation.h"

namespace echelon::group {
namespace {

std::string Text(const SendPlan& action) {
  return absl::StrCat("stream ", action.stream, ": send the plan");
}
std::string Text(const Refuse& action) {
  return absl::StrCat("stream ", action.stream, ": refuse: ", action.why.ToString());
}
std::string Text(const Drop& action) {
  return absl::StrCat("stream ", action.stream, ": drop: ", action.why);
}
std::string Text(const OpenLinks& action) {
  return absl::StrCat("stream ", action.stream, ": open epoch ", action.epoch, ", next is ",
                      action.next_address);
}
std::string Text(const Formed& action) {
  return absl::StrCat("stream ", action.stream, ": epoch ", action.epoch, " is formed");
}
std::string Text(const Close& action) {
  return absl::StrCat("stream ", action.stream, ": close epoch ", action.epoch, ": ",
                      action.why.ToString());
}
std::string Text(const Hold& action) {
  return absl::StrCat("stream ", kSelf, ": hold requests of epoch ", action.epoch);
}
std::string Text(const Release& action) {
  return absl::StrCat("stream ", action.stream, ": release");
}
std::string Text(const End& action) { return absl::StrCat("end: ", action.why.ToString()); }
std::string Text(const Log& action) { return absl::StrCat("log: ", action.text); }

}  // namespace

std::string_view Name(Phase phase) {
  switch (phase) {
    case Phase::kMissing:
      return "missing";
    case Phase::kJoined:
      return "joined";
    case Phase::kLoading:
      return "loading";
    case Phase::kLoaded:
      return "loaded";
    case Phase::kReady:
      return "ready";
  }
  return "?";
}

std::string ToString(const Action& action) {
  return std::visit([](const auto& one) { return Text(one); }, action);
}

std::string ToString(const std::vector<Action>& actions) {
  std::string text;
  for (const Action& action : actions) absl::StrAppend(&text, ToString(action), "\n");
  return text;
}

std::string Formation::ToString() const {
  constexpr absl::string_view kStates[] = {"gathering", "opening", "formed", "ended"};
  std::string text = absl::StrCat("epoch ", epoch_, " ", kStates[static_cast<int>(state_)], ":");
  for (size_t i = 0; i < ranks_.size(); ++i) {
    absl::StrAppend(&text, i == 0 ? " " : ", ", i, " ", std::string(Name(ranks_[i].phase)));
  }
  return text;
}

}  // namespace echelon::group
