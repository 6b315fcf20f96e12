// From objects as the API server sends them, and a head's answer, to the views of observed.h. Pure.
// Fields that are missing, foreign or of another type read as absent.
#ifndef ECHELON_OPERATOR_CONTROLLER_PROJECT_H_
#define ECHELON_OPERATOR_CONTROLLER_PROJECT_H_

#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/status/statusor.h"
#include "operator/kube/skim.h"
#include "operator/reconcile/observed.h"

namespace echelon::op {

// `kind` is given, since the items of a list do not carry theirs.
OwnedObject OwnedObjectFromJson(std::string_view kind, const nlohmann::json& object);
RevisionView RevisionFromJson(const nlohmann::json& object);
JobView JobFromJson(const nlohmann::json& object);
SetView SetFromJson(const nlohmann::json& object);
PodView PodFromJson(const nlohmann::json& object);
ClaimView ClaimFromJson(const nlohmann::json& object);
WarningView WarningFromJson(const nlohmann::json& object);  // core/v1

// What none of the above reads of an object: most of its bytes.
const Parts& Unread(std::string_view kind);

// A head's answer to GET /status: foreign, untrusted bytes. Fills all but pod_uid, asked and
// missed.
absl::StatusOr<HeadView> HeadFromText(std::string_view body);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_PROJECT_H_
