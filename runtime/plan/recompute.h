// What a stage computes again instead of receiving: values that follow from the tokens' positions
// alone (rotary cosines and sines, masks). They are cheap to make and dear to send.
#ifndef ECHELON_RUNTIME_PLAN_RECOMPUTE_H_
#define ECHELON_RUNTIME_PLAN_RECOMPUTE_H_

#include <vector>

#include "runtime/graph/graph.h"

namespace echelon::plan {

// Empty for what is no language model.
class Recomputed {
 public:
  explicit Recomputed(const graph::Graph& graph);

  // The input they all follow from; -1 when there are none.
  graph::ValueId positions() const { return positions_; }
  bool Contains(graph::ValueId value) const { return !made_by_.empty() && made_by_[value] >= 0; }
  // The nodes before `begin` that make what nodes [begin, end) use, in order.
  std::vector<int> NodesFor(int begin, int end) const;

 private:
  const graph::Graph& graph_;
  graph::ValueId positions_ = -1;
  std::vector<int> made_by_;  // node of each value that is recomputed; -1: it is not
};

}  // namespace echelon::plan

#endif  // ECHELON_RUNTIME_PLAN_RECOMPUTE_H_
