#include "tests/operator/reconcile/world.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "operator/api/yaml.h"

namespace echelon::op::testing {
namespace {

using nlohmann::json;

constexpr absl::Duration kGrace = absl::Seconds(45);

json FromYaml(const std::string& text) {
  absl::StatusOr<std::vector<json>> documents = ParseYaml(text);
  if (documents.ok() && documents->size() == 1) return documents->front();
  ADD_FAILURE() << text << ": " << documents.status();
  return json::object();
}

json ObjectJson(const json& spec) {
  json object{
      {"apiVersion", "echelon.dev/v1alpha1"},
      {"kind", "PipelineDeployment"},
      {"metadata", {{"name", "net"}, {"namespace", "ns"}, {"uid", "net-uid"}}},
      {"spec",
       {{"model",
         {{"source", {{"type", "PVC"}, {"pvc", {{"claimName", "models"}}}}}, {"path", "net.pt2"}}},
        {"parallelism", {{"stages", 2}}}}}};
  object["metadata"]["generation"] = 1;
  if (spec.is_object()) object["spec"].merge_patch(spec);
  return object;
}

std::string Label(const json& object, const char* name) {
  return object["metadata"]["labels"].value(name, "");
}

bool SameGroup(const PodView& a, const PodView& b) {
  return a.revision == b.revision && a.group == b.group;
}

template <typename View>
View* ByName(std::vector<View>* views, std::string_view name) {
  for (View& view : *views) {
    if (view.name == name) return &view;
  }
  return nullptr;
}

template <typename View>
bool EraseByUid(std::vector<View>* views, std::string_view uid) {
  const size_t before = views->size();
  views->erase(std::remove_if(views->begin(), views->end(),
                              [&](const View& view) { return view.uid == uid; }),
               views->end());
  return views->size() != before;
}

Deployment Object(const json& spec) {
  absl::StatusOr<Deployment> object = FromJson(ObjectJson(spec));
  if (!object.ok()) ADD_FAILURE() << object.status();
  return object.ok() ? *object : Deployment{};
}

}  // namespace

World::World(const std::string& spec) : object(Object(FromYaml(spec))) {}

void World::Change(const std::string& spec) {
  json changed = ObjectJson({});
  changed["spec"] = ToJson(object.spec);
  changed["spec"].merge_patch(FromYaml(spec));
  absl::StatusOr<Deployment> next = FromJson(changed);
  ASSERT_TRUE(next.ok()) << next.status();
  next->generation = object.generation + 1;
  next->status = object.status;
  object = *std::move(next);
}

void World::Terminate(PodView* pod) {
  if (pod->deleting) return;
  pod->deleting = true;
  pod->grace = kGrace;
  pod->deletion = now + kGrace;
  UnformIfBroken();
}

void World::DeleteSet(std::string_view name) {
  const SetView* set = FindSet(name);
  ASSERT_NE(set, nullptr) << name;
  const std::string uid = set->uid;
  EraseByUid(&observed.sets, uid);
  for (PodView& pod : observed.pods) {
    if (pod.set_uid == uid) Terminate(&pod);
  }
}

void World::DeletePod(std::string_view name) {
  PodView* pod = FindPod(name);
  ASSERT_NE(pod, nullptr) << name;
  Terminate(pod);
}

Plan World::Look() const { return Reconcile(object, observed, settings, now); }

Plan World::Pass() {
  Plan plan = Look();
  if (!plan.status.update_revision.empty()) {
    letters_.try_emplace(plan.status.update_revision, static_cast<char>('A' + letters_.size()));
  }
  CheckRemovals(plan);
  for (const Action& action : plan.actions) Execute(action);
  object.status = StatusFromJson(ToJson(plan.status));
  return plan;
}

int World::Settle() {
  int passes = 0;
  while (true) {
    const Plan plan = Pass();
    if (plan.actions.empty()) break;
    if (++passes > 20) {
      ADD_FAILURE() << "comes to no end:\n" << Named(Print(plan));
      break;
    }
  }
  EXPECT_EQ(Look().status, object.status) << "status changes although nothing else did";
  return passes;
}

bool World::Step() {
  Settle();
  return FinishExport() || MakePod() || PlacePod() || StartPod() || FormGroup() || FinishPod();
}

void World::Rest() {
  for (int steps = 0; steps < 10000; ++steps) {
    if (!Step()) return;
  }
  ADD_FAILURE() << "comes to no rest: " << Groups();
}

std::string World::Story() {
  std::string story, last = "-";
  for (int steps = 0; steps < 10000; ++steps) {
    const bool more = Step();
    const std::string groups = Groups();
    if (groups != last) absl::StrAppend(&story, groups, "\n");
    last = groups;
    if (!more) return story;
  }
  ADD_FAILURE() << "comes to no rest: " << Groups();
  return story;
}

// ---- Executing a plan ---------------------------------------------------------------------------

void World::Execute(const Action& action) {
  switch (action.verb) {
    case Verb::kTry:  // this server takes everything
      return;
    case Verb::kApply:
      Apply(action.object);
      return;
    case Verb::kScale: {
      SetView* set = ByName(&observed.sets, action.name);
      ASSERT_TRUE(set != nullptr && set->uid == action.uid) << action.name;
      EXPECT_NE(set->replicas, action.replicas) << action.name;
      set->replicas = action.replicas;
      return;
    }
    case Verb::kDelete:
      if (action.kind == "StatefulSet") {
        DeleteSet(action.name);
      } else if (action.kind == "Pod") {
        DeletePod(action.name);
      } else {
        EXPECT_TRUE(EraseByUid(&observed.revisions, action.uid) ||
                    EraseByUid(&observed.jobs, action.uid))
            << action.name;
      }
      return;
    case Verb::kForceDeletePod: {
      const PodView* pod = FindPod(action.name);
      ASSERT_TRUE(pod != nullptr && pod->uid == action.uid) << action.name;
      EXPECT_TRUE(pod->taint_evicted && pod->deleting) << action.name;
      EraseByUid(&observed.pods, action.uid);
      return;
    }
  }
}

void World::Apply(const json& made) {
  OwnedObject owned{.kind = made["kind"].get<std::string>(),
                    .name = made["metadata"]["name"].get<std::string>(),
                    .uid = NewUid(),
                    .owner_uid = made["metadata"]["ownerReferences"][0]["uid"].get<std::string>()};
  if (owned.kind == "ControllerRevision") {
    EXPECT_EQ(ByName(&observed.revisions, owned.name), nullptr) << owned.name << " made twice";
    RevisionView view;
    static_cast<OwnedObject&>(view) = owned;
    view.number = made["revision"].get<int64_t>();
    view.data = made["data"];
    observed.revisions.push_back(view);
  } else if (owned.kind == "Job") {
    EXPECT_EQ(ByName(&observed.jobs, owned.name), nullptr) << owned.name << " made twice";
    JobView view;
    static_cast<OwnedObject&>(view) = owned;
    observed.jobs.push_back(view);
  } else if (owned.kind == "StatefulSet") {
    SetView set;
    static_cast<OwnedObject&>(set) = owned;
    set.revision = Label(made, "echelon.dev/revision");
    EXPECT_TRUE(absl::SimpleAtoi(Label(made, "echelon.dev/group"), &set.group));
    set.first_rank = made["spec"]["ordinals"]["start"].get<int>();
    set.replicas = made["spec"]["replicas"].get<int>();
    set.created = now;
    CheckSetIsNew(set);
    observed.sets.push_back(set);
  } else {
    owned.applied = made["metadata"]["annotations"]["echelon.dev/applied"].get<std::string>();
    for (OwnedObject& object : observed.objects) {
      if (object.kind != owned.kind || object.name != owned.name) continue;
      EXPECT_NE(object.applied, owned.applied) << owned.name << " applied for nothing";
      object.applied = owned.applied;
      return;
    }
    observed.objects.push_back(owned);
  }
}

void World::CheckSetIsNew(const SetView& set) const {
  for (const SetView& other : observed.sets) {
    EXPECT_NE(other.name, set.name) << "made twice";
    if (other.revision != set.revision) {
      EXPECT_NE(other.name.substr(0, other.name.rfind('-')),
                set.name.substr(0, set.name.rfind('-')))
          << "two revisions in a group";
    }
  }
  for (const PodView& pod : observed.pods) {
    for (int i = 0; i < set.replicas; ++i) {
      EXPECT_NE(pod.name, absl::StrCat(set.name, "-", set.first_rank + i))
          << "made while a pod of an earlier set is there";
    }
  }
  std::set<std::pair<std::string, int>> groups{{set.revision, set.group}};
  for (const SetView& other : observed.sets) groups.emplace(other.revision, other.group);
  const bool new_group =
      std::none_of(observed.sets.begin(), observed.sets.end(), [&](const SetView& other) {
        return other.revision == set.revision && other.group == set.group;
      });
  if (new_group) {
    EXPECT_LE(static_cast<int>(groups.size()), object.spec.replicas + object.spec.rollout.max_surge)
        << "too many groups";
  }
}

void World::CheckRemovals(const Plan& plan) const {
  if (object.spec.suspend) return;
  World after = *this;
  bool removes = false;
  for (const Action& action : plan.actions) {
    const bool empties = action.verb == Verb::kScale && action.replicas == 0;
    if (action.kind != "StatefulSet" || (action.verb != Verb::kDelete && !empties)) continue;
    removes = true;
    after.DeleteSet(action.name);
  }
  if (!removes) return;
  const int enough = object.spec.replicas - object.spec.rollout.max_unavailable;
  EXPECT_GE(after.ReadyGroups(), std::min(ReadyGroups(), enough)) << "removes groups that serve:\n"
                                                                  << Named(Print(plan));
}

// ---- What Kubernetes does -----------------------------------------------------------------------

bool World::MakePod() {
  for (const SetView& set : observed.sets) {
    for (int i = 0; i < set.replicas; ++i) {
      const std::string name = absl::StrCat(set.name, "-", set.first_rank + i);
      if (FindPod(name) != nullptr) continue;
      observed.pods.push_back({.name = name,
                               .uid = NewUid(),
                               .set_uid = set.uid,
                               .revision = set.revision,
                               .group = set.group,
                               .rank = set.first_rank + i,
                               .phase = "Pending",
                               .created = now});
      return true;
    }
    for (PodView& pod : observed.pods) {
      const bool excess = pod.set_uid == set.uid && pod.rank >= set.first_rank + set.replicas;
      if (!excess || pod.deleting) continue;
      Terminate(&pod);
      return true;
    }
  }
  return false;
}

int World::Placed() const {
  return static_cast<int>(std::count_if(observed.pods.begin(), observed.pods.end(),
                                        [](const PodView& pod) { return pod.scheduled; }));
}

bool World::PlacePod() {
  std::vector<std::string> there;
  for (const std::string& node : nodes) {
    if (!lost_.contains(node)) there.push_back(node);
  }
  for (PodView& pod : observed.pods) {
    if (pod.scheduled || pod.deleting) continue;
    if (Placed() >= room || there.empty()) {
      const bool news = pod.unscheduled_message.empty();
      pod.unscheduled_message = "0/3 nodes are available: 3 Insufficient cpu.";
      if (news) return true;
      continue;
    }
    pod.scheduled = true;
    pod.unscheduled_message.clear();
    pod.node = there[static_cast<size_t>(pod.rank) % there.size()];
    return true;
  }
  return false;
}

bool World::StartPod() {
  for (PodView& pod : observed.pods) {
    const bool can = pod.scheduled && pod.phase == "Pending" && !pod.deleting &&
                     !lost_.contains(pod.node) && pod.waiting_reason.empty();
    if (!can) continue;
    pod.phase = "Running";
    pod.ip = "10.0.0.1";
    return true;
  }
  return false;
}

bool World::FormGroup() {
  for (const PodView& head : observed.pods) {
    if (head.rank != 0 || head.ready || head.phase != "Running" || head.deleting) continue;
    int running = 0, ranks = 0;
    for (const SetView& set : observed.sets) {
      if (set.revision == head.revision && set.group == head.group) ranks += set.replicas;
    }
    for (const PodView& pod : observed.pods) {
      if (SameGroup(pod, head) && pod.phase == "Running" && !pod.deleting &&
          pod.waiting_reason.empty() && !lost_.contains(pod.node)) {
        ++running;
      }
    }
    if (running < ranks || ranks < object.spec.parallelism.stages) continue;
    HeadView& answer = observed.heads[head.name];
    if (answer.pod_uid != head.uid) answer = {.pod_uid = head.uid};
    ++answer.epoch;
    answer.formed = true;
    for (PodView& pod : observed.pods) {
      if (SameGroup(pod, head)) pod.ready = true;
    }
    return true;
  }
  return false;
}

void World::UnformIfBroken() {
  for (const PodView& broken : observed.pods) {
    if (!broken.deleting && broken.phase == "Running" && broken.waiting_reason.empty()) continue;
    for (PodView& pod : observed.pods) {
      if (SameGroup(pod, broken)) pod.ready = false;
    }
  }
}

bool World::FinishPod() {
  for (const PodView& pod : observed.pods) {
    if (!pod.deleting || lost_.contains(pod.node)) continue;
    const std::string uid = pod.uid;
    EraseByUid(&observed.pods, uid);
    return true;
  }
  return false;
}

bool World::FinishExport() {
  for (JobView& job : observed.jobs) {
    if (job.complete || job.gave_up) continue;
    job.complete = true;
    job.succeeded = 1;
    return true;
  }
  return false;
}

void World::Crash(std::string_view name, int exit_code) {
  PodView* pod = FindPod(name);
  ASSERT_NE(pod, nullptr) << name;
  ++pod->restarts;
  pod->terminated_reason = "Error";
  pod->terminated_exit_code = exit_code;
  pod->terminated_message = "no such file: net.pt2";
  pod->terminated_at = now;
  for (PodView& other : observed.pods) {
    if (SameGroup(other, *pod)) other.ready = false;
  }
}

void World::LoseNode(std::string_view node) {
  lost_[std::string(node)] = true;
  for (PodView& pod : observed.pods) {
    if (pod.node != node) continue;
    Terminate(&pod);
    pod.taint_evicted = true;
    pod.taint_evicted_at = now;
  }
}

void World::FindNode(std::string_view node) { lost_.erase(std::string(node)); }

// ---- Looking at it ------------------------------------------------------------------------------

SetView* World::FindSet(std::string_view name) { return ByName(&observed.sets, name); }
PodView* World::FindPod(std::string_view name) { return ByName(&observed.pods, name); }

int World::ReadyGroups() const {
  std::set<std::string> sets;
  for (const SetView& set : observed.sets) sets.insert(set.uid);
  return static_cast<int>(
      std::count_if(observed.pods.begin(), observed.pods.end(), [&](const PodView& pod) {
        return pod.rank == 0 && pod.ready && !pod.deleting && sets.contains(pod.set_uid);
      }));
}

std::string World::Named(std::string text) const {
  for (const auto& [hash, letter] : letters_) {
    const std::string name(1, letter);
    text = absl::StrReplaceAll(text, {{hash, name}});
    text = absl::StrReplaceAll(text, {{hash.substr(0, 6), name}});
  }
  return text;
}

std::string World::Pod(std::string_view name) const {
  const std::vector<std::string> parts =
      absl::StrSplit(absl::string_view(name.data(), name.size()), absl::ByAnyChar("-/"));
  for (const PodView& pod : observed.pods) {
    const auto letter = letters_.find(pod.revision);
    if (letter != letters_.end() && parts[0] == std::string(1, letter->second) &&
        parts[1] == std::to_string(pod.group) && parts[2] == std::to_string(pod.rank)) {
      return pod.name;
    }
  }
  ADD_FAILURE() << "there is no pod " << name;
  return "";
}

std::string World::Actions(const Plan& plan) const {
  const std::string text = Named(Print(plan));
  return text.substr(0, text.find("Available "));
}

std::string World::Says(const Plan& plan, std::string_view condition) const {
  const std::string all = Named(Print(plan));
  for (absl::string_view line : absl::StrSplit(all, '\n')) {
    if (std::string(line).rfind(absl::StrCat(std::string(condition), " "), 0) == 0) {
      return std::string(line);
    }
  }
  return "";
}

std::string World::Column() const {
  return absl::StrCat(object.status.ready, " ", object.status.reason);
}

std::string World::Groups() const {
  std::vector<std::string> groups;
  for (const GroupState& group : Look().status.groups) {
    groups.push_back(Named(absl::StrCat(group.name, " ", group.ready)));
  }
  return absl::StrJoin(groups, ", ");
}

}  // namespace echelon::op::testing
