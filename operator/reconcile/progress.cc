#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "operator/reconcile/status.h"

namespace echelon::op {
namespace {

// What only grows while a rollout gets on. Room that was found is no step: it may be given back.
struct Reached {
  int ready_ranks = 0;  // of the wanted revision
  int groups = 0;       // of the wanted revision
  int old_groups = 0;   // shrinks
};

Reached ReachedIn(const Status& status) {
  Reached reached;
  const std::string& wanted = status.update_revision;
  for (const GroupState& group : status.groups) {
    ++(group.revision == wanted ? reached.groups : reached.old_groups);
  }
  for (const RankState& rank : status.ranks) {
    const bool of_wanted = rank.group.compare(0, 6, wanted, 0, 6) == 0;
    if (of_wanted && rank.phase == "Ready") ++reached.ready_ranks;
  }
  return reached;
}

bool HasLoadedMore(const Status& before, const Status& after) {
  std::unordered_map<std::string_view, int64_t> loaded;
  for (const RankState& rank : before.ranks) loaded[rank.pod] = rank.loaded_bytes;
  return std::any_of(after.ranks.begin(), after.ranks.end(), [&](const RankState& rank) {
    const auto found = loaded.find(rank.pod);
    return rank.loaded_bytes > (found == loaded.end() ? 0 : found->second);
  });
}

bool IsAStepForward(const Status& before, const Status& after) {
  if (before.update_revision != after.update_revision ||
      before.observed_generation != after.observed_generation) {
    return true;
  }
  const Reached then = ReachedIn(before), now = ReachedIn(after);
  return now.ready_ranks > then.ready_ranks || now.groups > then.groups ||
         now.old_groups < then.old_groups || HasLoadedMore(before, after);
}

}  // namespace

std::optional<absl::Time> ProgressAt(const Pass& pass, const Tally& tally, const Status& status) {
  // A Job has bounds of its own.
  const bool idle = tally.complete || pass.refusal || pass.wanted.spec.suspend ||
                    pass.exporting.state != Export::State::kDone;
  if (idle) return std::nullopt;
  const Status& before = pass.wanted.status;
  if (before.progress_at && !IsAStepForward(before, status)) return before.progress_at;
  return pass.present.second();
}

}  // namespace echelon::op
