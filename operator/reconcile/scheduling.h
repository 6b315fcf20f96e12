// Groups that find no room. A partial group holds what others could use, so after
// scheduling.timeoutSeconds it gives its pods back and tries again, with growing delay.
#ifndef ECHELON_OPERATOR_RECONCILE_SCHEDULING_H_
#define ECHELON_OPERATOR_RECONCILE_SCHEDULING_H_

#include "operator/api/deployment.h"
#include "operator/reconcile/fleet.h"
#include "operator/reconcile/present.h"

namespace echelon::op {

// Fills in `group->released` and `group->next`. `is_next`: none before it waits for room, so that
// it may try again; the room that there is then goes to the first.
void Schedule(const Deployment& wanted, bool is_next, Present* present, Group* group);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_SCHEDULING_H_
