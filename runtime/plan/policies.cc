#include "runtime/plan/policies.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "runtime/graph/byte_source.h"
#include "runtime/graph/status_macros.h"
#include "runtime/plan/cost.h"

namespace echelon::plan {
namespace {

// The legal cut nearest to `wanted` within (low, high); the earlier of two; -1 when there is none.
int Nearest(const std::vector<int>& cuts, int wanted, int low, int high) {
  int best = -1;
  const auto at = std::lower_bound(cuts.begin(), cuts.end(), wanted);
  if (at != cuts.begin() && *(at - 1) > low && *(at - 1) < high) best = *(at - 1);
  if (at != cuts.end() && *at > low && *at < high) {
    if (best < 0 || *at - wanted < wanted - best) best = *at;
  }
  return best;
}

// Fills buckets in node order. A node that does not fit starts the next one; one that is too big
// even for an empty bucket has it alone. Things (parameters, records) count once a bucket. Wanted
// cuts, not yet legal ones.
std::vector<int> FillBuckets(const std::vector<std::vector<int>>& used,
                             const std::vector<int64_t>& amount, int64_t threshold,
                             int most_stages) {
  std::vector<int> cuts;
  std::set<int> inside;
  int64_t filled = 0;
  const auto close = [&](int cut) {
    cuts.push_back(cut);
    inside.clear();
    filled = 0;
  };
  for (int i = 0; i < static_cast<int>(used.size()); ++i) {
    if (static_cast<int>(cuts.size()) + 1 >= most_stages) break;
    std::set<int> fresh;
    int64_t size = 0;
    const auto measure = [&] {
      size = 0;
      fresh.clear();
      for (const int id : used[i]) {
        if (!inside.contains(id) && fresh.insert(id).second) size = SaturatingAdd(size, amount[id]);
      }
    };
    measure();
    if (size == 0) continue;
    if (filled > 0 && size > threshold - filled) {
      close(i);
      measure();
    }
    if (static_cast<int>(cuts.size()) + 1 >= most_stages) break;
    if (filled == 0 && size > threshold) {
      close(i + 1);
    } else {
      filled += size;
      inside.insert(fresh.begin(), fresh.end());
    }
  }
  return cuts;
}

// Bounds from wanted cuts, each moved to the nearest legal one behind the last; those that find
// none are dropped.
std::vector<int> Snap(const std::vector<int>& wanted, const std::vector<int>& cuts, int nodes) {
  std::vector<int> bounds{0};
  for (const int cut : wanted) {
    if (cut >= nodes) continue;
    const int legal = Nearest(cuts, cut, bounds.back(), nodes);
    if (legal > 0) bounds.push_back(legal);
  }
  bounds.push_back(nodes);
  return bounds;
}

// Cuts the stage with the most parameters (then nodes) in two, nearest its middle. Some stage can
// be cut.
void Halve(const Load& load, const std::vector<int>& cuts, std::vector<int>* bounds) {
  std::tuple<int64_t, int> best{-1, -1};
  int chosen = -1;
  for (size_t s = 0; s + 1 < bounds->size(); ++s) {
    const int begin = (*bounds)[s], end = (*bounds)[s + 1];
    const int cut = Nearest(cuts, begin + (end - begin) / 2, begin, end);
    const std::tuple<int64_t, int> size{load.Parameters(begin, end), end - begin};
    if (cut > 0 && size > best) best = size, chosen = cut;
  }
  if (chosen > 0) bounds->insert(std::lower_bound(bounds->begin(), bounds->end(), chosen), chosen);
}

bool LiesIn(const std::string& module, const std::string& path) {
  return module == path || (module.starts_with(path) && module[path.size()] == '.');
}

}  // namespace

std::vector<int> EqualSize(const Load& load, const std::vector<int>& cuts, int stages) {
  const int64_t threshold = load.Parameters(0, load.nodes) / stages;
  std::vector<int> bounds = Snap(
      FillBuckets(load.parameters, load.parameter_elements, threshold, stages), cuts, load.nodes);
  while (static_cast<int>(bounds.size()) - 1 < stages) Halve(load, cuts, &bounds);
  return bounds;
}

absl::StatusOr<std::vector<int>> Threshold(const Load& load, const std::vector<int>& cuts,
                                           int64_t threshold_bytes, int stages) {
  if (threshold_bytes <= 0) {
    return absl::InvalidArgumentError(
        "policy threshold needs --threshold, the bytes a stage may hold");
  }
  const std::vector<int> bounds = Snap(FillBuckets(load.records, load.record_bytes, threshold_bytes,
                                                   std::numeric_limits<int>::max()),
                                       cuts, load.nodes);
  const int given = static_cast<int>(bounds.size()) - 1;
  if (given == stages) return bounds;
  return absl::InvalidArgumentError(
      absl::StrCat("policy threshold with ", BytesText(threshold_bytes), " a stage gives ", given,
                   " stages, not ", stages, "; use --stages ", given, " or another --threshold"));
}

absl::StatusOr<std::vector<int>> Points(const graph::Graph& graph, const std::vector<int>& cuts,
                                        const std::vector<std::string>& points, int stages) {
  if (static_cast<int>(points.size()) != stages - 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("policy points needs one module fewer than stages: ", points.size(),
                     " given for ", stages, " stages"));
  }
  std::vector<int> bounds{0, static_cast<int>(graph.nodes.size())};
  for (const std::string& path : points) {
    const std::string who = absl::StrCat("policy points: module ", graph::Quoted(path));
    const auto first = std::find_if(graph.nodes.begin(), graph.nodes.end(),
                                    [&](const auto& node) { return LiesIn(node.module, path); });
    const int cut = static_cast<int>(first - graph.nodes.begin());
    if (path.empty() || first == graph.nodes.end()) {
      return absl::NotFoundError(
          absl::StrCat(who, " has no nodes; see echelon plan for the modules"));
    }
    if (cut == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(who, " comes first; a cut before it leaves stage 0 empty"));
    }
    if (!std::binary_search(cuts.begin(), cuts.end(), cut)) {
      const int near = Nearest(cuts, cut, 0, static_cast<int>(graph.nodes.size()));
      return absl::InvalidArgumentError(absl::StrCat(
          who, ": a cut before its first node, ", graph.nodes[cut].name, ", would change results",
          near < 0 ? ""
                   : absl::StrCat("; the nearest legal one is before ", graph.nodes[near].name)));
    }
    const auto at = std::lower_bound(bounds.begin(), bounds.end(), cut);
    if (*at == cut)
      return absl::InvalidArgumentError(absl::StrCat(who, " is the same cut as another"));
    bounds.insert(at, cut);
  }
  return bounds;
}

}  // namespace echelon::plan
