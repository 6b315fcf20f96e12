// What several of our objects share. For operator/render alone.
#ifndef ECHELON_OPERATOR_RENDER_PARTS_H_
#define ECHELON_OPERATOR_RENDER_PARTS_H_

#include <nlohmann/json.hpp>
#include <string>

#include "operator/api/deployment.h"
#include "operator/render/render.h"

namespace echelon::op {

inline constexpr int kHttpPort = 8000, kGrpcPort = 8001, kMetricsPort = 8002, kHealthPort = 8003,
                     kGroupPort = 29500, kLinkPort = 29501;
inline constexpr char kStage[] = "stage";    // the container of a rank
inline constexpr char kExport[] = "export";  // and of the export Job
inline constexpr char kModelMount[] = "/model";

inline constexpr char kAppliedAnnotation[] = "echelon.dev/applied";
inline constexpr char kDeploymentLabel[] = "echelon.dev/deployment";
inline constexpr char kRevisionLabel[] = "echelon.dev/revision";
inline constexpr char kGroupLabel[] = "echelon.dev/group";
inline constexpr char kFirstRankLabel[] = "echelon.dev/first-rank";  // tells a group's sets apart

// {apiVersion, kind, metadata: {name, namespace, labels, ownerReferences}}; no reference while the
// object has no uid, as in a file.
nlohmann::json Named(const Deployment& d, const char* api_version, const char* kind,
                     const std::string& name);
nlohmann::json CommonLabels(const Deployment& d);  // without echelon.dev/deployment
// With the annotation echelon.dev/applied over all the rest.
nlohmann::json WithDigest(nlohmann::json object);

nlohmann::json ModelVolume(const ModelSource& source, bool read_only);
nlohmann::json RestrictedPod();        // securityContext of a pod
nlohmann::json RestrictedContainer();  // and of a container

// What of the user's pod template holds for the export Job too: where it may run and as whom, and
// the container `export`. Another than ours may be there, and says nothing for ranks.
nlohmann::json UsersExport(const nlohmann::json& users);
// Merges a pod template over another as MergeTemplate does, unchecked.
absl::Status MergeInto(nlohmann::json* base, const nlohmann::json& patch, const std::string& path);

// The user's pod template for ranks like this one: spec.template with the override's parts over it.
// Null when there is none.
absl::StatusOr<nlohmann::json> UsersTemplate(const Spec& spec, const Override* override);
const Override* OverrideOf(const Spec& spec, int rank);  // or null
// The pod template of a group's run, before the user's is merged.
nlohmann::json OurTemplate(const Deployment& d, const Spec& spec, const Revision& revision,
                           int group, const Run& run);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RENDER_PARTS_H_
