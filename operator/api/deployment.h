// A PipelineDeployment as values: what the user wants (Spec), what is so (Status). Pure: no I/O, no
// clock. JSON in and out is Kubernetes' own (camelCase, absent means default).
#ifndef ECHELON_OPERATOR_API_DEPLOYMENT_H_
#define ECHELON_OPERATOR_API_DEPLOYMENT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace echelon::op {

inline constexpr char kGroup[] = "echelon.dev";
inline constexpr char kVersion[] = "v1alpha1";
inline constexpr char kKind[] = "PipelineDeployment";
inline constexpr char kPlural[] = "pipelinedeployments";
// A longer StatefulSet name is taken by the API server, but never makes a pod.
inline constexpr int kMaxNameLength = 37;

// Deployment::invalid_reason.
inline constexpr char kNotSupported[] = "NotSupported";          // a feature that is not there yet
inline constexpr char kInvalidOverrides[] = "InvalidOverrides";  // ranks that overlap, ...
inline constexpr char kNameTooLong[] = "NameTooLong";
inline constexpr char kInvalidName[] = "InvalidName";
inline constexpr char kBadPath[] = "BadPath";  // of the model
inline constexpr char kInvalidSpec[] =
    "InvalidSpec";  // a field's type or range: only without a CRD

enum class SourceType { kPvc, kHostPath, kImage, kHttps };
enum class OnRankFailure { kRestartRank, kRestartGroup, kNone };

struct ModelSource {
  SourceType type = SourceType::kPvc;
  std::string claim_name;   // pvc.claimName
  std::string host_path;    // hostPath.path
  std::string image;        // image.reference
  std::string pull_policy;  // image.pullPolicy
  std::string url;          // https.url
};

struct Model {
  ModelSource source;
  std::string path;           // below the volume: FILE.pt2, or a Hugging Face directory
  std::string revision;       // free text; a new one makes a new revision of the deployment
  std::string digest;         // "sha256:..." of the .pt2, or ""
  std::string secret;         // secretRef.name
  std::string dtype;          // of an exported directory: "bf16", "f32" or "" (the checkpoint's)
  int64_t max_model_len = 0;  // 0: the model's own

  bool is_directory() const;  // a Hugging Face directory, which is exported before it is served
  std::string name() const;   // for clients: the path's last part without .pt2
};

struct Parallelism {
  int stages = 1;
  std::string policy = "balanced";
  int chunks = 1;
  int ranks_per_pod = 1;
};

// What differs for ranks [first_rank, first_rank + count).
struct Override {
  std::string name;
  int first_rank = 0;
  int count = 1;
  nlohmann::json resources;      // a container's, or null
  std::string memory;            // "24Gi": what the planner may use; "" without a bound
  double speed = 0;              // relative to the others' 1; 0: as the others
  nlohmann::json node_selector;  // null or object
  nlohmann::json tolerations;    // null or array
  nlohmann::json pod_template;   // null or object
};

struct Scheduling {
  std::string gang = "None";
  int timeout_seconds = 600;
  std::string topology_key = "kubernetes.io/hostname";
};

struct FailurePolicy {
  OnRankFailure on_rank_failure = OnRankFailure::kRestartRank;
  int max_restarts = 10;
  int window_seconds = 3600;
  int node_loss_seconds = 10;
  int spares = 0;
};

struct Rollout {
  int max_surge = 1;
  int max_unavailable = 0;
  int drain_seconds = 30;
  int progress_deadline_seconds = 1800;
};

struct ServicePort {
  std::string name;  // http, grpc
  int port = 0;
};

struct ServiceSpec {
  std::string type = "ClusterIP";
  std::vector<ServicePort> ports{{"http", 8000}, {"grpc", 8001}};
  nlohmann::json annotations;  // null or object of strings
};

struct Spec {
  int replicas = 1;
  bool suspend = false;
  Model model;
  Parallelism parallelism;
  std::vector<Override> overrides;
  nlohmann::json pod_template;  // null or object: merged under ours
  Scheduling scheduling;
  int no_progress_seconds = 300;  // startup.noProgressSeconds
  FailurePolicy failure_policy;
  Rollout rollout;
  ServiceSpec service;
  bool pod_monitor = false;  // observability.podMonitor
};

enum class Truth { kTrue, kFalse, kUnknown };

struct Condition {
  std::string type;  // Available, Progressing, Degraded, ModelReady, GroupFormed, Failed
  Truth status = Truth::kUnknown;
  std::string reason;   // one of operator/reconcile/reasons.h
  std::string message;  // one line
  int64_t observed_generation = 0;
  absl::Time last_transition;  // changes with `status` only

  bool operator==(const Condition&) const = default;
};

struct GroupState {
  std::string name;  // HASH6-GROUP
  std::string revision;
  std::string ready;  // "2/3"
  int64_t epoch = 0;
  // Since when some of its ranks have had no node: scheduling.timeoutSeconds counts from here.
  std::optional<absl::Time> waiting_since;
  // While a group that could not be scheduled has given its pods back: when it tries again.
  std::optional<absl::Time> retry_at;
  int attempts = 0;  // how often it has given its pods back since it last had them all

  bool operator==(const GroupState&) const = default;
};

struct RankState {
  std::string pod;
  std::string group;  // HASH6-GROUP
  int rank = 0;
  std::string node;
  std::string
      phase;  // Pending, Starting, Waiting, Loading, Loaded, Ready, Terminating, Failed, Unknown
  int64_t loaded_bytes = 0, total_bytes = 0;
  int restarts = 0;  // of this pod's container, as Kubernetes counts
  std::string last_error;

  bool operator==(const RankState&) const = default;
};

// What counts against failurePolicy.maxRestarts, newest last: `count` failures of a pod, the last
// of them at `at` with `message`.
struct Failure {
  absl::Time at;
  std::string pod;
  std::string message;
  int count = 1;

  bool operator==(const Failure&) const = default;
};

struct Status {
  int64_t observed_generation = 0;
  int replicas = 0;        // groups that exist, all revisions
  int ready_replicas = 0;  // with a ready head
  std::string selector;    // head pods only, for the scale subresource
  std::string current_revision, update_revision;
  std::string endpoint;  // NAME.NAMESPACE.svc:8001
  std::string ready;     // column: ready ranks of wanted ones, "4/4"
  std::string reason;    // column: the one word that says most
  std::vector<GroupState> groups;
  std::vector<RankState> ranks;
  std::vector<Condition> conditions;
  std::vector<Failure> failures;  // within the window and the last one, at most 16
  // While something is on its way: its last step forward. rollout.progressDeadlineSeconds counts
  // from here.
  std::optional<absl::Time> progress_at;

  bool operator==(const Status&) const = default;
};

struct Deployment {
  std::string ns, name, uid, resource_version;
  int64_t generation = 0;
  bool deleting = false;
  Spec spec;
  Status status;  // as last written
  // Not "": the object was taken by the API server, but cannot be served (a feature that is not
  // there yet, ranks that overlap, ...): reason and message. Nothing is made for it.
  std::string invalid_reason, invalid_message;
};

// Reads an object as the API server sends it; defaults filled in. INVALID_ARGUMENT only where it is
// no PipelineDeployment at all; what merely cannot be served lands in invalid_*.
absl::StatusOr<Deployment> FromJson(const nlohmann::json& object);

// Fields of the object's spec that nobody knows ("spec.model.pth"), for files that no API server
// has pruned.
std::vector<std::string> UnknownFields(const nlohmann::json& object);

// The whole spec with its defaults, as the API server stores it.
nlohmann::json ToJson(const Spec& spec);

// The four fields that make a revision, after defaults, with sorted keys, overrides by rank. A
// field that is added to the API later must stay out of it while it has its default, or a new
// operator would restart every pipeline.
nlohmann::json RevisionSpec(const Spec& spec);

// `spec` with the four fields as a RevisionSpec has them: what pods of an older revision are made
// from.
Spec WithRevisionSpec(Spec spec, const nlohmann::json& revision_spec);

// Bytes of "24Gi", "1.5GB" or "1000"; K, M, G and T are decimal as everywhere in Kubernetes.
absl::StatusOr<int64_t> BytesOfQuantity(const std::string& text);

// As the status subresource takes it: strings and lists are cut to the CRD's bounds, times to
// seconds.
nlohmann::json ToJson(const Status& status);
Status StatusFromJson(const nlohmann::json& status);  // foreign or damaged fields read as absent

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_API_DEPLOYMENT_H_
