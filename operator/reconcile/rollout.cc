#include "operator/reconcile/rollout.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "operator/reconcile/cause.h"

namespace echelon::op {
namespace {

struct Limits {
  int replicas, most, fewest_ready;
};

Limits LimitsOf(const Spec& spec) {
  const int replicas = std::max(0, spec.replicas);
  const int unavailable = std::max(0, spec.rollout.max_unavailable);
  // With both at 0 nothing could ever be replaced; the schema refuses that.
  const int surge = std::max(unavailable == 0 ? 1 : 0, spec.rollout.max_surge);
  return {replicas, replicas + surge, std::max(0, replicas - unavailable)};
}

int CountReady(const std::vector<const Group*>& groups) {
  return static_cast<int>(
      std::count_if(groups.begin(), groups.end(), [](const Group* g) { return g->ready(); }));
}

int Size(const std::vector<const Group*>& groups) { return static_cast<int>(groups.size()); }

// Too many of the wanted revision: those go first that serve nobody, then the highest index.
void RemoveExcess(int replicas, std::vector<const Group*>* current, Changes* changes) {
  std::sort(current->begin(), current->end(), [](const Group* a, const Group* b) {
    return std::tuple(!a->ready(), a->index) < std::tuple(!b->ready(), b->index);
  });
  while (Size(*current) > replicas) {
    changes->remove.push_back(current->back());
    current->pop_back();
  }
}

void RemoveOld(const Limits& limits, bool may_make, const std::vector<const Group*>& current,
               std::vector<const Group*> old, Changes* changes) {
  // While nothing can take their place, only what is too much goes.
  const int fewest_ready = may_make ? limits.fewest_ready : limits.replicas;
  const auto remove_if = [&](int most, const auto& matches) {
    for (auto at = old.begin(); at != old.end() && most > 0;) {
      if (matches(**at)) {
        changes->remove.push_back(*at);
        at = old.erase(at);
        --most;
      } else {
        ++at;
      }
    }
  };
  // Oldest revision first, then highest index.
  std::stable_sort(old.begin(), old.end(), [](const Group* a, const Group* b) {
    return std::tuple(a->generation->number, -a->index) <
           std::tuple(b->generation->number, -b->index);
  });
  if (may_make) remove_if(Size(old), [](const Group& group) { return IsBroken(group); });
  // One that is not ready just now may come back sooner than a new one comes up.
  const int coming = Size(current) - CountReady(current);
  remove_if(Size(current) + Size(old) - fewest_ready - coming,
            [](const Group& group) { return !group.ready(); });
  remove_if(CountReady(current) + CountReady(old) - fewest_ready,
            [](const Group& group) { return group.ready(); });
}

// The lowest that nothing goes by, not even pods on their way out: their names are taken.
int FreeIndex(const Observed& observed, const std::string& revision) {
  std::set<int> taken;
  for (const SetView& set : observed.sets) {
    if (set.revision == revision) taken.insert(set.group);
  }
  for (const PodView& pod : observed.pods) {
    if (pod.revision == revision) taken.insert(pod.group);
  }
  int index = 0;
  while (taken.contains(index)) ++index;
  return index;
}

}  // namespace

int FewestReady(const Spec& spec) { return std::max(1, LimitsOf(spec).fewest_ready); }

bool IsBroken(const Group& group) {
  if (group.ready()) return false;
  return group.failed || group.released || (!group.has_formed() && IsStuck(group));
}

Changes PlanRollout(const Deployment& wanted, const Observed& observed,
                    const Generations& generations, const Fleet& fleet, bool may_make) {
  Changes changes;
  std::vector<const Group*> current, old;
  for (const Group& group : fleet.groups) {
    (group.wanted_revision ? current : old).push_back(&group);
  }
  if (wanted.spec.suspend) {
    for (const Group& group : fleet.groups) changes.remove.push_back(&group);
    return changes;
  }
  const Limits limits = LimitsOf(wanted.spec);
  const int there = Size(current) + Size(old);
  const int current_there = Size(current);
  RemoveExcess(limits.replicas, &current, &changes);
  RemoveOld(limits, may_make, current, old, &changes);

  // One after the other, so that groups do not starve each other of a last node.
  const bool all_placed = std::all_of(current.begin(), current.end(), [](const Group* group) {
    return group->failed || (group->scheduled() && !group->released);
  });
  changes.make = may_make && all_placed && current_there < limits.replicas && there < limits.most;
  changes.try_first = may_make && current_there < limits.replicas && !changes.remove.empty();
  if (changes.make || changes.try_first) {
    changes.index = FreeIndex(observed, generations.wanted().revision.hash);
  }
  return changes;
}

}  // namespace echelon::op
