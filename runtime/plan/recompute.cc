#include "runtime/plan/recompute.h"

#include <set>

namespace echelon::plan {
namespace {

using graph::Node;
using graph::ValueId;

// "torch.ops.aten.add_.Tensor": named so by convention.
bool WritesInPlace(const Node& node) { return node.target.find("_.") != std::string::npos; }

}  // namespace

Recomputed::Recomputed(const graph::Graph& graph) : graph_(graph) {
  if (!graph.text) return;
  for (const graph::Input& input : graph.inputs)
    if (input.name == graph::kPositions) positions_ = input.value;
  if (positions_ < 0) return;
  made_by_.assign(graph.values.size(), -1);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    bool follows = false, only = !WritesInPlace(node);
    graph::ForEachUse(node, [&](ValueId id) {
      const bool is_positional = id == positions_ || made_by_[id] >= 0;
      follows |= is_positional;
      only &= is_positional || graph.values[id].stored >= 0;
    });
    if (follows && only)
      graph::ForEachResult(node, [&](ValueId id) { made_by_[id] = static_cast<int>(i); });
  }
}

std::vector<int> Recomputed::NodesFor(int begin, int end) const {
  if (made_by_.empty()) return {};
  std::set<int> nodes;
  std::vector<int> pending;
  const auto need = [&](ValueId id) {
    const int node = made_by_[id];
    if (node >= 0 && node < begin && nodes.insert(node).second) pending.push_back(node);
  };
  for (int i = begin; i < end; ++i) graph::ForEachUse(graph_.nodes[i], need);
  while (!pending.empty()) {
    const int node = pending.back();
    pending.pop_back();
    graph::ForEachUse(graph_.nodes[node], need);
  }
  return {nodes.begin(), nodes.end()};
}

}  // namespace echelon::plan
