// Which groups are made and which go. A new revision's groups come up beside the old ones, at most
// maxSurge more than wanted; an old one goes when enough others are ready, a broken one first.
#ifndef ECHELON_OPERATOR_RECONCILE_ROLLOUT_H_
#define ECHELON_OPERATOR_RECONCILE_ROLLOUT_H_

#include <vector>

#include "operator/api/deployment.h"
#include "operator/reconcile/fleet.h"
#include "operator/reconcile/observed.h"

namespace echelon::op {

struct Changes {
  std::vector<const Group*> remove;
  bool make = false;       // one more group of the wanted revision
  bool try_first = false;  // old ones go while the wanted revision's are still to come
  int index = 0;           // of the one that is made, or tried
};

// `may_make`: groups of the wanted revision can be made now; until then old ones serve on.
Changes PlanRollout(const Deployment& wanted, const Observed& observed,
                    const Generations& generations, const Fleet& fleet, bool may_make);

// How many groups must have a ready head, so that the object counts as available.
int FewestReady(const Spec& spec);

// It has never served, and will not by waiting: no room, no image, it ends at once.
bool IsBroken(const Group& group);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_ROLLOUT_H_
