#include "operator/reconcile/fleet.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"

namespace echelon::op {
namespace {

constexpr int kMissedUntilSilent = 2;  // one lost answer is no silence
constexpr int kMaxRanks = 4096;        // labels are foreign: no index beyond

using Key = std::pair<std::string_view, int>;  // revision, index

void Place(const PodView& pod, Group* group) {
  if (pod.rank < 0 || pod.rank >= kMaxRanks) return;
  const auto rank = static_cast<size_t>(pod.rank);
  // Only where nobody knows the generation any more can there be more pods than ranks.
  if (rank >= group->pods.size() && group->generation->ranks == 0) group->pods.resize(rank + 1);
  if (rank < group->pods.size() && group->pods[rank] == nullptr) group->pods[rank] = &pod;
}

Group NewGroup(const Deployment& wanted, const SetView& set, const Generations& generations) {
  Group group{.generation = &generations.by_hash.at(set.revision), .index = set.group};
  group.name = absl::StrCat(set.revision.substr(0, 6), "-", set.group);
  group.wanted_revision = set.revision == generations.wanted_hash;
  group.pods.resize(group.generation->ranks);
  for (const GroupState& state : wanted.status.groups) {
    if (state.name == group.name) group.before = &state;
  }
  return group;
}

// What status says of the ranks, of each where its group is now.
void FindRanksBefore(const Status& status, std::map<Key, Group>* groups) {
  std::unordered_map<std::string_view, Group*> by_name;
  for (auto& [key, group] : *groups) {
    group.ranks_before.resize(group.pods.size());
    by_name[group.name] = &group;
  }
  for (const RankState& rank : status.ranks) {
    const auto found = by_name.find(rank.group);
    if (found == by_name.end() || rank.rank < 0 || rank.rank >= found->second->ranks()) continue;
    found->second->ranks_before[rank.rank] = &rank;
  }
}

void FindAnswer(const Observed& observed, Group* group) {
  const PodView* head = group->head();
  if (head == nullptr) return;
  const auto found = observed.heads.find(head->name);
  if (found != observed.heads.end() && found->second.pod_uid == head->uid) {
    group->answer = &found->second;
  }
}

}  // namespace

bool Group::Leaving(int rank) const {
  const PodView& pod = *pods[rank];
  return pod.deleting || std::none_of(sets.begin(), sets.end(), [&pod](const SetView* set) {
           return set->uid == pod.set_uid;
         });
}

bool Group::Ready(int rank) const {
  return rank < ranks() && pods[rank] != nullptr && pods[rank]->ready && !Leaving(rank);
}

int Group::ready_ranks() const {
  int ready = 0;
  for (int rank = 0; rank < ranks(); ++rank) ready += Ready(rank) ? 1 : 0;
  return ready;
}

bool Group::ready() const { return Ready(0); }

bool Group::scheduled() const {
  return std::all_of(pods.begin(), pods.end(),
                     [](const PodView* pod) { return pod != nullptr && pod->scheduled; });
}

bool Group::asked() const {
  return head() != nullptr && head()->phase == "Running" && !head()->deleting &&
         (head()->waiting_reason.empty() || head()->waiting_beside);
}

bool Group::silent() const {
  return asked() && answer != nullptr && answer->missed >= kMissedUntilSilent;
}

bool Group::has_formed() const {
  return (before != nullptr && before->epoch > 0) || (answer != nullptr && answer->epoch > 0);
}

const HeadRank* Group::Told(int rank) const {
  const PodView* pod = pods[rank];
  if (answer == nullptr || pod == nullptr) return nullptr;
  for (const HeadRank& told : answer->ranks) {
    if (told.rank == rank && told.incarnation == pod->uid) return &told;
  }
  return nullptr;
}

std::vector<const Group*> Fleet::Best(int replicas) const {
  std::vector<const Group*> best;
  for (const Group& group : groups) best.push_back(&group);
  std::stable_sort(best.begin(), best.end(), [](const Group* a, const Group* b) {
    const auto rank = [](const Group& g) {
      return std::tuple(g.ready(), g.ready_ranks(), g.wanted_revision, -g.index);
    };
    return rank(*a) > rank(*b);
  });
  if (best.size() > static_cast<size_t>(std::max(0, replicas))) best.resize(std::max(0, replicas));
  return best;
}

bool Fleet::HasOld() const {
  return std::any_of(groups.begin(), groups.end(),
                     [](const Group& group) { return !group.wanted_revision; });
}

Fleet SeeFleet(const Deployment& wanted, const Observed& observed, const Generations& generations) {
  std::map<Key, Group> groups;
  std::unordered_map<std::string_view, Group*> group_of_set;  // by UID
  for (const SetView& set : observed.sets) {
    if (set.owner_uid != wanted.uid || set.deleting) continue;
    auto found = groups.find({set.revision, set.group});
    if (found == groups.end()) {
      found =
          groups.emplace(Key{set.revision, set.group}, NewGroup(wanted, set, generations)).first;
    }
    found->second.sets.push_back(&set);
    group_of_set[set.uid] = &found->second;
  }
  Fleet fleet;
  for (const PodView& pod : observed.pods) {
    const auto found = group_of_set.find(pod.set_uid);
    if (found != group_of_set.end()) {
      Place(pod, found->second);
    } else {
      fleet.leftover.push_back(&pod);
    }
  }
  // Where a set was deleted under a group, its pods stand for their ranks until they are gone.
  for (const PodView* pod : fleet.leftover) {
    const auto found = groups.find({pod->revision, pod->group});
    if (found != groups.end()) Place(*pod, &found->second);
  }
  FindRanksBefore(wanted.status, &groups);
  for (auto& [key, group] : groups) {
    FindAnswer(observed, &group);
    std::sort(group.sets.begin(), group.sets.end(),
              [](const SetView* a, const SetView* b) { return a->first_rank < b->first_rank; });
    fleet.groups.push_back(std::move(group));
  }
  std::stable_sort(fleet.groups.begin(), fleet.groups.end(), [](const Group& a, const Group& b) {
    return std::tuple(a.wanted_revision, a.generation->number, a.index) <
           std::tuple(b.wanted_revision, b.generation->number, b.index);
  });
  return fleet;
}

}  // namespace echelon::op
