#include "operator/reconcile/failure.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "operator/reconcile/words.h"

namespace echelon::op {
namespace {

constexpr absl::Duration kLostPodPatience = absl::Seconds(5);
constexpr size_t kMaxFailures = 16;

bool IsFinal(const Deployment& wanted) {
  return wanted.spec.failure_policy.on_rank_failure == OnRankFailure::kNone;
}

int MostRestarts(const Deployment& wanted) {
  return IsFinal(wanted) ? 0 : wanted.spec.failure_policy.max_restarts;
}

absl::Duration Window(const Deployment& wanted) {
  return absl::Seconds(wanted.spec.failure_policy.window_seconds);
}

int NewFailures(const PodView& pod, const RankState* before) {
  const int known = before == nullptr ? 0 : before->restarts;
  const int restarts = pod.restarts >= known ? pod.restarts - known : pod.restarts;  // a new pod
  const bool ended = pod.phase == "Failed" && !pod.taint_evicted &&
                     (before == nullptr || before->phase != "Failed");
  return restarts + (ended ? 1 : 0);
}

bool IsKnown(const std::vector<Failure>& failures, const Failure& failure) {
  return std::any_of(failures.begin(), failures.end(), [&](const Failure& known) {
    return known.pod == failure.pod && known.at >= failure.at;
  });
}

void AddNew(const Fleet& fleet, const Present& present, std::vector<Failure>* failures) {
  for (const Group& group : fleet.groups) {
    for (int rank = 0; rank < group.ranks(); ++rank) {
      const PodView* pod = group.pods[rank];
      if (pod == nullptr || pod->deleting) continue;
      const int count = NewFailures(*pod, group.ranks_before[rank]);
      if (count == 0) continue;
      const bool told = pod->terminated_at > absl::UnixEpoch();
      const Failure failure{.at = told ? pod->terminated_at : present.second(),
                            .pod = pod->name,
                            .message = Termination(*pod),
                            .count = count};
      if (!told || !IsKnown(*failures, failure)) failures->push_back(failure);
    }
  }
  std::stable_sort(failures->begin(), failures->end(),
                   [](const Failure& a, const Failure& b) { return a.at < b.at; });
}

// The oldest joins the next one of its pod, so that none is lost from the count.
void Shorten(std::vector<Failure>* failures) {
  while (failures->size() > kMaxFailures) {
    const Failure oldest = failures->front();
    failures->erase(failures->begin());
    const auto same = std::find_if(failures->begin(), failures->end(),
                                   [&](const Failure& f) { return f.pod == oldest.pod; });
    if (same != failures->end()) same->count += oldest.count;
  }
}

// Not of an earlier group of that name, which a rollback has made anew.
bool IsOf(const Deployment& wanted, const Group& group, const Failure& failure) {
  return absl::StartsWith(failure.pod, absl::StrCat(wanted.name, "-", group.name, "-")) &&
         std::any_of(group.sets.begin(), group.sets.end(),
                     [&](const SetView* set) { return failure.at >= set->created; });
}

bool IsLost(const PodView& pod, Present* present) {
  if (!pod.deleting || !pod.taint_evicted) return false;
  // A kubelet that reports after the mark is alive: its pod may drain for its grace period.
  const bool alive = pod.reported_at > pod.taint_evicted_at;
  const absl::Time from =
      alive ? std::max(pod.deletion, pod.taint_evicted_at) : pod.taint_evicted_at;
  return present->Passed(from + kLostPodPatience);
}

}  // namespace

std::string Termination(const PodView& pod) {
  std::string text = pod.phase == "Failed" && pod.terminated_reason.empty()
                         ? "the pod failed"
                         : absl::StrCat("exit code ", pod.terminated_exit_code);
  if (!pod.terminated_reason.empty() && pod.terminated_reason != "Error") {
    absl::StrAppend(&text, " (", pod.terminated_reason, ")");
  }
  if (!pod.terminated_message.empty()) absl::StrAppend(&text, ": ", pod.terminated_message);
  return OneLine(text);
}

std::vector<Failure> CountFailures(const Deployment& wanted, const Fleet& fleet, Present* present) {
  if (wanted.spec.suspend) return {};  // resuming begins anew
  std::vector<Failure> failures = wanted.status.failures;
  AddNew(fleet, *present, &failures);
  if (!IsFinal(wanted)) {
    size_t old = 0;
    while (old + 1 < failures.size() && present->Passed(failures[old].at + Window(wanted))) ++old;
    failures.erase(failures.begin(), failures.begin() + static_cast<std::ptrdiff_t>(old));
  }
  Shorten(&failures);
  return failures;
}

bool HasFailed(const Deployment& wanted, const Group& group, const std::vector<Failure>& failures,
               Present* present) {
  if (group.ready()) return false;
  int count = 0;
  for (const Failure& failure : failures) {
    if (!IsOf(wanted, group, failure)) continue;
    if (IsFinal(wanted) || !present->Passed(failure.at + Window(wanted))) count += failure.count;
  }
  return count > MostRestarts(wanted);
}

const Failure* LastFailure(const Deployment& wanted, const Group& group,
                           const std::vector<Failure>& failures) {
  const auto last = std::find_if(failures.rbegin(), failures.rend(), [&](const Failure& failure) {
    return IsOf(wanted, group, failure);
  });
  return last == failures.rend() ? nullptr : &*last;
}

void RestartGroup(const Group& group, std::vector<Action>* actions) {
  const auto fails = [&](int rank) {
    const RankState* before = group.ranks_before[rank];
    return before != nullptr && NewFailures(*group.pods[rank], before) > 0;
  };
  const PodView* culprit = nullptr;
  std::vector<const PodView*> others;
  for (int rank = 0; rank < group.ranks(); ++rank) {
    const PodView* pod = group.pods[rank];
    if (pod == nullptr || pod->deleting) continue;
    if (fails(rank)) {
      culprit = pod;
    } else {
      others.push_back(pod);
    }
  }
  if (culprit == nullptr) return;
  for (const PodView* pod : others) {
    actions->push_back({.verb = Verb::kDelete,
                        .kind = "Pod",
                        .name = pod->name,
                        .uid = pod->uid,
                        .why = absl::StrCat("RestartGroup: ", culprit->name, " failed")});
  }
}

void DeleteLostPods(const Deployment& wanted, const Observed& observed, Present* present,
                    std::vector<Action>* actions) {
  for (const PodView& pod : observed.pods) {
    if (!absl::StartsWith(pod.name, wanted.name + "-") || !IsLost(pod, present)) continue;
    actions->push_back({.verb = Verb::kForceDeletePod,
                        .kind = "Pod",
                        .name = pod.name,
                        .uid = pod.uid,
                        .why = absl::StrCat("node ", pod.node, " is lost")});
  }
}

}  // namespace echelon::op
