// The objects of a PipelineDeployment: made, applied again, scaled. What is live is never compared
// with what is wanted, since admission may rewrite it.
#ifndef ECHELON_OPERATOR_RECONCILE_OBJECTS_H_
#define ECHELON_OPERATOR_RECONCILE_OBJECTS_H_

#include <vector>

#include "absl/status/status.h"
#include "operator/reconcile/pass.h"
#include "operator/reconcile/reconcile.h"

namespace echelon::op {

// Waves of a plan. Nothing is made before its revision is on record, and no pod before the names
// it is reached by are ours.
inline constexpr int kFirstWave = 0, kObjectsWave = 1, kSetsWave = 2;

void KeepRevision(const Pass& pass, std::vector<Action>* actions);

// Services, PodDisruptionBudget, NetworkPolicy: applied again only when what is desired has changed
// since, which their annotation echelon.dev/applied tells.
void KeepStanding(const Pass& pass, std::vector<Action>* actions);

// StatefulSets of `runs`, all or none; `actions` null: only whether it can be done.
absl::Status MakeSets(const Pass& pass, const Generation& generation, int index,
                      const std::vector<Run>& runs, std::vector<Action>* actions);

// Only has the API server asked about them.
absl::Status TrySets(const Pass& pass, const Generation& generation, int index,
                     std::vector<Action>* actions);

// Makes the group's sets that are missing, once pods of their names are gone, and scales those that
// have another size than they should.
absl::Status KeepSets(const Pass& pass, const Group& group, std::vector<Action>* actions);

// Where others are to take its place, the wave is theirs: what these stand on comes first.
void RemoveSets(const Pass& pass, const Group& group, int wave, std::vector<Action>* actions);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_OBJECTS_H_
