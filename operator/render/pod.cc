// The pod of a rank: its arguments, environment, ports, probes and volumes.
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "operator/render/parts.h"
#include "operator/render/render.h"

namespace echelon::op {
namespace {

constexpr int64_t kNoBound = 1'000'000'000'000'000;  // bytes, where other ranks have a bound

}  // namespace

std::string StageMemory(const Spec& spec) {
  std::vector<int64_t> bytes(spec.parallelism.stages, kNoBound);
  bool any = false;
  for (size_t rank = 0; rank < bytes.size(); ++rank) {
    const Override* override = OverrideOf(spec, static_cast<int>(rank));
    if (override == nullptr || override->memory.empty()) continue;
    bytes[rank] = BytesOfQuantity(override->memory).value_or(kNoBound);
    any = true;
  }
  return any ? absl::StrJoin(bytes, ",") : "";
}

std::string StageSpeed(const Spec& spec) {
  std::vector<std::string> speeds(spec.parallelism.stages, "1");
  bool any = false;
  for (size_t rank = 0; rank < speeds.size(); ++rank) {
    const Override* override = OverrideOf(spec, static_cast<int>(rank));
    if (override == nullptr || override->speed <= 0) continue;
    speeds[rank] = absl::StrFormat("%g", override->speed);
    any = true;
  }
  return any ? absl::StrJoin(speeds, ",") : "";
}

namespace {

using nlohmann::json;

json Args(const Deployment& d, const Spec& spec, const Revision& revision, int group) {
  const Model& model = spec.model;
  const std::string head =
      absl::StrCat(PodName(d, revision, group, 0), ".", d.name, "-ranks.", d.ns, ".svc");
  json args = json::array();
  const auto flag = [&](const char* name, const auto& value) {
    args.push_back(absl::StrCat("--", name, "=", value));
  };
  args.push_back(
      absl::StrCat(kModelMount, "/", model.is_directory() ? ExportedPath(model) : model.path));
  flag("name", model.name());
  flag("world", spec.parallelism.stages);
  flag("host", head);
  flag("port", kGroupPort);
  flag("bind", "0.0.0.0");
  flag("http-port", kHttpPort);
  flag("grpc-port", kGrpcPort);
  flag("metrics-port", kMetricsPort);
  flag("health-port", kHealthPort);
  flag("link-port", kLinkPort);
  flag("advertise", "$(POD_IP)");
  flag("join-timeout", 0);
  flag("policy", spec.parallelism.policy);
  flag("chunks", spec.parallelism.chunks);
  flag("no-progress-seconds", spec.no_progress_seconds);
  flag("drain-seconds", spec.rollout.drain_seconds);
  flag("report-termination", "/dev/termination-log");
  if (const std::string memory = StageMemory(spec); !memory.empty()) flag("stage-memory", memory);
  if (const std::string speed = StageSpeed(spec); !speed.empty()) flag("stage-speed", speed);
  if (model.is_directory()) flag("weights", absl::StrCat(kModelMount, "/", model.path));
  return args;
}

json FromField(const char* name, const char* field) {
  return {{"name", name}, {"valueFrom", {{"fieldRef", {{"fieldPath", field}}}}}};
}

json Environment(const Revision& revision) {
  return {FromField("RANK", "metadata.labels['apps.kubernetes.io/pod-index']"),
          FromField("POD_UID", "metadata.uid"),
          FromField("POD_IP", "status.podIP"),
          FromField("POD_NAME", "metadata.name"),
          {{"name", "ECHELON_REVISION"}, {"value", revision.hash}}};
}

json Ports() {
  json ports = json::array();
  for (const auto& [name, port] : {std::pair("http", kHttpPort),
                                   {"grpc", kGrpcPort},
                                   {"metrics", kMetricsPort},
                                   {"health", kHealthPort},
                                   {"group", kGroupPort},
                                   {"link", kLinkPort}})
    ports.push_back({{"name", name}, {"containerPort", port}, {"protocol", "TCP"}});
  return ports;
}

json Probe(const char* service, int period_seconds, int timeout_seconds, int failure_threshold) {
  return {{"grpc", {{"port", kHealthPort}, {"service", service}}},
          {"periodSeconds", period_seconds},
          {"timeoutSeconds", timeout_seconds},
          {"failureThreshold", failure_threshold}};
}

json StageContainer(const Deployment& d, const Spec& spec, const Revision& revision, int group) {
  return {{"name", kStage},
          {"image", revision.image},
          {"args", Args(d, spec, revision, group)},
          {"env", Environment(revision)},
          {"ports", Ports()},
          {"startupProbe", Probe("startup", 1, 1, 30)},
          {"livenessProbe", Probe("live", 5, 3, 6)},
          {"readinessProbe", Probe("ready", 1, 1, 1)},
          // A process that never came to write a report has its last lines shown.
          {"terminationMessagePolicy", "FallbackToLogsOnError"},
          {"securityContext", RestrictedContainer()},
          {"volumeMounts",
           {{{"name", "model"}, {"mountPath", kModelMount}, {"readOnly", true}},
            {{"name", "tmp"}, {"mountPath", "/tmp"}}}}};
}

json Tolerations(int node_loss_seconds) {
  json tolerations = json::array();
  for (const char* taint : {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})
    tolerations.push_back({{"key", taint},
                           {"operator", "Exists"},
                           {"effect", "NoExecute"},
                           {"tolerationSeconds", node_loss_seconds}});
  return tolerations;
}

}  // namespace

json ModelVolume(const ModelSource& source, bool read_only) {
  json volume{{"name", "model"}};
  switch (source.type) {
    case SourceType::kPvc:
      volume["persistentVolumeClaim"] = {{"claimName", source.claim_name}};
      if (read_only) volume["persistentVolumeClaim"]["readOnly"] = true;
      break;
    case SourceType::kHostPath:
      volume["hostPath"] = {{"path", source.host_path}, {"type", "Directory"}};
      break;
    case SourceType::kImage:
      volume["image"] = {{"reference", source.image}};
      if (!source.pull_policy.empty()) volume["image"]["pullPolicy"] = source.pull_policy;
      break;
    case SourceType::kHttps:  // refused before anything is rendered
      break;
  }
  return volume;
}

json RestrictedPod() {
  constexpr int kNobody = 65532;
  return {{"runAsNonRoot", true},
          {"runAsUser", kNobody},
          {"runAsGroup", kNobody},
          {"fsGroup", kNobody},
          {"fsGroupChangePolicy", "OnRootMismatch"},  // never walk through a volume of weights
          {"seccompProfile", {{"type", "RuntimeDefault"}}}};
}

json RestrictedContainer() {
  return {{"allowPrivilegeEscalation", false},
          {"readOnlyRootFilesystem", true},
          {"capabilities", {{"drop", {"ALL"}}}}};
}

json OurTemplate(const Deployment& d, const Spec& spec, const Revision& revision, int group,
                 const Run& run) {
  constexpr int kGraceBeyondDrain = 15;  // endpoints move, ranks are released, processes end
  json labels = CommonLabels(d);
  labels[kDeploymentLabel] = d.name;
  labels[kRevisionLabel] = revision.hash;
  labels[kGroupLabel] = absl::StrCat(group);
  labels[kFirstRankLabel] = absl::StrCat(run.first);
  const json of_group{{kDeploymentLabel, d.name},
                      {kRevisionLabel, revision.hash},
                      {kGroupLabel, absl::StrCat(group)}};
  json spread = json::array();
  spread.push_back({{"maxSkew", 1},
                    {"topologyKey", spec.scheduling.topology_key},
                    {"whenUnsatisfiable", "ScheduleAnyway"},
                    {"labelSelector", {{"matchLabels", of_group}}}});
  json pod{{"automountServiceAccountToken", false},
           {"enableServiceLinks", false},
           {"terminationGracePeriodSeconds", spec.rollout.drain_seconds + kGraceBeyondDrain},
           {"securityContext", RestrictedPod()},
           {"tolerations", Tolerations(spec.failure_policy.node_loss_seconds)},
           {"topologySpreadConstraints", std::move(spread)},
           {"containers", {StageContainer(d, spec, revision, group)}},
           {"volumes",
            {ModelVolume(spec.model.source, /*read_only=*/true),
             {{"name", "tmp"}, {"emptyDir", json::object()}}}}};
  return {{"metadata",
           {{"labels", std::move(labels)},
            {"annotations", {{"kubectl.kubernetes.io/default-container", kStage}}}}},
          {"spec", std::move(pod)}};
}

}  // namespace echelon::op
