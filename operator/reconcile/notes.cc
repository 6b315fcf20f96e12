#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "operator/reconcile/reasons.h"
#include "operator/reconcile/status.h"

namespace echelon::op {
namespace {

constexpr std::array<const char*, 7> kQuiet = {
    reason::kComplete, reason::kExporting, reason::kGroupForming, reason::kRollingOut,
    reason::kScaling,  reason::kSuspended, reason::kScaledToZero};

bool IsQuiet(absl::string_view reason) {
  return std::find(kQuiet.begin(), kQuiet.end(), reason) != kQuiet.end();
}

void NoteAvailability(const Condition* before, const Condition& after, std::vector<Note>* notes) {
  const bool was = before != nullptr && before->status == Truth::kTrue;
  const bool is = after.status == Truth::kTrue;
  if (is && !was) notes->push_back({false, "Available", after.message});
  if (was && !is) notes->push_back({!IsQuiet(after.reason), "Unavailable", after.message});
}

void NoteProgress(const Condition* before, const Condition& after, std::vector<Note>* notes) {
  if (before != nullptr && before->reason == after.reason) return;
  const bool is_news = !IsQuiet(after.reason) || after.reason == reason::kComplete ||
                       after.reason == reason::kExporting || after.reason == reason::kSuspended;
  if (is_news) notes->push_back({!IsQuiet(after.reason), after.reason, after.message});
}

// Each failure once: what is newer than the newest that status knew of the pod.
void NoteFailures(const Status& before, const Status& after, std::vector<Note>* notes) {
  for (const Failure& failure : after.failures) {
    const bool known = std::any_of(
        before.failures.begin(), before.failures.end(),
        [&](const Failure& old) { return old.pod == failure.pod && old.at >= failure.at; });
    if (known) continue;
    notes->push_back({true, reason::kRankFailed, absl::StrCat(failure.pod, ": ", failure.message)});
  }
}

}  // namespace

std::vector<Note> Transitions(const Deployment& wanted, const Status& after) {
  const Status& before = wanted.status;
  std::vector<Note> notes;
  if (!before.update_revision.empty() && before.update_revision != after.update_revision) {
    notes.push_back(
        {false, "RolloutStarted",
         absl::StrCat("from revision ", before.update_revision, " to ", after.update_revision)});
  }
  NoteFailures(before, after, &notes);
  NoteAvailability(Find(before, "Available"), *Find(after, "Available"), &notes);
  NoteProgress(Find(before, "Progressing"), *Find(after, "Progressing"), &notes);
  const Condition* formed = Find(before, "GroupFormed");
  const Condition* formed_now = Find(after, "GroupFormed");
  if (formed_now->status == Truth::kUnknown &&
      (formed == nullptr || formed->status != Truth::kUnknown)) {
    notes.push_back({true, formed_now->reason, formed_now->message});
  }
  return notes;
}

}  // namespace echelon::op
