#include "runtime/passes/dead_nodes.h"

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

bool IsAssertion(const std::string& target) {
  return target.starts_with("torch.ops.aten._assert_") ||
         target.starts_with("torch.ops.aten._functional_assert_") ||
         target.starts_with("torch.ops.aten.sym_constrain_range") ||
         target.starts_with("torch.ops.aten._functional_sym_constrain_range");
}

}  // namespace

void DropDeadNodes(Graph* graph, const graph::SchemaLookup& schemas) {
  const graph::Aliases aliases(*graph, schemas);
  std::vector<bool> needed(graph->values.size()), needed_class(graph->values.size());
  const auto need = [&](ValueId id) {
    needed[id] = true;
    needed_class[aliases.ClassOf(id)] = true;
  };
  for (const graph::Output& output : graph->outputs) {
    if (const auto* ref = std::get_if<graph::ValueRef>(&output.item)) need(ref->id);
  }
  // What is stored lives on after the run.
  for (size_t id = 0; id < graph->values.size(); ++id) {
    if (graph->values[id].stored >= 0)
      needed_class[aliases.ClassOf(static_cast<ValueId>(id))] = true;
  }
  std::vector<Node> kept;
  for (int i = static_cast<int>(graph->nodes.size()) - 1; i >= 0; --i) {
    Node& node = graph->nodes[i];
    if (IsAssertion(node.target)) continue;
    bool stays = false;
    graph::ForEachResult(node, [&](ValueId id) { stays |= needed[id]; });
    for (const ValueId id : aliases.WritesOf(i)) stays |= needed_class[aliases.ClassOf(id)];
    // An unknown operator without results must do something.
    stays |= node.results.empty() && !(schemas && schemas(node.target));
    if (!stays) continue;
    graph::ForEachUse(node, need);
    kept.push_back(std::move(node));
  }
  graph->nodes.assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
}

}  // namespace echelon::passes
