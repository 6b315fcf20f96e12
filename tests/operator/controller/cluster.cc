#include "tests/operator/controller/cluster.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "operator/controller/crd_check.h"
#include "operator/kube/resource.h"

namespace echelon::op {
namespace {

constexpr char kNs[] = "default";

class Heads final : public HeadClient {
 public:
  Heads(Process* process, std::function<absl::StatusOr<std::string>(const std::string&)> answer)
      : process_(process), answer_(std::move(answer)) {}
  void Get(const std::string& address, Done done) override {
    process_->After(absl::Milliseconds(2), [this, address, done] { done(answer_(address)); });
  }

 private:
  Process* const process_;
  const std::function<absl::StatusOr<std::string>(const std::string&)> answer_;
};

Json Label(const Json& object, const char* label) {
  return object["metadata"].value("labels", Json::object()).value(label, "");
}

bool IsReady(const Json& pod) {
  for (const Json& condition :
       pod.value("status", Json::object()).value("conditions", Json::array())) {
    if (condition["type"] == "Ready") return condition["status"] == "True";
  }
  return false;
}

std::string UidOf(const Json& object) { return object["metadata"]["uid"]; }

bool IsOwnedBy(const Json& object, const std::string& uid) {
  const Json owners = object["metadata"].value("ownerReferences", Json::array());
  return std::any_of(owners.begin(), owners.end(),
                     [&](const Json& owner) { return owner["uid"] == uid; });
}

}  // namespace

// ---- Process ------------------------------------------------------------------------------------

void Process::State::Run(std::function<void()> task) {
  if (dead) return;
  if (paused) {
    held.push_back(std::move(task));
  } else {
    task();
  }
}

void Process::After(absl::Duration delay, std::function<void()> task) {
  timer_->After(delay, [state = state_, task = std::move(task)] { state->Run(task); });
}

void Process::Call(Request request, Done done) {
  api_->Call(std::move(request), [state = state_, done = std::move(done)](auto response) {
    state->Run([done, response] { done(response); });
  });
}

std::unique_ptr<WatchStream> Process::Watch(std::string path, OnLine on_line, OnEnd on_end) {
  return api_->Watch(
      std::move(path),
      [state = state_, on_line = std::move(on_line)](std::string_view line) {
        state->Run([on_line, line = std::string(line)] { on_line(line); });
      },
      [state = state_, on_end = std::move(on_end)](absl::Status why) {
        state->Run([on_end, why] { on_end(why); });
      });
}

void Process::Resume() {
  state_->paused = false;
  for (auto held = std::exchange(state_->held, {}); !held.empty(); held.pop_front()) {
    held.front()();
  }
}

void Process::Kill() {
  state_->dead = true;
  state_->held.clear();
}

// ---- Cluster ------------------------------------------------------------------------------------

Cluster::Cluster(uint64_t with_seed)
    : api(&sim, FakeApi::Options{.seed = with_seed}), seed(with_seed) {
  api.OnChange([this](const Change& change) {
    changes.push_back(change);
    if (!std::exchange(playing_, true)) sim.After(absl::Milliseconds(20), [this] { Play(); });
  });
  api.Put(kCustomResourceDefinitions,
          {{"apiVersion", "apiextensions.k8s.io/v1"},
           {"kind", "CustomResourceDefinition"},
           {"metadata",
            {{"name", kCrdName},
             {"annotations", {{kCrdVersionAnnotation, std::to_string(kCrdVersion)}}}}}});
  api.Put(kPersistentVolumeClaims, {{"apiVersion", "v1"},
                                    {"kind", "PersistentVolumeClaim"},
                                    {"metadata", {{"name", "models"}, {"namespace", kNs}}},
                                    {"spec", {{"accessModes", {"ReadOnlyMany"}}}},
                                    {"status", {{"phase", "Bound"}}}});
}

Cluster::~Cluster() {
  for (auto& replica : replicas) Kill(*replica);
}

Cluster::Replica& Cluster::AddReplica() {
  replicas.push_back(std::make_unique<Replica>());
  Replica& replica = *replicas.back();
  const auto index = replicas.size();
  replica.process = std::make_unique<Process>(&sim, &api);
  replica.heads = std::make_unique<Heads>(
      replica.process.get(), [this](const std::string& address) -> absl::StatusOr<std::string> {
        if (!heads_answer) return absl::DeadlineExceededError("no answer in time while connecting");
        return Answer(address);
      });
  replica.metrics = std::make_unique<Metrics>("test");
  Controller* controller = nullptr;
  replica.lease = std::make_unique<Lease>(
      replica.process.get(), replica.process.get(),
      Lease::Options{.ns = kNs,
                     .name = "operator",
                     .identity = absl::StrCat("replica-", index),
                     .wall = [this] { return sim.Now(); }},
      Lease::Callbacks{.acquired = [&replica] { replica.controller->Lead(true); },
                       .lost = [&replica] { replica.controller->Lead(false); },
                       .error = [](const absl::Status&) {}});
  replica.controller = std::make_unique<Controller>(
      Controller::World{.api = replica.process.get(),
                        .loop = replica.process.get(),
                        .watches = replica.process.get(),
                        .heads = replica.heads.get(),
                        .metrics = replica.metrics.get(),
                        .write_time = [&replica] { return replica.lease->WriteTimeLeft(); },
                        .wall_clock = [this] { return sim.Now(); }},
      Controller::Options{
          .settings = {.runtime_image = "runtime:1", .exporter_image = "exporter:1"},
          .seed = seed * 10 + index});
  controller = replica.controller.get();
  controller->Start();
  replica.lease->Start();
  return replica;
}

void Cluster::Kill(Replica& replica) {
  if (replica.process != nullptr) replica.process->Kill();
  replica.controller.reset();
  replica.lease.reset();
}

void Cluster::Put(const std::string& name, const Json& spec) {
  Json object{
      {"apiVersion", "echelon.dev/v1alpha1"},
      {"kind", "PipelineDeployment"},
      {"metadata", {{"name", name}, {"namespace", kNs}}},
      {"spec",
       {{"replicas", 1},
        {"model",
         {{"source", {{"type", "PVC"}, {"pvc", {{"claimName", "models"}}}}}, {"path", "net.pt2"}}},
        {"parallelism", {{"stages", 2}}}}}};
  object["spec"].merge_patch(spec);
  api.Put(kPipelineDeployments, object);
}

void Cluster::Delete(const std::string& name) { api.Remove(kPipelineDeployments, kNs, name); }

Json Cluster::Status(const std::string& name) {
  const auto object = api.Find(kPipelineDeployments, kNs, name);
  return object == nullptr ? Json::object() : object->value("status", Json::object());
}

std::string Cluster::Condition(const std::string& name, const std::string& type) {
  for (const Json& condition : Status(name).value("conditions", Json::array())) {
    if (condition["type"] == type) {
      return absl::StrCat(condition["status"].get<std::string>(), " ",
                          condition["reason"].get<std::string>());
    }
  }
  return "";
}

size_t Cluster::Writes() {
  size_t writes = 0;
  for (const LoggedRequest& request : api.log()) {
    if (request.method != "GET" && !absl::StrContains(request.path, "/leases")) ++writes;
  }
  return writes;
}

bool Cluster::IsDone(const std::string& name) {
  const auto object = api.Find(kPipelineDeployments, kNs, name);
  if (object == nullptr) return false;
  const Json status = Status(name);
  const int replicas_wanted = (*object)["spec"]["replicas"];
  return status.value("observedGeneration", 0) == (*object)["metadata"]["generation"] &&
         status.value("readyReplicas", 0) == replicas_wanted &&
         status.value("replicas", 0) == replicas_wanted &&
         status.value("currentRevision", "") == status.value("updateRevision", "-") &&
         Condition(name, "Available").starts_with("True") &&
         Condition(name, "Progressing") == "True Complete";
}

std::vector<std::string> Cluster::Names(const Resource& resource) {
  std::vector<std::string> names;
  for (const auto& object : api.All(resource)) names.push_back((*object)["metadata"]["name"]);
  return names;
}

std::map<std::string, std::string> Cluster::Versions() {
  std::map<std::string, std::string> versions;
  for (const Resource* resource :
       {&kPipelineDeployments, &kServices, &kStatefulSets, &kControllerRevisions, &kPods, &kJobs,
        &kNetworkPolicies, &kPodDisruptionBudgets}) {
    for (const auto& object : api.All(*resource)) {
      const std::string name = (*object)["metadata"]["name"];
      versions[absl::StrCat(std::string(resource->plural), "/", name)] =
          (*object)["metadata"]["resourceVersion"];
    }
  }
  return versions;
}

void Cluster::Play() {
  playing_ = false;
  for (const auto& set : api.All(kStatefulSets)) MakePods(*set);
  if (pods_start) StartPods();
}

void Cluster::MakePods(const Json& set) {
  const std::string ns = set["metadata"]["namespace"], name = set["metadata"]["name"];
  const int first = set["spec"].value("ordinals", Json::object()).value("start", 0);
  std::set<std::string> wanted;
  for (int i = 0; i < set["spec"]["replicas"].get<int>(); ++i) {
    const std::string pod_name = absl::StrCat(name, "-", first + i);
    wanted.insert(pod_name);
    if (api.Find(kPods, ns, pod_name) != nullptr) continue;
    Json labels = set["spec"]["template"]["metadata"]["labels"];
    labels["apps.kubernetes.io/pod-index"] = std::to_string(first + i);
    api.Put(kPods, {{"apiVersion", "v1"},
                    {"kind", "Pod"},
                    {"metadata",
                     {{"name", pod_name},
                      {"namespace", ns},
                      {"labels", labels},
                      {"ownerReferences",
                       {{{"apiVersion", "apps/v1"},
                         {"kind", "StatefulSet"},
                         {"name", name},
                         {"uid", UidOf(set)},
                         {"controller", true}}}}}},
                    {"spec", {{"containers", {{{"name", "stage"}}}}}}});
  }
  for (const auto& pod : api.All(kPods)) {
    const std::string pod_name = (*pod)["metadata"]["name"];
    if (IsOwnedBy(*pod, UidOf(set)) && !wanted.contains(pod_name)) api.Remove(kPods, ns, pod_name);
  }
}

void Cluster::StartPods() {
  for (const auto& pod : api.All(kPods)) {
    if ((*pod)["metadata"].contains("deletionTimestamp")) {
      api.Do(op::Delete(kPods, (*pod)["metadata"]["namespace"].get<std::string>(),
                        (*pod)["metadata"]["name"].get<std::string>(), {.grace_seconds = 0}));
      continue;
    }
    if (IsReady(*pod)) continue;
    const std::string ns = (*pod)["metadata"]["namespace"], name = (*pod)["metadata"]["name"];
    const std::string now = absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", sim.Now(), absl::UTCTimeZone());
    Json placed = *pod;
    Json patch{{"spec", {{"nodeName", "n1"}}}};
    api.Do(MergePatch(kPods, ns, name, patch.dump()));
    const auto condition = [&](const char* type) {
      return Json{{"type", type}, {"status", "True"}, {"lastTransitionTime", now}};
    };
    api.PutStatus(kPods, ns, name,
                  {{"phase", "Running"},
                   {"podIP", absl::StrCat("10.0.0.", ++addresses_)},
                   {"conditions",
                    {condition("PodScheduled"), condition("ContainersReady"), condition("Ready")}},
                   {"containerStatuses",
                    {{{"name", "stage"},
                      {"ready", true},
                      {"restartCount", 0},
                      {"state", {{"running", {{"startedAt", now}}}}}}}}});
  }
}

std::string Cluster::Answer(const std::string& address) {
  Json ranks = Json::array();
  std::string group, revision, deployment;
  const auto pods = api.All(kPods);
  for (const auto& pod : pods) {
    if (pod->value("status", Json::object()).value("podIP", "") != address) continue;
    group = Label(*pod, "echelon.dev/group");
    revision = Label(*pod, "echelon.dev/revision");
    deployment = Label(*pod, "echelon.dev/deployment");
  }
  for (const auto& pod : pods) {
    if (Label(*pod, "echelon.dev/group") != group ||
        Label(*pod, "echelon.dev/revision") != revision ||
        Label(*pod, "echelon.dev/deployment") != deployment) {
      continue;
    }
    const std::string index = Label(*pod, "apps.kubernetes.io/pod-index");
    ranks.push_back({{"rank", std::stoi(index)},
                     {"phase", "ready"},
                     {"incarnation", UidOf(*pod)},
                     {"loadedBytes", 100},
                     {"totalBytes", 100},
                     {"joins", 1},
                     {"lastError", ""}});
  }
  return Json{{"model", "net"}, {"rank", 0},           {"world", ranks.size()},
              {"epoch", 1},     {"formed", true},      {"draining", false},
              {"ranks", ranks}, {"revision", revision}}
      .dump();
}

}  // namespace echelon::op
