// What the cluster has of one PipelineDeployment, read once: for `echelon-operator plan --live`.
#ifndef ECHELON_OPERATOR_CONTROLLER_LIVE_H_
#define ECHELON_OPERATOR_CONTROLLER_LIVE_H_

#include "absl/status/statusor.h"
#include "operator/api/deployment.h"
#include "operator/kube/api.h"
#include "operator/reconcile/observed.h"

namespace echelon::op {

// Waits for the answers. Takes identity and status from the cluster's object, if there is one, and
// leaves the spec as it is given. Heads are not asked.
absl::StatusOr<Observed> ReadLive(Api* api, Deployment* deployment);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_LIVE_H_
