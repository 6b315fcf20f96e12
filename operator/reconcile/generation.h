// Revisions that matter now: the wanted one, and those that still have StatefulSets.
#ifndef ECHELON_OPERATOR_RECONCILE_GENERATION_H_
#define ECHELON_OPERATOR_RECONCILE_GENERATION_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "operator/api/deployment.h"
#include "operator/reconcile/observed.h"
#include "operator/reconcile/reconcile.h"
#include "operator/render/render.h"

namespace echelon::op {

struct Generation {
  Revision revision;
  int64_t number = 0;     // of its ControllerRevision
  bool recorded = false;  // that ControllerRevision is there
  std::vector<Run> runs;  // its StatefulSets; empty: nobody knows any more what it was
  int ranks = 0;          // of one group; 0: as `runs`
};

struct Generations {
  std::map<std::string, Generation, std::less<>> by_hash;
  std::string wanted_hash;

  const Generation& wanted() const { return by_hash.at(wanted_hash); }
};

// An owned ControllerRevision with the object's very spec is taken with its images, so that a new
// default image of the operator's restarts nothing.
Generations FindGenerations(const Deployment& wanted, const Observed& observed,
                            const Settings& settings);

// The hash in "NAME-HASH8" or "NAME-HASH8-export"; "": the name is no such one.
std::string HashInName(const Deployment& wanted, const std::string& name);

// ControllerRevisions and export Jobs that nothing needs: of revisions without groups, but for the
// last three of them, to which a rollback comes cheap.
std::vector<const OwnedObject*> Outdated(const Deployment& wanted, const Observed& observed,
                                         const Generations& generations);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_GENERATION_H_
