// What is there: StatefulSets and pods put together to groups.
#ifndef ECHELON_OPERATOR_RECONCILE_FLEET_H_
#define ECHELON_OPERATOR_RECONCILE_FLEET_H_

#include <string>
#include <vector>

#include "operator/api/deployment.h"
#include "operator/reconcile/generation.h"
#include "operator/reconcile/observed.h"

namespace echelon::op {

struct Group {
  const Generation* generation = nullptr;
  int index = 0;
  std::string name;                  // HASH6-INDEX
  bool wanted_revision = false;      // otherwise of an old one
  std::vector<const SetView*> sets;  // not those being deleted
  std::vector<const PodView*> pods;  // by rank; null: there is none
  const HeadView* answer = nullptr;  // of the head pod as it is now; null: it was not asked yet
  // In status as last written; null: not there.
  const GroupState* before = nullptr;
  std::vector<const RankState*> ranks_before;  // by rank

  bool failed = false;    // given up, for now or for good: failure.h
  bool released = false;  // has given its pods back, for want of room: scheduling.h
  GroupState next;        // what status will keep of its scheduling: scheduling.h

  int ranks() const { return static_cast<int>(pods.size()); }
  const PodView* head() const { return pods.empty() ? nullptr : pods[0]; }
  bool Leaving(int rank) const;  // its pod, which is there, is being deleted or will be
  bool Ready(int rank) const;
  int ready_ranks() const;
  bool ready() const;       // its head takes requests, which it does while all ranks are there
  bool scheduled() const;   // every rank has a node
  bool asked() const;       // its head runs, so that it can answer at /status
  bool silent() const;      // and does not
  bool has_formed() const;  // at some time, as far as status knows
  const HeadRank* Told(int rank) const;  // what the head says of this very pod; null: nothing
};

struct Fleet {
  std::vector<Group> groups;  // old revisions first, each by index
  std::vector<const PodView*>
      leftover;  // pods whose StatefulSet is gone: they are on their way out

  // The groups that serve what is wanted, at most `replicas`, the best first.
  std::vector<const Group*> Best(int replicas) const;
  bool HasOld() const;
};

Fleet SeeFleet(const Deployment& wanted, const Observed& observed, const Generations& generations);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_FLEET_H_
