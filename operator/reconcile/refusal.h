// Objects that cannot be served as they are: nothing is made for them, and what runs stays, unless
// they are suspended.
#ifndef ECHELON_OPERATOR_RECONCILE_REFUSAL_H_
#define ECHELON_OPERATOR_RECONCILE_REFUSAL_H_

#include <optional>

#include "operator/reconcile/pass.h"

namespace echelon::op {

std::optional<Cause> FindRefusal(const Pass& pass);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_REFUSAL_H_
