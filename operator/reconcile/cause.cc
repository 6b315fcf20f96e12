#include "operator/reconcile/cause.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "operator/reconcile/failure.h"
#include "operator/reconcile/reasons.h"
#include "operator/reconcile/words.h"

namespace echelon::op {
namespace {

constexpr int kRestartsOfALoop = 3;
// After a failover what is missing may be seen that much later than what is told of it.
constexpr absl::Duration kLateSight = absl::Seconds(30);

// The reason a container waits for, in ours; "": it is on its way.
std::string WaitingReason(absl::string_view waiting) {
  if (waiting == "CrashLoopBackOff") return reason::kCrashLoop;
  if (waiting == "ErrImagePull" || waiting == "ImagePullBackOff" || waiting == "InvalidImageName" ||
      waiting == "ErrImageNeverPull" || waiting == "ImageInspectError" ||
      waiting == "RegistryUnavailable" || waiting == "SignatureValidationFailed") {
    return reason::kImagePull;
  }
  if (waiting == "CreateContainerConfigError" || waiting == "CreateContainerError" ||
      waiting == "RunContainerError" || waiting == "StartError") {
    return reason::kCreateContainer;
  }
  return "";
}

std::string CreateReason(absl::string_view message) {
  if (absl::StrContains(message, "exceeded quota")) return reason::kQuotaExceeded;
  if (absl::StrContains(message, "violates PodSecurity")) return reason::kPodSecurity;
  return reason::kFailedCreate;
}

const WarningView* Newest(const Observed& observed, absl::string_view kind, const std::string& name,
                          absl::string_view reason_prefix) {
  const WarningView* newest = nullptr;
  for (const WarningView& warning : observed.warnings) {
    if (warning.kind == kind && warning.object == name &&
        absl::StartsWith(warning.reason, reason_prefix) &&
        (newest == nullptr || warning.last_seen > newest->last_seen)) {
      newest = &warning;
    }
  }
  return newest;
}

std::optional<Cause> NotCreated(const Pass& pass, const Group& group, int rank) {
  for (const SetView* set : group.sets) {
    if (rank < set->first_rank || rank >= set->first_rank + set->replicas) continue;
    const WarningView* warning = Newest(pass.observed, "StatefulSet", set->name, "FailedCreate");
    // One of an earlier time at which ranks were missing says nothing of this one.
    const auto& since = group.next.waiting_since;
    if (warning == nullptr || (since && warning->last_seen + kLateSight < *since)) continue;
    return Cause{CreateReason(warning->message),
                 absl::StrCat("StatefulSet ", set->name, ": ", warning->message)};
  }
  return std::nullopt;
}

std::optional<Cause> OfPod(const Pass& pass, const PodView& pod) {
  if (pod.deleting) return std::nullopt;
  if (!pod.unscheduled_message.empty()) {
    return Cause{reason::kFailedScheduling, absl::StrCat(pod.name, ": ", pod.unscheduled_message)};
  }
  const std::string waiting = WaitingReason(pod.waiting_reason);
  // Between its restarts it runs for a while; that is no news.
  const bool loops = pod.restarts >= kRestartsOfALoop && !pod.ready;
  const bool of_stage = waiting == reason::kCrashLoop && !pod.waiting_beside;
  if (of_stage || (waiting.empty() && loops)) {
    return Cause{reason::kCrashLoop, absl::StrCat(pod.name, ": ", Count(pod.restarts, "restart"),
                                                  ", last ", Termination(pod))};
  }
  if (!waiting.empty()) {
    return Cause{waiting,
                 absl::StrCat(pod.name, ": ", pod.waiting_reason, ": ", pod.waiting_message)};
  }
  if (pod.scheduled && pod.phase == "Pending") {
    for (const char* about : {"FailedMount", "FailedAttachVolume"}) {
      const WarningView* warning = Newest(pass.observed, "Pod", pod.name, about);
      if (warning == nullptr || warning->last_seen < pod.created) continue;
      return Cause{reason::kVolumeFailed, absl::StrCat(pod.name, ": ", warning->message)};
    }
  }
  return std::nullopt;
}

std::optional<Cause> OfGroup(const Pass& pass, const Group& group) {
  if (group.released) {
    return Cause{
        reason::kSchedulingTimeout,
        absl::StrCat("group ", group.name, " found no room within ",
                     pass.wanted.spec.scheduling.timeout_seconds,
                     " s and gave its pods back; it tries again at ", At(*group.next.retry_at))};
  }
  // What keeps a pod from being there says more than what its neighbours wait for.
  for (int rank = 0; rank < group.ranks(); ++rank) {
    if (group.pods[rank] != nullptr) continue;
    if (std::optional<Cause> cause = NotCreated(pass, group, rank)) return cause;
  }
  for (const PodView* pod : group.pods) {
    if (pod == nullptr) continue;
    if (std::optional<Cause> cause = OfPod(pass, *pod)) return cause;
  }
  return std::nullopt;
}

bool IsMissingRoom(const Cause& cause) {
  return cause.reason == reason::kFailedScheduling || cause.reason == reason::kQuotaExceeded ||
         cause.reason == reason::kSchedulingTimeout;
}

std::optional<Cause> MissingVolume(const Pass& pass) {
  const ModelSource& source = pass.wanted.spec.model.source;
  if (source.type != SourceType::kPvc) return std::nullopt;
  for (const ClaimView& claim : pass.observed.claims) {
    if (claim.name != source.claim_name || !claim.missing) continue;
    return Cause{reason::kVolumeMissing,
                 absl::StrCat("there is no PersistentVolumeClaim ", claim.name, " in namespace ",
                              pass.wanted.ns, "; create it")};
  }
  return std::nullopt;
}

// The API server takes an object of ours not at all: a quota, a webhook, a right that is missing.
// What is not to be written any more is no cause.
std::optional<Cause> FailedWrite(const Pass& pass) {
  for (const WarningView& warning : pass.observed.warnings) {
    const bool wanted =
        std::any_of(pass.actions.begin(), pass.actions.end(), [&](const Action& action) {
          return warning.kind == kKind ||  // the object itself is read before all
                 (action.kind == warning.kind && action.name == warning.object);
        });
    if (warning.reason != kFailedWrite || !wanted) continue;
    return Cause{CreateReason(warning.message),
                 OneLine(absl::StrCat(warning.kind, " ", warning.object, ": ", warning.message))};
  }
  return std::nullopt;
}

}  // namespace

bool IsStuck(const Group& group) {
  return std::any_of(group.pods.begin(), group.pods.end(), [](const PodView* pod) {
    return pod != nullptr && !pod->deleting &&
           (!pod->unscheduled_message.empty() || !WaitingReason(pod->waiting_reason).empty());
  });
}

std::optional<Cause> FindCause(const Pass& pass) {
  if (std::optional<Cause> cause = MissingVolume(pass)) return cause;
  if (std::optional<Cause> cause = FailedWrite(pass)) return cause;
  for (const Group& group : pass.fleet.groups) {
    if (!group.wanted_revision || group.failed || group.ready()) continue;
    std::optional<Cause> cause = OfGroup(pass, group);
    if (!cause) continue;
    if (IsMissingRoom(*cause) && pass.fleet.HasOld()) {
      cause->reason = reason::kRolloutBlocked;
      cause->message = absl::StrCat("no room beside the old groups: ", cause->message);
    }
    cause->message = OneLine(cause->message);
    return cause;
  }
  return std::nullopt;
}

}  // namespace echelon::op
