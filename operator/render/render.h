// From a spec and its revision to the Kubernetes objects that serve it, as JSON. Pure.
#ifndef ECHELON_OPERATOR_RENDER_RENDER_H_
#define ECHELON_OPERATOR_RENDER_RENDER_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "operator/api/deployment.h"

namespace echelon::op {

// The revision that a spec comes to.
struct Revision {
  std::string hash;     // 8 hex digits
  nlohmann::json data;  // {spec, image, exporterImage}: what the ControllerRevision keeps
  std::string image, exporter_image;

  std::string hash6() const { return hash.substr(0, 6); }
};

// `runtime_image` unless the template has an image for the container `stage`.
Revision MakeRevision(const Spec& spec, std::string_view runtime_image,
                      std::string_view exporter_image);
Revision RevisionFromData(const nlohmann::json& data);  // of a ControllerRevision of ours

// The object's spec with that revision's model, parallelism, overrides and template: what its
// groups are made from, also when the object wants another revision by now. Its stages are the
// group's size.
Spec SpecAt(const Deployment& d, const Revision& revision);

// Where an exported directory's file lies below the volume ("" for a .pt2): its name holds a digest
// of all that it depends on.
std::string ExportedPath(const Model& model);

// Ranks [first, first + count) that are equal and so share a StatefulSet, in order of rank.
struct Run {
  int first = 0, count = 1;
};
std::vector<Run> EqualRuns(const Spec& spec);

// What the planner is told of unequal ranks, as the stage's flags take it: "a,b,c", one for each
// stage; "" when no override says anything.
std::string StageMemory(const Spec& spec);
std::string StageSpeed(const Spec& spec);

std::string SetName(const Deployment& d, const Revision& revision, int group, int first_rank);
std::string PodName(const Deployment& d, const Revision& revision, int group, int rank);
std::string JobName(const Deployment& d, const Revision& revision);

// Each carries name, namespace, labels, controller reference; those that may be applied again also
// the annotation echelon.dev/applied.
nlohmann::json HeadService(const Deployment& d);
nlohmann::json RanksService(const Deployment& d);
nlohmann::json DisruptionBudget(const Deployment& d);
nlohmann::json NetworkPolicy(const Deployment& d);
nlohmann::json ControllerRevision(const Deployment& d, const Revision& revision, int64_t number);
// Failed: the user's part of the pod template is none.
absl::StatusOr<nlohmann::json> ExportJob(const Deployment& d, const Revision& revision);
// INVALID_ARGUMENT when template or override cannot be merged: reason InvalidTemplate.
absl::StatusOr<nlohmann::json> StatefulSet(const Deployment& d, const Revision& revision, int group,
                                           const Run& run);

// Strategic merge of a pod template of the user's into ours: containers, env, volumes, volumeMounts
// and ports by their keys; tolerations, and the args of `stage`, after ours; null removes. Theirs
// wins where both say a field; INVALID_ARGUMENT names the field ("template.spec.containers[stage]
// .env[RANK]") where it is the operator's alone, and where a shape is wrong.
absl::StatusOr<nlohmann::json> MergeTemplate(const nlohmann::json& users, nlohmann::json ours);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RENDER_RENDER_H_
