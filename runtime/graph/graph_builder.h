// Turns the nodes of a model.json into Graph's nodes and values. Private to the reader.
#ifndef ECHELON_RUNTIME_GRAPH_GRAPH_BUILDER_H_
#define ECHELON_RUNTIME_GRAPH_GRAPH_BUILDER_H_

#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "runtime/graph/graph.h"
#include "runtime/graph/json_reader.h"
#include "runtime/graph/tensor_meta.h"

namespace echelon::graph {

class GraphBuilder {
 public:
  // Faults go to `reader`; check its ok() after each call. `graph` is what Graph has as a JSON
  // object.
  GraphBuilder(JsonReader& reader, const Json& graph) : reader_(reader), top_(Describe(graph)) {}

  // A placeholder of the outermost graph, {"as_tensor": {"name": "x"}}; nullopt for a literal (a
  // constant argument).
  std::optional<ValueId> AddPlaceholder(const Json& argument);
  // All nodes, in order. Subgraphs of wrap_with_set_grad_enabled are inlined, other higher-order
  // operators refused.
  void AddNodes(const Json& graph) { AddNodes(graph, top_); }
  // A node of our own at the end.
  void Append(Node node) { graph_.nodes.push_back(std::move(node)); }

  // What an argument outside any node refers to: a value or a literal.
  Item Resolve(const Json& argument);
  ValueId Find(const std::string& name);  // -1 and a fault when nothing has that name
  ValueId AddLike(ValueId value, const std::string& name);

  // Makes names unique and hands the graph over.
  Graph Finish();
  Graph& graph() { return graph_; }

 private:
  struct Scope {  // of one graph: a subgraph may give a name again
    const Json *tensors = nullptr, *ints = nullptr, *floats = nullptr, *bools = nullptr;
    absl::flat_hash_map<std::string, ValueId> names;
  };
  Scope Describe(const Json& graph);
  void AddNodes(const Json& graph, Scope& scope);
  void AddNode(const Json& json, Scope& scope);
  void Inline(const Json& json, Scope& scope);

  Argument ReadArgument(const Json& argument, const Scope& scope);
  Item ReadItem(const std::string& tag, const Json& value, const Scope& scope);
  void ReadList(const std::string& tag, const Json& list, const Scope& scope, Argument* argument);
  Item Reference(const Json& name, const Scope& scope);

  Result ReadResult(const Json& output, Scope& scope);
  ValueId Define(const std::string& name, ValueType type, Scope& scope);
  void DescribeTensor(const std::string& name, const Scope& scope, Value* value);

  JsonReader& reader_;
  DimReader dims_;
  Graph graph_;
  Scope top_;
};

// Innermost module of an "nn_module_stack" text ("key,path,type;key,path,type"), as a path; "" for
// the root.
std::string InnermostModule(std::string_view stack);

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_GRAPH_BUILDER_H_
