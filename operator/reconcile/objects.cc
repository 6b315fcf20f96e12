#include "operator/reconcile/objects.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "operator/render/render.h"

namespace echelon::op {
namespace {

Action Apply(nlohmann::json object, int wave, std::string why) {
  Action action{.verb = Verb::kApply, .wave = wave};
  action.kind = object.at("kind").get<std::string>();
  action.name = object.at("metadata").at("name").get<std::string>();
  action.object = std::move(object);
  action.why = std::move(why);
  return action;
}

const std::string& AppliedHash(const nlohmann::json& object) {
  return object.at("metadata")
      .at("annotations")
      .at("echelon.dev/applied")
      .get_ref<const std::string&>();
}

void Keep(const Pass& pass, nlohmann::json desired, std::vector<Action>* actions) {
  const auto& kind = desired.at("kind").get_ref<const std::string&>();
  const auto& name = desired.at("metadata").at("name").get_ref<const std::string&>();
  const auto& objects = pass.observed.objects;
  const auto found = std::find_if(objects.begin(), objects.end(), [&](const OwnedObject& object) {
    return object.kind == kind && object.name == name;
  });
  if (found == objects.end()) {
    actions->push_back(Apply(std::move(desired), kObjectsWave, "it is not there"));
  } else if (!found->deleting && found->applied != AppliedHash(desired)) {
    actions->push_back(Apply(std::move(desired), kObjectsWave, "its part of the spec has changed"));
  }
}

const SetView* SetOf(const Group& group, const Run& run) {
  for (const SetView* set : group.sets) {
    if (set->first_rank == run.first) return set;
  }
  return nullptr;
}

// Pods that are on their way out still have the names that the set's pods will get.
bool NamesAreFree(const Group& group, const Run& run) {
  for (int rank = run.first; rank < run.first + run.count && rank < group.ranks(); ++rank) {
    if (group.pods[rank] != nullptr) return false;
  }
  return true;
}

bool IsBeingDeleted(const Pass& pass, const std::string& set_name) {
  return std::any_of(pass.observed.sets.begin(), pass.observed.sets.end(),
                     [&](const SetView& set) { return set.name == set_name && set.deleting; });
}

}  // namespace

void KeepRevision(const Pass& pass, std::vector<Action>* actions) {
  const Generation& generation = pass.generations.wanted();
  if (generation.recorded) return;
  actions->push_back(Apply(ControllerRevision(pass.wanted, generation.revision, generation.number),
                           kFirstWave, "no earlier revision has this spec"));
}

void KeepStanding(const Pass& pass, std::vector<Action>* actions) {
  Keep(pass, HeadService(pass.wanted), actions);
  Keep(pass, RanksService(pass.wanted), actions);
  Keep(pass, DisruptionBudget(pass.wanted), actions);
  Keep(pass, NetworkPolicy(pass.wanted), actions);
}

absl::Status MakeSets(const Pass& pass, const Generation& generation, int index,
                      const std::vector<Run>& runs, std::vector<Action>* actions) {
  std::vector<Action> made;
  for (const Run& run : runs) {
    absl::StatusOr<nlohmann::json> set = StatefulSet(pass.wanted, generation.revision, index, run);
    if (!set.ok()) return set.status();
    if (actions == nullptr) continue;
    made.push_back(
        Apply(*std::move(set), kSetsWave,
              absl::StrCat("group ", generation.revision.hash6(), "-", index, " is wanted")));
  }
  if (actions != nullptr) std::move(made.begin(), made.end(), std::back_inserter(*actions));
  return absl::OkStatus();
}

absl::Status TrySets(const Pass& pass, const Generation& generation, int index,
                     std::vector<Action>* actions) {
  std::vector<Action> made;
  const absl::Status rendered = MakeSets(pass, generation, index, generation.runs, &made);
  for (Action& action : made) {
    action.verb = Verb::kTry;
    action.wave = kFirstWave;
    action.why = "an old group goes to make room for it";
  }
  std::move(made.begin(), made.end(), std::back_inserter(*actions));
  return rendered;
}

absl::Status KeepSets(const Pass& pass, const Group& group, std::vector<Action>* actions) {
  const bool empty = group.failed || group.released;
  std::vector<Run> missing;
  for (const Run& run : group.generation->runs) {
    const SetView* set = SetOf(group, run);
    if (set == nullptr) {
      const std::string name =
          SetName(pass.wanted, group.generation->revision, group.index, run.first);
      if (!empty && NamesAreFree(group, run) && !IsBeingDeleted(pass, name)) missing.push_back(run);
      continue;
    }
    const int replicas = empty ? 0 : run.count;
    if (set->replicas == replicas) continue;
    const char* why = group.failed     ? "its group has failed too often"
                      : group.released ? "its group found no room"
                                       : "all ranks of its group are wanted";
    actions->push_back({.verb = Verb::kScale,
                        .wave = kFirstWave,
                        .kind = "StatefulSet",
                        .name = set->name,
                        .uid = set->uid,
                        .replicas = replicas,
                        .why = why});
  }
  return MakeSets(pass, *group.generation, group.index, missing, actions);
}

void RemoveSets(const Pass& pass, const Group& group, int wave, std::vector<Action>* actions) {
  const char* why = pass.wanted.spec.suspend ? "the object is suspended"
                    : group.wanted_revision  ? "fewer groups are wanted"
                                             : "its revision is not wanted any more";
  for (const SetView* set : group.sets) {
    actions->push_back({.verb = Verb::kDelete,
                        .wave = wave,
                        .kind = "StatefulSet",
                        .name = set->name,
                        .uid = set->uid,
                        .why = why});
  }
}

}  // namespace echelon::op
