// One pass of reconcile: what it was given, and what its steps have found out so far.
#ifndef ECHELON_OPERATOR_RECONCILE_PASS_H_
#define ECHELON_OPERATOR_RECONCILE_PASS_H_

#include <optional>
#include <string>
#include <vector>

#include "operator/api/deployment.h"
#include "operator/reconcile/exporting.h"
#include "operator/reconcile/fleet.h"
#include "operator/reconcile/generation.h"
#include "operator/reconcile/observed.h"
#include "operator/reconcile/present.h"
#include "operator/reconcile/reconcile.h"

namespace echelon::op {

// A reason of reasons.h and a line that explains it.
struct Cause {
  std::string reason, message;
};

struct Pass {
  const Deployment& wanted;
  const Observed& observed;
  Present& present;
  Generations generations;
  Fleet fleet;
  Export exporting;
  std::vector<Failure> failures;
  std::optional<Cause> refusal;  // nothing is made, and nothing removed but by spec.suspend
  std::vector<Action> actions;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_PASS_H_
