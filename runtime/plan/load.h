// What a graph weighs, node by node: the ground that policies and stages are computed on.
#ifndef ECHELON_RUNTIME_PLAN_LOAD_H_
#define ECHELON_RUNTIME_PLAN_LOAD_H_

#include <cstdint>
#include <vector>

#include "runtime/graph/graph.h"
#include "runtime/plan/plan.h"

namespace echelon::plan {

struct Load {
  explicit Load(const graph::Graph& graph);

  int nodes = 0;
  // What each node needs in memory. Records and parameters are numbered; a tied parameter has one
  // number. Stored tensors that are outputs of the graph themselves count for the last node.
  std::vector<std::vector<int>> records, parameters;
  std::vector<int64_t> record_bytes, parameter_elements;
  // For each cut (index 0 to nodes; nothing is sent at 0 and at nodes), the bytes that cross it.
  std::vector<int64_t> send_bytes;

  // Of nodes [begin, end) and the `extra` ones.
  int64_t WeightBytes(int begin, int end, const std::vector<int>& extra = {}) const;
  int64_t Parameters(int begin, int end, const std::vector<int>& extra = {}) const;
};

// Everything of a stage that follows from the graph and its range of nodes: all but share.
Stage DescribeStage(const graph::Graph& graph, const Load& load, int rank, int stages, int begin,
                    int end);

}  // namespace echelon::plan

#endif  // ECHELON_RUNTIME_PLAN_LOAD_H_
