// The objects of a deployment: its Services, its PodDisruptionBudget, its NetworkPolicy, the record
// of a revision.
#include "absl/strings/str_cat.h"
#include "operator/render/digest.h"
#include "operator/render/parts.h"
#include "operator/render/render.h"

namespace echelon::op {
namespace {

using nlohmann::json;

int TargetPort(const ServicePort& port) { return port.name == "grpc" ? kGrpcPort : kHttpPort; }

json Tcp(std::initializer_list<int> ports) {
  json list = json::array();
  for (const int port : ports) list.push_back({{"protocol", "TCP"}, {"port", port}});
  return list;
}

json MatchLabels(json labels) { return {{"matchLabels", std::move(labels)}}; }

}  // namespace

json CommonLabels(const Deployment& d) {
  return {{"app.kubernetes.io/name", "echelon"},
          {"app.kubernetes.io/managed-by", "echelon-operator"},
          {"app.kubernetes.io/instance", d.name}};
}

json Named(const Deployment& d, const char* api_version, const char* kind,
           const std::string& name) {
  json metadata{{"name", name}, {"namespace", d.ns}, {"labels", CommonLabels(d)}};
  metadata["labels"][kDeploymentLabel] = d.name;
  if (!d.uid.empty())
    metadata["ownerReferences"] = {{{"apiVersion", absl::StrCat(kGroup, "/", kVersion)},
                                    {"kind", kKind},
                                    {"name", d.name},
                                    {"uid", d.uid},
                                    {"controller", true},
                                    {"blockOwnerDeletion", false}}};
  return {{"apiVersion", api_version}, {"kind", kind}, {"metadata", std::move(metadata)}};
}

json WithDigest(json object) {
  constexpr size_t kDigits = 16;
  object["metadata"]["annotations"][kAppliedAnnotation] = Digest(object, kDigits);
  return object;
}

json HeadService(const Deployment& d) {
  json service = Named(d, "v1", "Service", d.name);
  json annotations = d.spec.service.annotations;
  if (annotations.is_object()) annotations.erase(kAppliedAnnotation);
  if (annotations.is_object() && !annotations.empty())
    service["metadata"]["annotations"] = std::move(annotations);
  json ports = json::array();
  for (const ServicePort& port : d.spec.service.ports)
    ports.push_back({{"name", port.name},
                     {"port", port.port},
                     {"targetPort", port.name},
                     {"protocol", "TCP"},
                     {"appProtocol", port.name == "grpc" ? "kubernetes.io/h2c" : "http"}});
  service["spec"] = {
      {"type", d.spec.service.type},
      {"ports", std::move(ports)},
      {"selector", {{kDeploymentLabel, d.name}, {"apps.kubernetes.io/pod-index", "0"}}}};
  return WithDigest(std::move(service));
}

json RanksService(const Deployment& d) {
  json service = Named(d, "v1", "Service", absl::StrCat(d.name, "-ranks"));
  const auto port = [](const char* name, int number) {
    return json{{"name", name}, {"port", number}, {"targetPort", name}, {"protocol", "TCP"}};
  };
  service["spec"] = {{"clusterIP", "None"},
                     {"publishNotReadyAddresses", true},  // ranks meet before they are ready
                     {"ports", {port("group", kGroupPort), port("link", kLinkPort)}},
                     {"selector", {{kDeploymentLabel, d.name}}}};
  return WithDigest(std::move(service));
}

json DisruptionBudget(const Deployment& d) {
  json budget = Named(d, "policy/v1", "PodDisruptionBudget", d.name);
  budget["spec"] = {{"maxUnavailable", 1},
                    {"unhealthyPodEvictionPolicy", "AlwaysAllow"},
                    {"selector", MatchLabels({{kDeploymentLabel, d.name}})}};
  return WithDigest(std::move(budget));
}

json NetworkPolicy(const Deployment& d) {
  json policy = Named(d, "networking.k8s.io/v1", "NetworkPolicy", d.name);
  const json ranks = MatchLabels({{kDeploymentLabel, d.name}});
  const json operators{
      {"namespaceSelector", json::object()},
      {"podSelector", MatchLabels({{"app.kubernetes.io/name", "echelon-operator"}})}};
  json doors = json::array();
  for (const ServicePort& port : d.spec.service.ports)
    doors.push_back({{"protocol", "TCP"}, {"port", TargetPort(port)}});
  json ingress = json::array();
  ingress.push_back(
      {{"from", {{{"podSelector", ranks}}}},
       {"ports", Tcp({kHttpPort, kGrpcPort, kMetricsPort, kHealthPort, kGroupPort, kLinkPort})}});
  ingress.push_back({{"ports", std::move(doors)}});
  ingress.push_back({{"from", {operators}}, {"ports", Tcp({kHttpPort})}});
  ingress.push_back({{"from", {{{"namespaceSelector", json::object()}}}},  // any monitoring in it
                     {"ports", Tcp({kMetricsPort})}});
  policy["spec"] = {
      {"podSelector", ranks}, {"policyTypes", {"Ingress"}}, {"ingress", std::move(ingress)}};
  return WithDigest(std::move(policy));
}

json ControllerRevision(const Deployment& d, const Revision& revision, int64_t number) {
  json object = Named(d, "apps/v1", "ControllerRevision", absl::StrCat(d.name, "-", revision.hash));
  object["metadata"]["labels"][kRevisionLabel] = revision.hash;
  object["data"] = revision.data;
  object["revision"] = number;
  return object;
}

}  // namespace echelon::op
