// Ranks that fail: counted, bounded, answered as failurePolicy says; and pods on lost nodes.
#ifndef ECHELON_OPERATOR_RECONCILE_FAILURE_H_
#define ECHELON_OPERATOR_RECONCILE_FAILURE_H_

#include <string>
#include <vector>

#include "operator/api/deployment.h"
#include "operator/reconcile/fleet.h"
#include "operator/reconcile/present.h"
#include "operator/reconcile/reconcile.h"

namespace echelon::op {

// Those that status knows, and the restarts since. Older than the window they are dropped, but the
// last one stays as evidence; where one failure is final, all stay.
std::vector<Failure> CountFailures(const Deployment& wanted, const Fleet& fleet, Present* present);

// Whether the group has failed more often than allowed: it gives its pods back until the window has
// passed. A group that serves is left alone.
bool HasFailed(const Deployment& wanted, const Group& group, const std::vector<Failure>& failures,
               Present* present);

// The newest failure of a pod of the group; null: none.
const Failure* LastFailure(const Deployment& wanted, const Group& group,
                           const std::vector<Failure>& failures);

// RestartGroup: when a pod is seen to fail, the others of its group start anew, too. Of what status
// knows already nothing follows: it was answered, or came before the policy. The one that failed
// keeps its pod, and so Kubernetes' growing delay between restarts.
void RestartGroup(const Group& group, std::vector<Action>* actions);

// Nobody ends a pod on a lost node: the taint manager marks it, and it stays Terminating while its
// StatefulSet waits. One still there 5 s after the mark is deleted by force.
void DeleteLostPods(const Deployment& wanted, const Observed& observed, Present* present,
                    std::vector<Action>* actions);

// "exit code 137 (OOMKilled): message", in one line.
std::string Termination(const PodView& pod);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_FAILURE_H_
