#include "operator/reconcile/exporting.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "operator/reconcile/words.h"

namespace echelon::op {
namespace {

// Why the Job or its pod does not get on, by the newest event that warns of it.
std::string Trouble(const Observed& observed, const std::string& job) {
  const WarningView* newest = nullptr;
  for (const WarningView& warning : observed.warnings) {
    const bool about = (warning.kind == "Job" && warning.object == job) ||
                       (warning.kind == "Pod" && absl::StartsWith(warning.object, job + "-"));
    if (about && (newest == nullptr || warning.last_seen > newest->last_seen)) newest = &warning;
  }
  return newest == nullptr ? "" : absl::StrCat("; ", newest->reason, ": ", newest->message);
}

}  // namespace

Export LookAtExport(const Deployment& wanted, const Observed& observed,
                    const Generations& generations, const Fleet& fleet) {
  if (!wanted.spec.model.is_directory() || !wanted.invalid_reason.empty()) return {};
  // Where a group is, its Job was: the exported file stays when the Job is cleaned away.
  const bool served = std::any_of(fleet.groups.begin(), fleet.groups.end(),
                                  [](const Group& group) { return group.wanted_revision; });
  if (served) return {};
  const std::string name = JobName(wanted, generations.wanted().revision);
  const auto job = std::find_if(observed.jobs.begin(), observed.jobs.end(), [&](const JobView& j) {
    return j.name == name && j.owner_uid == wanted.uid;
  });
  const std::string what = absl::StrCat("Job ", name, " exports ", wanted.spec.model.path);
  if (job == observed.jobs.end() || job->deleting) {
    return {Export::State::kRunning, job == observed.jobs.end(), what};
  }
  if (job->complete) return {};
  if (job->gave_up) {
    return {Export::State::kFailed, false,
            OneLine(absl::StrCat("Job ", name, " failed: ", job->message,
                                 "; see its log, and delete it to try again"))};
  }
  const std::string tries =
      job->failed == 0 ? "" : absl::StrCat("; ", Count(job->failed, "attempt"), " failed");
  return {Export::State::kRunning, false,
          OneLine(absl::StrCat(what, tries, Trouble(observed, name)))};
}

}  // namespace echelon::op
