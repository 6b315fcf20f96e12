#include <string>

#include "absl/strings/str_cat.h"
#include "operator/reconcile/reconcile.h"
#include "operator/reconcile/words.h"

namespace echelon::op {
namespace {

std::string Name(const Action& action) { return absl::StrCat(action.kind, "/", action.name); }

std::string What(const Action& action) {
  switch (action.verb) {
    case Verb::kTry:
      return absl::StrCat("try ", Name(action));
    case Verb::kApply:
      return absl::StrCat("apply ", Name(action));
    case Verb::kScale:
      return absl::StrCat("scale ", Name(action), " to ", action.replicas);
    case Verb::kDelete:
      return absl::StrCat("delete ", Name(action));
    case Verb::kForceDeletePod:
      return absl::StrCat("delete by force ", Name(action));
  }
  return "";
}

const char* Name(Truth truth) {
  switch (truth) {
    case Truth::kTrue:
      return "True";
    case Truth::kFalse:
      return "False";
    case Truth::kUnknown:
      return "Unknown";
  }
  return "";
}

}  // namespace

std::string Print(const Plan& plan) {
  std::string text;
  for (const Action& action : plan.actions) {
    absl::StrAppend(&text, What(action), ": ", action.why, "\n");
  }
  if (plan.actions.empty()) text = "nothing to do\n";
  for (const Condition& condition : plan.status.conditions) {
    absl::StrAppend(&text, condition.type, " ", Name(condition.status), " ", condition.reason, ": ",
                    condition.message, "\n");
  }
  for (const Note& note : plan.notes) {
    absl::StrAppend(&text, "event ", note.warning ? "Warning " : "Normal ", note.reason, ": ",
                    note.message, "\n");
  }
  if (plan.requeue) absl::StrAppend(&text, "look again at ", At(*plan.requeue), "\n");
  return text;
}

}  // namespace echelon::op
