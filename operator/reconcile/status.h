// What status says: always of what is there, never of what the same plan is about to do.
#ifndef ECHELON_OPERATOR_RECONCILE_STATUS_H_
#define ECHELON_OPERATOR_RECONCILE_STATUS_H_

#include <vector>

#include "absl/strings/string_view.h"
#include "operator/api/deployment.h"
#include "operator/reconcile/pass.h"
#include "operator/reconcile/reconcile.h"

namespace echelon::op {

Status MakeStatus(const Pass& pass);

// How far things are: the same for the whole object, conditions are made from it.
struct Tally {
  int replicas = 0;                // wanted groups; 0 while suspended
  int ready_groups = 0;            // of any revision
  int ready_ranks = 0, ranks = 0;  // of the groups that serve best, of those wanted
  bool complete = false;           // what is wanted is there, all of it is ready, nothing else is
  std::vector<const Group*> best;  // the groups that serve best, at most `replicas`
};
Tally MakeTally(const Pass& pass);

// conditions.cc
std::vector<Condition> MakeConditions(const Pass& pass, const Tally& tally, const Status& status);

// progress.cc: since when nothing has moved forward; nullopt: nothing has to.
std::optional<absl::Time> ProgressAt(const Pass& pass, const Tally& tally, const Status& status);

// notes.cc: events about what differs.
std::vector<Note> Transitions(const Deployment& wanted, const Status& after);

const Condition* Find(const Status& status, absl::string_view type);  // null: not there

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_STATUS_H_
