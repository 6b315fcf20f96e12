#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "operator/reconcile/cause.h"
#include "operator/reconcile/failure.h"
#include "operator/reconcile/reasons.h"
#include "operator/reconcile/rollout.h"
#include "operator/reconcile/status.h"
#include "operator/reconcile/words.h"

namespace echelon::op {
namespace {

constexpr char kStartsAnew[] =
    "change model, parallelism, overrides or template, which makes a new revision";

struct Finding {
  Truth status = Truth::kUnknown;
  std::string reason, message;
};

// Nothing is wanted; nullopt: something is.
std::optional<Finding> Idle(const Pass& pass, const Tally& tally) {
  if (pass.wanted.spec.suspend) {
    return Finding{Truth::kFalse, reason::kSuspended, "spec.suspend is true: there are no pods"};
  }
  if (tally.replicas == 0) {
    return Finding{Truth::kFalse, reason::kScaledToZero, "spec.replicas is 0"};
  }
  return std::nullopt;
}

std::string GroupsReady(const Tally& tally) {
  return absl::StrCat(tally.ready_groups, " of ", Count(tally.replicas, "group"),
                      tally.replicas == 1 ? " has" : " have", " a ready head");
}

Finding Available(const Pass& pass, const Tally& tally) {
  if (tally.ready_groups >= FewestReady(pass.wanted.spec)) {
    return {Truth::kTrue, reason::kAvailable, GroupsReady(tally)};
  }
  if (std::optional<Finding> idle = Idle(pass, tally)) return *idle;
  return {Truth::kFalse, reason::kTooFewReady, GroupsReady(tally)};
}

// Groups that have given up, each with its last failure; "": none has.
std::string GivenUp(const Pass& pass) {
  const FailurePolicy& policy = pass.wanted.spec.failure_policy;
  for (const Group& group : pass.fleet.groups) {
    if (!group.failed) continue;
    const Failure* last = LastFailure(pass.wanted, group, pass.failures);
    const std::string end = last == nullptr ? "" : absl::StrCat(last->pod, ": ", last->message);
    if (policy.on_rank_failure == OnRankFailure::kNone) {
      return OneLine(absl::StrCat("group ", group.name, " has failed, and onRankFailure is None: ",
                                  end, "; ", kStartsAnew, ", or suspend and resume it"));
    }
    return OneLine(absl::StrCat(
        "group ", group.name, " has failed more than ", Count(policy.max_restarts, "time"),
        " within ", policy.window_seconds, " s; last ", end,
        "; it is tried again when the window has passed; or ", kStartsAnew));
  }
  return "";
}

std::string GivenUpReason(const Pass& pass) {
  const bool final = pass.wanted.spec.failure_policy.on_rank_failure == OnRankFailure::kNone;
  return final ? reason::kRankFailed : reason::kTooManyRestarts;
}

// What is under way, where nothing stands in the way.
Finding UnderWay(const Pass& pass, const Tally& tally) {
  const std::string& revision = pass.generations.wanted_hash;
  int groups = 0, ready = 0;
  for (const Group& group : pass.fleet.groups) {
    if (!group.wanted_revision) continue;
    ++groups;
    if (group.ready() && group.ready_ranks() == group.ranks()) ++ready;
  }
  const std::string of_groups =
      absl::StrCat(ready, " of ", Count(tally.replicas, "group"), " of revision ", revision,
                   tally.replicas == 1 ? " is" : " are", " ready");
  if (ready < groups) return {Truth::kTrue, reason::kGroupForming, of_groups};
  const int old = static_cast<int>(pass.fleet.groups.size()) - groups;
  if (old > 0) {
    return {Truth::kTrue, reason::kRollingOut,
            absl::StrCat(of_groups, "; ", Count(old, "old group"), old == 1 ? " is" : " are",
                         " still there")};
  }
  return {Truth::kTrue, reason::kScaling, of_groups};
}

Finding Progressing(const Pass& pass, const Tally& tally, const Status& status) {
  if (pass.refusal) return {Truth::kFalse, pass.refusal->reason, pass.refusal->message};
  if (pass.wanted.spec.suspend) return *Idle(pass, tally);
  if (tally.complete) {
    return {
        Truth::kTrue, reason::kComplete,
        absl::StrCat(Count(tally.replicas, "group"), " of revision ", pass.generations.wanted_hash,
                     tally.replicas == 1 ? " is" : " are", " ready")};
  }
  if (pass.exporting.state == Export::State::kFailed) {
    return {Truth::kFalse, reason::kExportFailed, pass.exporting.message};
  }
  const std::string given_up = GivenUp(pass);
  if (!given_up.empty()) return {Truth::kFalse, GivenUpReason(pass), given_up};
  Finding finding = UnderWay(pass, tally);
  if (std::optional<Cause> cause = FindCause(pass)) {
    finding = {Truth::kTrue, cause->reason, cause->message};
  } else if (pass.exporting.state == Export::State::kRunning) {
    finding = {Truth::kTrue, reason::kExporting, pass.exporting.message};
  }
  const int deadline = pass.wanted.spec.rollout.progress_deadline_seconds;
  if (deadline > 0 && status.progress_at &&
      pass.present.Passed(*status.progress_at + absl::Seconds(deadline))) {
    return {Truth::kFalse, reason::kProgressDeadlineExceeded,
            OneLine(absl::StrCat("no step forward for ", deadline, " s; ", finding.reason, ": ",
                                 finding.message))};
  }
  return finding;
}

Finding Degraded(const Pass& pass, const Tally& tally) {
  if (std::optional<Finding> idle = Idle(pass, tally)) return *idle;
  const std::string ready = absl::StrCat(tally.ready_ranks, " of ", Count(tally.ranks, "rank"),
                                         tally.ranks == 1 ? " is" : " are", " ready");
  if (tally.ready_ranks >= tally.ranks) return {Truth::kFalse, reason::kAllReady, ready};
  return {Truth::kTrue, reason::kRanksMissing, ready};
}

const Group* Silent(const std::vector<const Group*>& groups) {
  const auto found = std::find_if(groups.begin(), groups.end(),
                                  [](const Group* group) { return group->silent(); });
  return found == groups.end() ? nullptr : *found;
}

Finding Unreachable(const Group& group) {
  return {Truth::kUnknown, reason::kHeadUnreachable,
          OneLine(absl::StrCat("head ", group.head()->name,
                               " does not answer at /status: ", group.answer->error))};
}

std::string WaitsFor(const Group& group) {
  std::vector<int> missing;
  if (group.answer != nullptr) {
    for (const HeadRank& rank : group.answer->ranks) {
      if (rank.phase == "missing") missing.push_back(rank.rank);
    }
  }
  if (missing.empty()) return absl::StrCat("group ", group.name, " is forming");
  return OneLine(absl::StrCat("group ", group.name, " waits for rank",
                              missing.size() == 1 ? " " : "s ", absl::StrJoin(missing, ", ")));
}

// Of the groups that serve best, whatever their revision.
Finding GroupFormed(const Pass& pass, const Tally& tally) {
  if (std::optional<Finding> idle = Idle(pass, tally)) return *idle;
  if (const Group* silent = Silent(tally.best)) return Unreachable(*silent);
  for (const Group* group : tally.best) {
    if (!group->ready()) return {Truth::kFalse, reason::kGroupForming, WaitsFor(*group)};
  }
  const int formed = static_cast<int>(tally.best.size());
  const std::string message = absl::StrCat(formed, " of ", Count(tally.replicas, "group"),
                                           tally.replicas == 1 ? " is" : " are", " formed");
  if (formed < tally.replicas) return {Truth::kFalse, reason::kGroupForming, message};
  return {Truth::kTrue, reason::kFormed, message};
}

// Of the wanted model: while another one is served by old groups, it is not ready.
Finding ModelReady(const Pass& pass, const Tally& tally, const Status& status) {
  if (std::optional<Finding> idle = Idle(pass, tally)) return *idle;
  if (pass.exporting.state == Export::State::kFailed) {
    return {Truth::kFalse, reason::kExportFailed, pass.exporting.message};
  }
  if (pass.exporting.state == Export::State::kRunning) {
    return {Truth::kFalse, reason::kExporting, pass.exporting.message};
  }
  std::vector<const Group*> groups;
  for (const Group& group : pass.fleet.groups) {
    if (group.wanted_revision) groups.push_back(&group);
  }
  if (const Group* silent = Silent(groups)) return Unreachable(*silent);
  const size_t ranks =
      static_cast<size_t>(tally.replicas) * std::max(1, pass.wanted.spec.parallelism.stages);
  size_t loaded = 0;
  for (const RankState& rank : status.ranks) {
    const bool has = rank.phase == "Loaded" || rank.phase == "Ready";
    const bool of_wanted = std::any_of(groups.begin(), groups.end(), [&](const Group* group) {
      return group->name == rank.group;
    });
    if (has && of_wanted) ++loaded;
  }
  const std::string message =
      absl::StrCat(std::min(loaded, ranks), " of ", Count(static_cast<int>(ranks), "rank"),
                   ranks == 1 ? " has" : " have", " loaded ", pass.wanted.spec.model.path);
  if (loaded < ranks) return {Truth::kFalse, reason::kLoading, message};
  return {Truth::kTrue, reason::kModelLoaded, message};
}

Finding Failed(const Pass& pass) {
  const std::string given_up = GivenUp(pass);
  if (!given_up.empty()) return {Truth::kTrue, GivenUpReason(pass), given_up};
  if (pass.failures.empty()) return {Truth::kFalse, reason::kWithinLimits, "no rank has failed"};
  const Failure& last = pass.failures.back();
  return {Truth::kFalse, reason::kWithinLimits,
          OneLine(absl::StrCat("last failure: ", last.pod, ": ", last.message))};
}

Condition Make(const Pass& pass, std::string type, Finding finding) {
  Condition condition{.type = std::move(type),
                      .status = finding.status,
                      .reason = std::move(finding.reason),
                      .message = std::move(finding.message),
                      .observed_generation = pass.wanted.generation,
                      .last_transition = pass.present.second()};
  const Condition* before = Find(pass.wanted.status, condition.type);
  if (before != nullptr && before->status == condition.status) {
    condition.last_transition = before->last_transition;
  }
  return condition;
}

}  // namespace

std::vector<Condition> MakeConditions(const Pass& pass, const Tally& tally, const Status& status) {
  return {Make(pass, "Available", Available(pass, tally)),
          Make(pass, "Progressing", Progressing(pass, tally, status)),
          Make(pass, "Degraded", Degraded(pass, tally)),
          Make(pass, "ModelReady", ModelReady(pass, tally, status)),
          Make(pass, "GroupFormed", GroupFormed(pass, tally)),
          Make(pass, "Failed", Failed(pass))};
}

}  // namespace echelon::op
