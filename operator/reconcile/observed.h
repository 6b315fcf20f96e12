// What reconcile sees of the cluster: projections, small enough for thousands of pods. The
// controller's cache holds them; from_json functions cut them out of what the API server sends.
#ifndef ECHELON_OPERATOR_RECONCILE_OBSERVED_H_
#define ECHELON_OPERATOR_RECONCILE_OBSERVED_H_

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace echelon::op {

// Any object under one of our names.
struct OwnedObject {
  std::string
      kind;  // Service, PodDisruptionBudget, NetworkPolicy, Job, ControllerRevision, StatefulSet
  std::string name, uid;
  std::string owner_uid;  // of the controller reference; "" : nobody's
  std::string applied;    // annotation echelon.dev/applied
  bool deleting = false;

  bool operator==(const OwnedObject&) const = default;
};

struct RevisionView : OwnedObject {
  int64_t number = 0;   // ControllerRevision.revision: grows
  nlohmann::json data;  // {spec, image, exporterImage}

  bool operator==(const RevisionView&) const = default;
};

struct JobView : OwnedObject {
  int succeeded = 0, failed = 0;
  bool complete = false, gave_up = false;  // conditions Complete, Failed
  std::string message;

  bool operator==(const JobView&) const = default;
};

struct SetView : OwnedObject {
  std::string revision;  // label, HASH8
  int group = 0;         // label
  int first_rank = 0;    // spec.ordinals.start
  int replicas = 0;      // spec.replicas
  absl::Time created;

  bool operator==(const SetView&) const = default;
};

struct PodView {
  std::string name, uid;
  std::string set_uid;   // of the controller reference
  std::string revision;  // label
  int group = 0, rank = 0;
  std::string node, ip;
  std::string phase;  // Pending, Running, Succeeded, Failed, Unknown
  bool ready = false;
  bool scheduled = false;
  bool deleting = false;
  absl::Time created;
  absl::Time deletion;         // deletionTimestamp: the end of the grace period
  absl::Duration grace;        // deletionGracePeriodSeconds
  bool taint_evicted = false;  // condition DisruptionTarget, reason DeletionByTaintManager
  absl::Time taint_evicted_at;
  int restarts = 0;  // of container "stage"
  // Of "stage", else of the first container that will not start by itself.
  std::string waiting_reason, waiting_message;
  bool waiting_beside = false;  // not of "stage"; the message names it, and how it ended
  std::string terminated_reason, terminated_message;  // the last termination
  int terminated_exit_code = 0;
  absl::Time terminated_at;
  std::string unscheduled_message;  // PodScheduled False: message
  // The newest time its node's kubelet is known to have written (ContainersReady's transition, a
  // container's start or end). A kubelet that reports after the eviction mark is alive and drains.
  absl::Time reported_at = absl::InfinitePast();

  bool operator==(const PodView&) const = default;
};

// WarningView::reason of the API server's refusal of a write of ours, gone when it goes through.
inline constexpr char kFailedWrite[] = "FailedWrite";

// A warning event that explains why pods are missing (FailedCreate of a StatefulSet) or stuck.
struct WarningView {
  std::string kind, object;  // involvedObject
  std::string reason, message;
  absl::Time last_seen;

  bool operator==(const WarningView&) const = default;
};

struct HeadRank {
  int rank = 0;
  std::string phase;  // missing, joined, loading, loaded, ready
  std::string incarnation;
  int64_t loaded_bytes = 0, total_bytes = 0;
  int joins = 0;
  std::string last_error;

  bool operator==(const HeadRank&) const = default;
};

// A volume claim that the pods of an object mount.
struct ClaimView {
  std::string name;
  std::vector<std::string> access_modes;  // spec.accessModes; empty: not known
  bool bound = false;
  bool missing = false;  // there is no such claim

  bool operator==(const ClaimView&) const = default;
};

// The last answer of a group's head at /status. When it does not answer, the fields keep its last
// answer, `error` says why and `missed` counts how often in a row: 2 make it silent.
struct HeadView {
  std::string pod_uid;  // of the pod that answered; another one's answers are dropped
  absl::Time asked;
  std::string error;
  int missed = 0;
  int64_t epoch = 0;
  bool formed = false;
  bool draining = false;
  std::vector<HeadRank> ranks;

  bool operator==(const HeadView&) const = default;
};

struct Observed {
  std::vector<OwnedObject> objects;  // Services, PDB, NetworkPolicy by our names, whoever owns them
  std::vector<RevisionView> revisions;
  std::vector<JobView> jobs;
  std::vector<SetView> sets;
  std::vector<PodView> pods;
  std::vector<WarningView> warnings;
  std::vector<ClaimView> claims;          // of spec.model.source.pvc
  std::map<std::string, HeadView> heads;  // by pod name
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_OBSERVED_H_
