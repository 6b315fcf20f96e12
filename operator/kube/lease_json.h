// The Lease object as the API server has it.
#ifndef ECHELON_OPERATOR_KUBE_LEASE_JSON_H_
#define ECHELON_OPERATOR_KUBE_LEASE_JSON_H_

#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "operator/kube/lease_state.h"

namespace echelon::op {

// Absent fields: no holder, 15 s, no times.
absl::StatusOr<LeaseSpec> ReadLease(const nlohmann::json& lease);
void WriteLease(const LeaseSpec& spec, nlohmann::json& lease);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_LEASE_JSON_H_
