// Why groups do not come up, as far as pods and events tell.
#ifndef ECHELON_OPERATOR_RECONCILE_CAUSE_H_
#define ECHELON_OPERATOR_RECONCILE_CAUSE_H_

#include <optional>

#include "operator/reconcile/pass.h"

namespace echelon::op {

// Its pods will not start by waiting a moment: no node, no image, no container, or a crash loop.
bool IsStuck(const Group& group);

// The first thing that stands in the way of a wanted group; nullopt: it only takes its time.
std::optional<Cause> FindCause(const Pass& pass);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_CAUSE_H_
