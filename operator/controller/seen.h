// The views of reconcile with what the cache needs besides: whose they are and how new. Pure.
#ifndef ECHELON_OPERATOR_CONTROLLER_SEEN_H_
#define ECHELON_OPERATOR_CONTROLLER_SEEN_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "operator/reconcile/observed.h"

namespace echelon::op {

inline constexpr char kDeploymentLabel[] = "echelon.dev/deployment";

// What a view is about: the PipelineDeployment ("NAMESPACE/NAME", by label), and the object's
// version, which grows with every change of it.
template <typename View>
struct Seen {
  std::string key;
  uint64_t version = 0;
  View view;
};

struct SeenWarning {
  std::string ns;
  WarningView view;
};

std::string KeyOf(std::string_view ns, std::string_view name);
std::string_view NamespaceOf(std::string_view key);
std::string_view NameOf(std::string_view key);
uint64_t VersionOf(const nlohmann::json& object);  // metadata.resourceVersion; 0: none

// nullopt: not one of ours (no label, or a pod or revision of another controller's).
std::optional<Seen<OwnedObject>> SeeOwned(const nlohmann::json& object, std::string_view kind);
std::optional<Seen<RevisionView>> SeeRevision(const nlohmann::json& object);
std::optional<Seen<JobView>> SeeJob(const nlohmann::json& object);
std::optional<Seen<SetView>> SeeSet(const nlohmann::json& object);
std::optional<Seen<PodView>> SeePod(const nlohmann::json& object);
// nullopt: no warning.
std::optional<SeenWarning> SeeWarning(const nlohmann::json& event);

using AnySeen = std::variant<Seen<OwnedObject>, Seen<RevisionView>, Seen<JobView>, Seen<SetView>>;
// An object under a name of the deployment `key`, whatever its labels say.
AnySeen SeeMade(const nlohmann::json& object, std::string_view kind, std::string_view key);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_SEEN_H_
