#include "operator/reconcile/status.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "operator/reconcile/failure.h"
#include "operator/reconcile/reasons.h"
#include "operator/reconcile/words.h"

namespace echelon::op {
namespace {

std::string PhaseTold(const HeadRank& told) {
  if (told.phase == "joined") return "Waiting";
  if (told.phase == "loading") return "Loading";
  // Ready is what Kubernetes says: the last step is to form the group.
  if (told.phase == "loaded" || told.phase == "ready") return "Loaded";
  return "Starting";
}

std::string PhaseOf(const Group& group, int rank) {
  const PodView* pod = group.pods[rank];
  if (pod == nullptr) return "Pending";
  if (group.Leaving(rank)) return "Terminating";
  if (pod->phase == "Failed" || pod->waiting_reason == "CrashLoopBackOff") return "Failed";
  if (pod->phase == "Unknown") return "Unknown";
  if (pod->ready) return "Ready";
  if (!pod->scheduled) return "Pending";
  if (pod->phase != "Running") return "Starting";
  if (group.silent()) return "Unknown";
  const HeadRank* told = group.Told(rank);
  return told == nullptr ? "Starting" : PhaseTold(*told);
}

RankState MakeRank(const Pass& pass, const Group& group, int rank) {
  RankState state{.group = group.name, .rank = rank, .phase = PhaseOf(group, rank)};
  const PodView* pod = group.pods[rank];
  if (pod == nullptr) {
    const Generation& generation = *group.generation;
    state.pod = PodName(pass.wanted, generation.revision, group.index, rank);
    return state;
  }
  state.pod = pod->name;
  state.node = pod->node;
  state.restarts = pod->restarts;
  const RankState* before = group.ranks_before[rank];
  if (const HeadRank* told = group.Told(rank)) {
    state.loaded_bytes = told->loaded_bytes;
    state.total_bytes = told->total_bytes;
    state.last_error = OneLine(told->last_error);
  } else if (before != nullptr && group.answer == nullptr && pod->ready) {
    // This operator has not asked yet; the one before it had.
    state.loaded_bytes = before->loaded_bytes;
    state.total_bytes = before->total_bytes;
    state.last_error = before->last_error;
  }
  const bool ended = pod->restarts > 0 || pod->phase == "Failed";
  if (state.last_error.empty() && ended) state.last_error = Termination(*pod);
  return state;
}

GroupState MakeGroup(const Group& group) {
  GroupState state = group.next;
  state.name = group.name;
  state.revision = group.generation->revision.hash;
  state.ready = absl::StrCat(group.ready_ranks(), "/", group.ranks());
  // A head that has just started says 0 until its group forms.
  if (group.answer != nullptr) state.epoch = std::max(state.epoch, group.answer->epoch);
  return state;
}

// Whom requests go to.
std::string CurrentRevision(const Pass& pass, const Tally& tally) {
  const std::string& wanted = pass.generations.wanted_hash;
  if (tally.complete && tally.replicas > 0) return wanted;
  const std::string& before = pass.wanted.status.current_revision;
  const auto& groups = pass.fleet.groups;
  const auto has = [&](const std::string& hash, bool ready) {
    return std::any_of(groups.begin(), groups.end(), [&](const Group& group) {
      return group.generation->revision.hash == hash && (group.ready() || !ready);
    });
  };
  if (has(before, false)) return before;
  for (const Group& group : groups) {
    if (group.ready()) return group.generation->revision.hash;
  }
  return groups.empty() ? before : "";
}

std::string Endpoint(const Deployment& wanted) {
  for (const ServicePort& port : wanted.spec.service.ports) {
    if (port.name == "grpc") {
      return absl::StrCat(wanted.name, ".", wanted.ns, ".svc:", port.port);
    }
  }
  return absl::StrCat(wanted.name, ".", wanted.ns, ".svc");
}

// The one word that says most: what went wrong, else what is under way, else that all is well.
std::string ReasonColumn(const Status& status) {
  const Condition* progressing = Find(status, "Progressing");
  const Condition* failed = Find(status, "Failed");
  const Condition* available = Find(status, "Available");
  if (progressing->status == Truth::kFalse) return progressing->reason;
  if (failed->status == Truth::kTrue) return failed->reason;
  if (progressing->reason != reason::kComplete) return progressing->reason;
  return available->reason;
}

}  // namespace

const Condition* Find(const Status& status, absl::string_view type) {
  const auto found = std::find_if(status.conditions.begin(), status.conditions.end(),
                                  [&](const Condition& c) { return c.type == type; });
  return found == status.conditions.end() ? nullptr : &*found;
}

Tally MakeTally(const Pass& pass) {
  Tally tally;
  const Spec& spec = pass.wanted.spec;
  tally.replicas = spec.suspend ? 0 : std::max(0, spec.replicas);
  tally.best = pass.fleet.Best(tally.replicas);
  for (const Group* group : tally.best) {
    tally.ready_ranks += group->ready_ranks();
    tally.ranks += group->ranks();
  }
  const int missing = tally.replicas - static_cast<int>(tally.best.size());
  tally.ranks += missing * std::max(1, spec.parallelism.stages);
  tally.complete = static_cast<int>(pass.fleet.groups.size()) == tally.replicas;
  for (const Group& group : pass.fleet.groups) {
    if (group.ready()) ++tally.ready_groups;
    if (!group.wanted_revision || group.ready_ranks() < group.ranks()) tally.complete = false;
  }
  return tally;
}

Status MakeStatus(const Pass& pass) {
  const Deployment& wanted = pass.wanted;
  const Tally tally = MakeTally(pass);
  Status status;
  status.observed_generation = wanted.generation;
  status.replicas = static_cast<int>(pass.fleet.groups.size());
  status.ready_replicas = tally.ready_groups;
  status.selector =
      absl::StrCat("echelon.dev/deployment=", wanted.name, ",apps.kubernetes.io/pod-index=0");
  status.current_revision = CurrentRevision(pass, tally);
  status.update_revision = pass.generations.wanted_hash;
  status.endpoint = Endpoint(wanted);
  status.ready = absl::StrCat(tally.ready_ranks, "/", tally.ranks);
  for (const Group& group : pass.fleet.groups) {
    status.groups.push_back(MakeGroup(group));
    for (int rank = 0; rank < group.ranks(); ++rank) {
      status.ranks.push_back(MakeRank(pass, group, rank));
    }
  }
  status.failures = pass.failures;
  status.progress_at = ProgressAt(pass, tally, status);
  status.conditions = MakeConditions(pass, tally, status);
  status.reason = ReasonColumn(status);
  return status;
}

bool OnlyProgress(const Status& before, const Status& after) {
  const auto without_bytes = [](Status status) {
    for (RankState& rank : status.ranks) rank.loaded_bytes = rank.total_bytes = 0;
    if (status.progress_at) status.progress_at = absl::UnixEpoch();
    return status;
  };
  return before != after && without_bytes(before) == without_bytes(after);
}

}  // namespace echelon::op
