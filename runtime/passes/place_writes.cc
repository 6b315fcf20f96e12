#include "runtime/passes/place_writes.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "runtime/graph/alias.h"

namespace echelon::passes {
namespace {

using graph::Graph;
using graph::Node;
using graph::ValueId;

constexpr char kCopy[] = "torch.ops.aten.copy_.default";

const graph::ValueRef* RefOf(const Node& node, size_t argument) {
  if (node.arguments.size() <= argument || node.arguments[argument].is_list) return nullptr;
  return std::get_if<graph::ValueRef>(&node.arguments[argument].items.front());
}

// By class, the last node that made, read or wrote a value of it, among the nodes seen so far; -1:
// none.
class LastTouch {
 public:
  LastTouch(const Graph& graph, const graph::Aliases& aliases)
      : graph_(graph),
        aliases_(aliases),
        touched_(graph.values.size(), -1),
        changed_(graph.values.size(), -1) {}

  void See(int node) {
    const auto touch = [&](ValueId id) { touched_[aliases_.ClassOf(id)] = node; };
    graph::ForEachUse(graph_.nodes[node], touch);
    graph::ForEachResult(graph_.nodes[node], [&](ValueId id) {
      touch(id);
      changed_[aliases_.ClassOf(id)] = node;
    });
    for (const ValueId id : aliases_.WritesOf(node)) changed_[aliases_.ClassOf(id)] = node;
  }
  int Touched(ValueId id) const { return touched_[aliases_.ClassOf(id)]; }
  int Changed(ValueId id) const { return changed_[aliases_.ClassOf(id)]; }

 private:
  const Graph& graph_;
  const graph::Aliases& aliases_;
  std::vector<int> touched_, changed_;
};

// A copy into a stored tensor whose result nobody uses: free to move.
bool IsMovable(const Graph& graph, const Node& node, const std::vector<bool>& used) {
  if (node.target != kCopy || node.arguments.size() != 2) return false;
  const graph::ValueRef *to = RefOf(node, 0), *from = RefOf(node, 1);
  if (!to || !from || graph.values[to->id].stored < 0) return false;
  bool free = true;
  graph::ForEachResult(node, [&](ValueId id) { free &= !used[id]; });
  return free;
}

std::vector<bool> UsedValues(const Graph& graph) {
  std::vector<bool> used(graph.values.size());
  const auto use = [&](ValueId id) { used[id] = true; };
  for (const Node& node : graph.nodes) graph::ForEachUse(node, use);
  for (const graph::Output& output : graph.outputs) {
    if (const auto* ref = std::get_if<graph::ValueRef>(&output.item)) use(ref->id);
  }
  return used;
}

}  // namespace

void PlaceWrites(Graph* graph, const graph::SchemaLookup& schemas) {
  const graph::Aliases aliases(*graph, schemas);
  const std::vector<bool> used = UsedValues(*graph);
  const int count = static_cast<int>(graph->nodes.size());
  LastTouch last(*graph, aliases);
  std::vector<std::pair<int, int>> order;  // (place after this node, own index): stable
  for (int i = 0; i < count; ++i) {
    const Node& node = graph->nodes[i];
    int after = i;
    if (IsMovable(*graph, node, used)) {
      after = std::max(last.Touched(RefOf(node, 0)->id), last.Changed(RefOf(node, 1)->id));
    }
    order.emplace_back(after, i);
    last.See(i);
  }
  // A node stands at its own index; a moved one right behind the node it waits for, moved ones in
  // their old order.
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : a.second < b.second;
  });
  std::vector<Node> placed;
  for (const auto& [after, index] : order) placed.push_back(std::move(graph->nodes[index]));
  graph->nodes = std::move(placed);
}

}  // namespace echelon::passes
