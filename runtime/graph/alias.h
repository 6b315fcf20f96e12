// Which values may share memory, and who writes it: from operators' schemas. Everything errs on the
// side of sharing.
#ifndef ECHELON_RUNTIME_GRAPH_ALIAS_H_
#define ECHELON_RUNTIME_GRAPH_ALIAS_H_

#include <string>
#include <vector>

#include "runtime/graph/graph.h"

namespace echelon::graph {

class Aliases {
 public:
  // An operator that `schemas` does not know counts as a view of all its tensor arguments that
  // writes none of them. Stored values of one record share memory.
  Aliases(const Graph& graph, const SchemaLookup& schemas);

  // Values of one class may share memory; fresh ones have a class of their own.
  int ClassOf(ValueId value) const;
  int classes() const { return static_cast<int>(parent_.size()); }  // class ids are below

  // The values a node may write to, by the arguments that say so. Also what schemas hide: the
  // running statistics of a batch norm in training mode.
  const std::vector<ValueId>& WritesOf(int node) const { return writes_[node]; }
  bool IsWritten(int cls) const { return written_[cls]; }  // by any node of the graph

 private:
  int Root(int value) const;
  void Join(ValueId a, ValueId b);
  void AddNode(const Graph& graph, const Node& node, const OperatorSchema* schema, int index);

  mutable std::vector<int> parent_;
  std::vector<std::vector<ValueId>> writes_;  // by node
  std::vector<bool> written_;                 // by class
};

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_ALIAS_H_
