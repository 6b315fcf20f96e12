// Is the cluster's CustomResourceDefinition the one this operator was built with? Pure.
#ifndef ECHELON_OPERATOR_CONTROLLER_CRD_CHECK_H_
#define ECHELON_OPERATOR_CONTROLLER_CRD_CHECK_H_

#include "absl/status/status.h"
#include "operator/kube/api.h"

namespace echelon::op {

inline constexpr char kCrdName[] = "pipelinedeployments.echelon.dev";
inline constexpr char kCrdVersionAnnotation[] = "echelon.dev/crd-version";
// Grows with every change of crds/pipelinedeployments.yaml that the operator relies on.
inline constexpr int kCrdVersion = 1;

// `response`: to a GET of the definition. Ok also where we may not read it (a namespaced operator
// has no rights outside its namespace) and for a newer one. FailedPrecondition: what to do, in one
// line. Unavailable: not known; ask again.
absl::Status CheckCrd(const Response& response);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_CRD_CHECK_H_
