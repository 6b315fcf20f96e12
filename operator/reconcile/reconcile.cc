#include "operator/reconcile/reconcile.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "operator/reconcile/failure.h"
#include "operator/reconcile/objects.h"
#include "operator/reconcile/pass.h"
#include "operator/reconcile/reasons.h"
#include "operator/reconcile/refusal.h"
#include "operator/reconcile/rollout.h"
#include "operator/reconcile/scheduling.h"
#include "operator/reconcile/status.h"
#include "operator/reconcile/words.h"

namespace echelon::op {
namespace {

// Heads are asked often while something is under way, to see it move.
constexpr absl::Duration kAskWhileMoving = absl::Seconds(2), kAskAtRest = absl::Seconds(10);

constexpr absl::Duration kWatchesApart = absl::Minutes(1);  // at most, one behind another

void JudgeGroups(Pass* pass) {
  const Group* waits = nullptr;
  for (Group& group : pass->fleet.groups) {
    group.failed = HasFailed(pass->wanted, group, pass->failures, &pass->present);
    const bool is_next = waits == nullptr || waits->generation != group.generation;
    Schedule(pass->wanted, is_next, &pass->present, &group);
    if (is_next && !group.failed && (group.released || !group.scheduled())) waits = &group;
  }
}

// A new pod of a StatefulSet that is not seen: its watch is late, and what it will tell of is not
// made a second time.
bool IsBehind(const Pass& pass) {
  const auto& pods = pass.fleet.leftover;
  return std::any_of(pods.begin(), pods.end(), [&](const PodView* pod) {
    return !pod->deleting && !pass.present.Passed(pod->created + kWatchesApart);
  });
}

// The steps towards what is wanted, of an object that can be served.
absl::Status Act(const Pass& pass, std::vector<Action>* actions) {
  const Deployment& wanted = pass.wanted;
  if (!wanted.spec.suspend) {
    KeepRevision(pass, actions);
    KeepStanding(pass, actions);
    if (pass.exporting.make_job) {
      absl::StatusOr<nlohmann::json> job = ExportJob(wanted, pass.generations.wanted().revision);
      if (!job.ok()) return job.status();
      std::string name = job->at("metadata").at("name").get<std::string>();
      actions->push_back({.verb = Verb::kApply,
                          .wave = kObjectsWave,
                          .kind = "Job",
                          .name = std::move(name),
                          .object = *std::move(job),
                          .why = "the model is a directory"});
    }
  }
  const bool may_make = pass.exporting.state == Export::State::kDone && !IsBehind(pass);
  const Changes changes =
      PlanRollout(wanted, pass.observed, pass.generations, pass.fleet, may_make);
  for (const Group& group : pass.fleet.groups) {
    if (std::count(changes.remove.begin(), changes.remove.end(), &group) > 0) {
      RemoveSets(pass, group, changes.try_first ? kSetsWave : kFirstWave, actions);
      continue;
    }
    const bool restart = wanted.spec.failure_policy.on_rank_failure == OnRankFailure::kRestartGroup;
    if (restart && !group.failed && !group.released) RestartGroup(group, actions);
    if (absl::Status kept = KeepSets(pass, group, actions); !kept.ok()) return kept;
  }
  for (const OwnedObject* object : Outdated(wanted, pass.observed, pass.generations)) {
    actions->push_back({.verb = Verb::kDelete,
                        .wave = kFirstWave,
                        .kind = object->kind,
                        .name = object->name,
                        .uid = object->uid,
                        .why = "its revision has no groups any more"});
  }
  const Generation& generation = pass.generations.wanted();
  if (changes.try_first) {
    const absl::Status tried = TrySets(pass, generation, changes.index, actions);
    if (!tried.ok()) return tried;
  }
  if (!changes.make) return absl::OkStatus();
  return MakeSets(pass, generation, changes.index, generation.runs, actions);
}

void AskHeads(const Pass& pass, Plan* plan) {
  bool moving = false;
  for (const Group& group : pass.fleet.groups) {
    moving = moving || !group.ready();
    if (group.asked() && !group.head()->ip.empty()) plan->ask.push_back(group.head()->name);
  }
  if (!plan->ask.empty()) plan->ask_every = moving ? kAskWhileMoving : kAskAtRest;
}

}  // namespace

Plan Reconcile(const Deployment& wanted, const Observed& observed, const Settings& settings,
               absl::Time now) {
  Plan plan;
  plan.status = wanted.status;
  if (wanted.deleting) return plan;  // what it owns is collected as garbage

  Present present(now);
  Pass pass{.wanted = wanted, .observed = observed, .present = present};
  pass.generations = FindGenerations(wanted, observed, settings);
  pass.fleet = SeeFleet(wanted, observed, pass.generations);
  pass.exporting = LookAtExport(wanted, observed, pass.generations, pass.fleet);
  pass.failures = CountFailures(wanted, pass.fleet, &present);
  JudgeGroups(&pass);
  pass.refusal = FindRefusal(pass);

  DeleteLostPods(wanted, observed, &present, &pass.actions);
  if (!pass.refusal || wanted.spec.suspend) {  // pods may go, whatever they were to be
    std::vector<Action> actions;
    if (const absl::Status acted = Act(pass, &actions); acted.ok()) {
      std::move(actions.begin(), actions.end(), std::back_inserter(pass.actions));
    } else {
      pass.refusal = Cause{reason::kInvalidTemplate, OneLine(acted.message())};
    }
  }
  std::stable_sort(pass.actions.begin(), pass.actions.end(),
                   [](const Action& a, const Action& b) { return a.wave < b.wave; });
  plan.status = MakeStatus(pass);
  plan.notes = Transitions(wanted, plan.status);
  AskHeads(pass, &plan);
  plan.requeue = present.next();
  plan.actions = std::move(pass.actions);
  return plan;
}

}  // namespace echelon::op
