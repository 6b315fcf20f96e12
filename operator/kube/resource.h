// Kinds of objects, and the requests one makes of them. Pure.
#ifndef ECHELON_OPERATOR_KUBE_RESOURCE_H_
#define ECHELON_OPERATOR_KUBE_RESOURCE_H_

#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "operator/kube/api.h"

namespace echelon::op {

inline constexpr char kOurManager[] = "echelon-operator";

struct Resource {
  std::string_view group;  // empty: the core group
  std::string_view version;
  std::string_view plural;
  std::string_view kind;
  bool namespaced = true;

  std::string ApiVersion() const;  // "v1", "apps/v1"
  bool operator==(const Resource&) const = default;
};

inline constexpr Resource kPipelineDeployments{"echelon.dev", "v1alpha1", "pipelinedeployments",
                                               "PipelineDeployment"};
inline constexpr Resource kPods{"", "v1", "pods", "Pod"};
inline constexpr Resource kServices{"", "v1", "services", "Service"};
inline constexpr Resource kConfigMaps{"", "v1", "configmaps", "ConfigMap"};
inline constexpr Resource kPersistentVolumeClaims{"", "v1", "persistentvolumeclaims",
                                                  "PersistentVolumeClaim"};
inline constexpr Resource kNodes{"", "v1", "nodes", "Node", false};
inline constexpr Resource kNamespaces{"", "v1", "namespaces", "Namespace", false};
inline constexpr Resource kCoreEvents{"", "v1", "events", "Event"};
inline constexpr Resource kEvents{"events.k8s.io", "v1", "events", "Event"};
inline constexpr Resource kStatefulSets{"apps", "v1", "statefulsets", "StatefulSet"};
inline constexpr Resource kControllerRevisions{"apps", "v1", "controllerrevisions",
                                               "ControllerRevision"};
inline constexpr Resource kJobs{"batch", "v1", "jobs", "Job"};
inline constexpr Resource kLeases{"coordination.k8s.io", "v1", "leases", "Lease"};
inline constexpr Resource kNetworkPolicies{"networking.k8s.io", "v1", "networkpolicies",
                                           "NetworkPolicy"};
inline constexpr Resource kPodDisruptionBudgets{"policy", "v1", "poddisruptionbudgets",
                                                "PodDisruptionBudget"};
inline constexpr Resource kCustomResourceDefinitions{
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", false};

// One of the above by apiVersion and kind; nullptr: none.
const Resource* FindResource(std::string_view api_version, std::string_view kind);
const Resource* FindCollection(std::string_view api_version, std::string_view plural);

// Of letters, digits and -._~ everything else is percent-encoded.
std::string UrlEncode(std::string_view text);

// An empty namespace: all namespaces, or a cluster-wide resource (whose namespace is ignored).
std::string CollectionPath(const Resource& resource, std::string_view ns);
std::string ObjectPath(const Resource& resource, std::string_view ns, std::string_view name,
                       std::string_view subresource = "");

struct Selection {
  std::string ns;
  std::string label_selector, field_selector;
};

// Pages: limit 0 is everything at once. An empty resource_version reads the newest state; "0" any
// that the server holds.
std::string ListPath(const Resource& resource, const Selection& of, int limit = 0,
                     std::string_view continue_token = "", std::string_view resource_version = "");
// With bookmarks; the server ends it after `lifetime`.
std::string WatchPath(const Resource& resource, const Selection& of,
                      std::string_view resource_version, absl::Duration lifetime);

Request Get(const Resource& resource, std::string_view ns, std::string_view name);
Request Create(const Resource& resource, std::string_view ns, std::string body);
Request Replace(const Resource& resource, std::string_view ns, std::string_view name,
                std::string body, std::string_view subresource = "");
Request MergePatch(const Resource& resource, std::string_view ns, std::string_view name,
                   std::string body, std::string_view subresource = "");

struct ApplyOptions {
  std::string_view subresource;  // "status"
  std::string_view field_manager = kOurManager;
  bool force = true;
  bool dry_run = false;
  bool strict = false;  // unknown and doubled fields are refused (fieldValidation=Strict)
};
// Server-side apply. The body (JSON) carries apiVersion, kind and metadata.name.
Request Apply(const Resource& resource, std::string_view ns, std::string_view name,
              std::string body, const ApplyOptions& options = {});

struct DeleteOptions {
  std::string uid;               // only this object: another of its name gives 409
  std::string resource_version;  // only in this state
  int grace_seconds = -1;        // -1: the object's own; 0: at once, without the kubelet's word
  std::string propagation = "Background";  // or Foreground, Orphan
};
Request Delete(const Resource& resource, std::string_view ns, std::string_view name,
               const DeleteOptions& options = {});

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_RESOURCE_H_
