// The spec from JSON and back: fields, types, ranges, defaults. What fields mean together is
// checked in check.cc.
#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "operator/api/check.h"
#include "operator/api/deployment.h"
#include "operator/api/fields.h"

namespace echelon::op {
namespace {

using nlohmann::json;

constexpr size_t kMaxOverrides = 32;

struct SourceName {
  SourceType type;
  const char* name;   // of source.type
  const char* block;  // the field that goes with it
};
constexpr SourceName kSources[] = {{SourceType::kPvc, "PVC", "pvc"},
                                   {SourceType::kHostPath, "HostPath", "hostPath"},
                                   {SourceType::kImage, "Image", "image"},
                                   {SourceType::kHttps, "HTTPS", "https"}};

void ReadSource(Fields fields, ModelSource* source, Problems* problems) {
  std::string type = "PVC";
  fields.Require("type");
  fields.Read("type", &type, {"PVC", "HostPath", "Image", "HTTPS"});
  for (const SourceName& known : kSources) {
    if (type == known.name) source->type = known.type;
    if (fields.Has(known.block) != (type == known.name))
      problems->wrong.push_back(absl::StrCat(fields.PathOf(known.block), " goes with type ",
                                             known.name, ": give both or none"));
  }
  if (fields.Has("pvc")) {
    Fields pvc = fields.Child("pvc");
    pvc.Require("claimName");
    pvc.Read("claimName", &source->claim_name, 253);
  }
  if (fields.Has("hostPath")) {
    Fields host_path = fields.Child("hostPath");
    host_path.Require("path");
    host_path.Read("path", &source->host_path, 1024);
  }
  if (fields.Has("image")) {
    Fields image = fields.Child("image");
    image.Require("reference");
    image.Read("reference", &source->image, 1024);
    image.Read("pullPolicy", &source->pull_policy, {"Always", "IfNotPresent", "Never"});
  }
  if (fields.Has("https")) {
    Fields https = fields.Child("https");
    https.Require("url");
    https.Read("url", &source->url, 2048);
  }
}

void ReadModel(Fields fields, Model* model, Problems* problems) {
  fields.Require("source");
  fields.Require("path");
  if (fields.Has("source")) ReadSource(fields.Child("source"), &model->source, problems);
  fields.Read("path", &model->path, 512);
  fields.Read("revision", &model->revision, 256);
  fields.Read("digest", &model->digest, 71);
  if (fields.Has("secretRef")) {
    Fields secret = fields.Child("secretRef");
    secret.Require("name");
    secret.Read("name", &model->secret, 253);
  }
  fields.Read("dtype", &model->dtype, {"bf16", "f32"});
  fields.Read("maxModelLen", &model->max_model_len, 1, 100'000'000);
}

void ReadParallelism(Fields fields, Parallelism* parallelism) {
  fields.Read("stages", &parallelism->stages, 0, 512);
  fields.Read("policy", &parallelism->policy, {"balanced", "equal-size"});
  fields.Read("chunks", &parallelism->chunks, 1, 65536);
  fields.Read("ranksPerPod", &parallelism->ranks_per_pod, 1, 16);
}

Override ReadOverride(Fields fields) {
  Override override;
  fields.Require("name");
  fields.Require("firstRank");
  fields.Read("name", &override.name, 63);
  fields.Read("firstRank", &override.first_rank, 0, 511);
  fields.Read("count", &override.count, 1, 512);
  fields.ReadObject("resources", &override.resources);
  fields.Read("memory", &override.memory, 32);
  fields.Read("speed", &override.speed, 0.001, 1000);
  fields.ReadStringsByName("nodeSelector", &override.node_selector);
  fields.ReadArray("tolerations", &override.tolerations);
  fields.ReadObject("template", &override.pod_template);
  return override;
}

void ReadFailurePolicy(Fields fields, FailurePolicy* policy) {
  std::string action = "RestartRank";
  fields.Read("onRankFailure", &action, {"RestartRank", "RestartGroup", "None"});
  policy->on_rank_failure = action == "RestartGroup" ? OnRankFailure::kRestartGroup
                            : action == "None"       ? OnRankFailure::kNone
                                                     : OnRankFailure::kRestartRank;
  fields.Read("maxRestarts", &policy->max_restarts, 0, 10000);
  fields.Read("windowSeconds", &policy->window_seconds, 1, 604800);
  fields.Read("nodeLossSeconds", &policy->node_loss_seconds, 0, 86400);
  fields.Read("spares", &policy->spares, 0, 16);
}

void ReadRollout(Fields fields, Rollout* rollout) {
  fields.Read("maxSurge", &rollout->max_surge, 0, 256);
  fields.Read("maxUnavailable", &rollout->max_unavailable, 0, 256);
  fields.Read("drainSeconds", &rollout->drain_seconds, 0, 86400);
  fields.Read("progressDeadlineSeconds", &rollout->progress_deadline_seconds, 10, 604800);
}

void ReadService(Fields fields, ServiceSpec* service, Problems* problems) {
  fields.Read("type", &service->type, {"ClusterIP", "NodePort", "LoadBalancer"});
  fields.ReadStringsByName("annotations", &service->annotations);
  if (!fields.Has("ports")) return;
  service->ports.clear();
  for (const json& item : fields.Items("ports", 2)) {
    Fields port(item, absl::StrCat(fields.PathOf("ports"), "[", service->ports.size(), "]"),
                problems);
    ServicePort read;
    port.Require("name");
    port.Require("port");
    port.Read("name", &read.name, {"http", "grpc"});
    port.Read("port", &read.port, 1, 65535);
    service->ports.push_back(std::move(read));
  }
}

// The four fields that make a revision.
void ReadRevisionFields(Fields& fields, Spec* spec, Problems* problems) {
  if (fields.Has("model")) ReadModel(fields.Child("model"), &spec->model, problems);
  ReadParallelism(fields.Child("parallelism"), &spec->parallelism);
  const std::vector<json> overrides = fields.Items("overrides", kMaxOverrides);
  for (size_t i = 0; i < overrides.size(); ++i)
    spec->overrides.push_back(ReadOverride(
        Fields(overrides[i], absl::StrCat(fields.PathOf("overrides"), "[", i, "]"), problems)));
  fields.ReadObject("template", &spec->pod_template);
}

Spec ReadSpec(Fields fields, Problems* problems) {
  Spec spec;
  fields.Read("replicas", &spec.replicas, 0, 256);
  fields.Read("suspend", &spec.suspend);
  fields.Require("model");
  ReadRevisionFields(fields, &spec, problems);
  {
    Fields scheduling = fields.Child("scheduling");
    scheduling.Read("gang", &spec.scheduling.gang, {"None", "Workload"});
    scheduling.Read("timeoutSeconds", &spec.scheduling.timeout_seconds, 5, 86400);
    scheduling.Read("topologyKey", &spec.scheduling.topology_key, 317);
  }
  fields.Child("startup").Read("noProgressSeconds", &spec.no_progress_seconds, 10, 86400);
  ReadFailurePolicy(fields.Child("failurePolicy"), &spec.failure_policy);
  ReadRollout(fields.Child("rollout"), &spec.rollout);
  ReadService(fields.Child("service"), &spec.service, problems);
  fields.Child("observability").Read("podMonitor", &spec.pod_monitor);
  return spec;
}

// Optional fields are written when they are set.
void Put(json* object, const char* key, const std::string& value) {
  if (!value.empty()) (*object)[key] = value;
}
void Put(json* object, const char* key, const json& value) {
  if (!value.is_null()) (*object)[key] = value;
}

json SourceJson(const ModelSource& source) {
  const SourceName& known = kSources[static_cast<int>(source.type)];
  json block = json::object();
  Put(&block, "claimName", source.claim_name);
  Put(&block, "path", source.host_path);
  Put(&block, "reference", source.image);
  Put(&block, "pullPolicy", source.pull_policy);
  Put(&block, "url", source.url);
  return {{"type", known.name}, {known.block, std::move(block)}};
}

json ModelJson(const Model& model) {
  json object{{"source", SourceJson(model.source)}, {"path", model.path}};
  Put(&object, "revision", model.revision);
  Put(&object, "digest", model.digest);
  if (!model.secret.empty()) object["secretRef"] = {{"name", model.secret}};
  Put(&object, "dtype", model.dtype);
  if (model.max_model_len > 0) object["maxModelLen"] = model.max_model_len;
  return object;
}

json OverrideJson(const Override& override) {
  json object{
      {"name", override.name}, {"firstRank", override.first_rank}, {"count", override.count}};
  Put(&object, "resources", override.resources);
  Put(&object, "memory", override.memory);
  if (override.speed > 0) object["speed"] = override.speed;
  Put(&object, "nodeSelector", override.node_selector);
  Put(&object, "tolerations", override.tolerations);
  Put(&object, "template", override.pod_template);
  return object;
}

const char* NameOf(OnRankFailure action) {
  switch (action) {
    case OnRankFailure::kRestartRank:
      return "RestartRank";
    case OnRankFailure::kRestartGroup:
      return "RestartGroup";
    case OnRankFailure::kNone:
      return "None";
  }
  return "RestartRank";
}

json ServiceJson(const ServiceSpec& service) {
  json object{{"type", service.type}, {"ports", json::array()}};
  for (const ServicePort& port : service.ports)
    object["ports"].push_back({{"name", port.name}, {"port", port.port}});
  Put(&object, "annotations", service.annotations);
  return object;
}

std::string TextOf(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// INVALID_ARGUMENT where it is no PipelineDeployment.
absl::Status CheckKind(const json& object) {
  if (!object.is_object())
    return absl::InvalidArgumentError("this is no object of Kubernetes: it has no fields");
  const std::string kind = TextOf(object, "kind"), version = TextOf(object, "apiVersion");
  if (object.contains("kind") && kind != kKind)
    return absl::InvalidArgumentError(absl::StrCat("kind ", kind, " is no ", kKind));
  if (object.contains("apiVersion") && version != absl::StrCat(kGroup, "/", kVersion))
    return absl::InvalidArgumentError(absl::StrCat("apiVersion ", version, " is not ", kGroup, "/",
                                                   kVersion, ", which this operator knows"));
  const auto metadata = object.find("metadata");
  if (metadata == object.end() || !metadata->is_object() || TextOf(*metadata, "name").empty())
    return absl::InvalidArgumentError("the object has no metadata.name");
  return absl::OkStatus();
}

const json& SpecOf(const json& object) {
  static const json* nothing = new json(json::object());
  const auto found = object.find("spec");
  return found == object.end() ? *nothing : *found;
}

}  // namespace

bool Model::is_directory() const { return !absl::EndsWith(path, ".pt2"); }

std::string Model::name() const {
  std::string last = path.substr(path.rfind('/') + 1);  // npos + 1 is 0
  if (!is_directory()) last.resize(last.size() - 4);
  return last;
}

absl::StatusOr<Deployment> FromJson(const json& object) {
  if (absl::Status status = CheckKind(object); !status.ok()) return status;
  const json& metadata = object["metadata"];
  Deployment deployment;
  deployment.ns = TextOf(metadata, "namespace");
  deployment.name = TextOf(metadata, "name");
  deployment.uid = TextOf(metadata, "uid");
  deployment.resource_version = TextOf(metadata, "resourceVersion");
  if (const auto found = metadata.find("generation");
      found != metadata.end() && found->is_number_integer())
    deployment.generation = found->get<int64_t>();
  deployment.deleting = !TextOf(metadata, "deletionTimestamp").empty();
  if (const auto found = object.find("status"); found != object.end())
    deployment.status = StatusFromJson(*found);
  Problems problems;
  deployment.spec = ReadSpec(Fields(SpecOf(object), "spec", &problems), &problems);
  if (problems.wrong.empty()) {
    Check(&deployment);
  } else {
    deployment.invalid_reason = kInvalidSpec;
    deployment.invalid_message = problems.wrong[0];
  }
  return deployment;
}

std::vector<std::string> UnknownFields(const json& object) {
  Problems problems;
  if (object.is_object()) ReadSpec(Fields(SpecOf(object), "spec", &problems), &problems);
  return problems.unknown;
}

json ToJson(const Spec& spec) {
  json object = RevisionSpec(spec);
  object["replicas"] = spec.replicas;
  object["suspend"] = spec.suspend;
  object["scheduling"] = {{"gang", spec.scheduling.gang},
                          {"timeoutSeconds", spec.scheduling.timeout_seconds},
                          {"topologyKey", spec.scheduling.topology_key}};
  object["startup"] = {{"noProgressSeconds", spec.no_progress_seconds}};
  object["failurePolicy"] = {{"onRankFailure", NameOf(spec.failure_policy.on_rank_failure)},
                             {"maxRestarts", spec.failure_policy.max_restarts},
                             {"windowSeconds", spec.failure_policy.window_seconds},
                             {"nodeLossSeconds", spec.failure_policy.node_loss_seconds},
                             {"spares", spec.failure_policy.spares}};
  object["rollout"] = {{"maxSurge", spec.rollout.max_surge},
                       {"maxUnavailable", spec.rollout.max_unavailable},
                       {"drainSeconds", spec.rollout.drain_seconds},
                       {"progressDeadlineSeconds", spec.rollout.progress_deadline_seconds}};
  object["service"] = ServiceJson(spec.service);
  object["observability"] = {{"podMonitor", spec.pod_monitor}};
  return object;
}

json RevisionSpec(const Spec& spec) {
  json object{{"model", ModelJson(spec.model)},
              {"parallelism",
               {{"stages", spec.parallelism.stages},
                {"policy", spec.parallelism.policy},
                {"chunks", spec.parallelism.chunks},
                {"ranksPerPod", spec.parallelism.ranks_per_pod}}}};
  if (!spec.overrides.empty()) {
    std::vector<const Override*> by_rank;
    for (const Override& override : spec.overrides) by_rank.push_back(&override);
    std::sort(by_rank.begin(), by_rank.end(), [](const Override* a, const Override* b) {
      return std::pair(a->first_rank, a->name) < std::pair(b->first_rank, b->name);
    });
    for (const Override* override : by_rank) object["overrides"].push_back(OverrideJson(*override));
  }
  Put(&object, "template", spec.pod_template);
  return object;
}

Spec WithRevisionSpec(Spec spec, const json& revision_spec) {
  const Spec defaults;
  spec.model = defaults.model;
  spec.parallelism = defaults.parallelism;
  spec.overrides.clear();
  spec.pod_template = nullptr;
  Problems ignored;  // it was written by RevisionSpec
  Fields fields(revision_spec, "spec", &ignored);
  ReadRevisionFields(fields, &spec, &ignored);
  return spec;
}

absl::StatusOr<int64_t> BytesOfQuantity(const std::string& text) {
  constexpr std::pair<const char*, double> kUnits[] = {
      {"", 1},         {"K", 1e3},      {"M", 1e6},
      {"G", 1e9},      {"T", 1e12},     {"Ki", 1024},
      {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1099511627776.0}};
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  std::string unit = text.substr(digits);
  if (absl::EndsWith(unit, "B")) unit.pop_back();
  double number = 0;
  for (const auto& [name, factor] : kUnits) {
    if (unit != name || !absl::SimpleAtod(text.substr(0, digits), &number)) continue;
    const double bytes = number * factor;
    if (bytes >= 1 && bytes <= 1e15) return static_cast<int64_t>(bytes);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is no size from 1 byte to 1000 TB; write it as 24Gi or 500M"));
}

}  // namespace echelon::op
