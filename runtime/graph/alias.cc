#include "runtime/graph/alias.h"

#include <map>
#include <numeric>
#include <set>
#include <string>

namespace echelon::graph {
namespace {

bool IsTensor(const Graph& graph, ValueId id) {
  return graph.values[id].type == ValueType::kTensor;
}

template <class Visit>
void ForEachTensor(const Graph& graph, const Argument& argument, Visit visit) {
  for (const Item& item : argument.items) {
    const ValueRef* ref = std::get_if<ValueRef>(&item);
    if (ref && IsTensor(graph, ref->id)) visit(ref->id);
  }
}

const Argument* FindArgument(const Node& node, const char* name) {
  for (const Argument& argument : node.arguments) {
    if (argument.name == name) return &argument;
  }
  return nullptr;
}

// Normalisation that updates running statistics although its schema shows no write.
bool UpdatesStatistics(const Node& node) {
  static const auto* const flags = new std::map<std::string, const char*>{
      {"torch.ops.aten.batch_norm.default", "training"},
      {"torch.ops.aten.native_batch_norm.default", "training"},
      {"torch.ops.aten.cudnn_batch_norm.default", "training"},
      {"torch.ops.aten.miopen_batch_norm.default", "training"},
      {"torch.ops.aten._batch_norm_impl_index.default", "training"},
      {"torch.ops.aten.instance_norm.default", "use_input_stats"}};
  const auto found = flags->find(node.target);
  if (found == flags->end()) return false;
  const Argument* flag = FindArgument(node, found->second);
  const bool* literal = flag && !flag->is_list ? std::get_if<bool>(&flag->items.front()) : nullptr;
  return !literal || *literal;
}

const Formal* FormalOf(const OperatorSchema& schema, const std::string& name) {
  for (const Formal& formal : schema.arguments) {
    if (formal.name == name) return &formal;
  }
  return nullptr;
}

}  // namespace

Aliases::Aliases(const Graph& graph, const SchemaLookup& schemas)
    : parent_(graph.values.size()), writes_(graph.nodes.size()), written_(graph.values.size()) {
  std::iota(parent_.begin(), parent_.end(), 0);
  std::map<std::string, ValueId> of_record;
  for (size_t id = 0; id < graph.values.size(); ++id) {
    if (graph.values[id].stored < 0) continue;
    const auto value = static_cast<ValueId>(id);
    Join(value,
         of_record.emplace(graph.stored[graph.values[id].stored].record, value).first->second);
  }
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const OperatorSchema* schema = schemas ? schemas(graph.nodes[i].target) : nullptr;
    AddNode(graph, graph.nodes[i], schema, static_cast<int>(i));
  }
  for (const std::vector<ValueId>& values : writes_) {
    for (const ValueId value : values) written_[ClassOf(value)] = true;
  }
}

void Aliases::AddNode(const Graph& graph, const Node& node, const OperatorSchema* schema,
                      int index) {
  const bool hidden = UpdatesStatistics(node);
  for (const Argument& argument : node.arguments) {
    const Formal* formal = schema ? FormalOf(*schema, argument.name) : nullptr;
    const bool statistic = argument.name == "running_mean" || argument.name == "running_var";
    if ((formal && formal->writes) || (hidden && statistic)) {
      ForEachTensor(graph, argument, [&](ValueId id) { writes_[index].push_back(id); });
    }
    const bool any = !schema || schema->may_alias_any;
    for (size_t r = 0; r < node.results.size(); ++r) {
      const bool same_set = formal && formal->alias_set >= 0 && r < schema->results.size() &&
                            schema->results[r].alias_set == formal->alias_set;
      if (!any && !same_set) continue;
      ForEachTensor(graph, argument, [&](ValueId id) {
        for (const ValueId result : node.results[r].values) {
          if (IsTensor(graph, result)) Join(id, result);
        }
      });
    }
  }
}

int Aliases::Root(int value) const {
  while (parent_[value] != value) value = parent_[value] = parent_[parent_[value]];
  return value;
}

void Aliases::Join(ValueId a, ValueId b) { parent_[Root(b)] = Root(a); }

int Aliases::ClassOf(ValueId value) const { return Root(value); }

}  // namespace echelon::graph
