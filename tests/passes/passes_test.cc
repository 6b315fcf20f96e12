#include "runtime/passes/passes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/passes/dead_nodes.h"
#include "runtime/passes/place_writes.h"
#include "tests/graph/testing.h"

namespace echelon::passes {
namespace {

using graph::Graph;
using graph::Stored;
using graph::ValueId;
using graph::testing::D;
using graph::testing::GraphMaker;
using graph::testing::Schemas;
using graph::testing::V;
using ::testing::ElementsAre;

std::vector<std::string> Targets(const Graph& graph) {
  std::vector<std::string> targets;
  for (const graph::Node& node : graph.nodes) {
    const std::string target = node.target.substr(node.target.find("aten.") + 5);
    targets.push_back(target.substr(0, target.find('.')));
  }
  return targets;
}

TEST(DropDeadNodes, KeepsWhatAnOutputNeeds) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(4)});
  make.Node("mul.Tensor", {V(x), 2.0}, {D(4)});
  const ValueId size = make.Scalar("sym_size.int", {V(x), int64_t{0}}, 4);
  make.NodeOf("_assert_scalar", {V(size), std::string("no")}, 0, false, {});
  const ValueId used = make.Node("relu", {V(x)}, {D(4)});
  make.Output("output", V(make.Node("add.Tensor", {V(used), 1.0}, {D(4)})));
  DropDeadNodes(&make.graph(), Schemas());
  EXPECT_THAT(Targets(make.graph()), ElementsAre("relu", "add"));
}

TEST(DropDeadNodes, KeepsWritesThatCanBeSeen) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(4)});
  const ValueId buffer = make.Stored("b", {4}, Stored::kBuffer);
  const ValueId fresh = make.Node("mul.Tensor", {V(x), 2.0}, {D(4)});
  const ValueId view = make.Node("view", {V(fresh)}, {D(2), D(2)});
  make.Node("add_.Tensor", {V(view), 1.0}, {D(2), D(2)});  // seen through fresh
  make.Node("add_.Tensor", {V(buffer), 1.0}, {D(4)});      // outlives the run
  make.Output("output", V(fresh));
  make.Node("relu_", {V(x)}, {D(4)});  // nobody reads x again
  DropDeadNodes(&make.graph(), Schemas());
  EXPECT_THAT(Targets(make.graph()), ElementsAre("mul", "view", "add_", "add_"));
}

TEST(DropDeadNodes, KeepsHiddenStatisticsAndUnknownOperatorsWithoutResults) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(4)});
  const ValueId mean = make.Stored("mean", {4}, Stored::kBuffer);
  make.Node("batch_norm", {V(x), graph::None{}, graph::None{}, V(mean), graph::None{}, true},
            {D(4)});
  make.Node("batch_norm", {V(x), graph::None{}, graph::None{}, V(mean), graph::None{}, false},
            {D(4)});
  make.NodeOf("torch.ops.my.log.default", {V(x)}, 0, false, {});
  DropDeadNodes(&make.graph(), Schemas());
  EXPECT_EQ(make.graph().nodes.size(), 2u);
}

// buffer is read by a view, then its new value is written at the end.
struct Functional {
  Functional() {
    const ValueId x = make.Input("x", {D(4)});
    const ValueId buffer = make.Stored("b", {4}, Stored::kBuffer);
    const ValueId fresh = make.Node("add.Tensor", {V(buffer), V(x)}, {D(4)});
    const ValueId view = make.Node("view", {V(buffer)}, {D(2), D(2)});
    const ValueId read = make.Node("relu", {V(view)}, {D(2), D(2)});
    const ValueId out = make.Node("mul.Tensor", {V(read), 2.0}, {D(2), D(2)});
    make.Node("copy_", {V(buffer), V(fresh)}, {D(4)});
    make.Output("output", V(out));
  }
  GraphMaker make;
};

TEST(PlaceWrites, MovesACopyBehindTheBuffersLastReader) {
  Functional functional;
  PlaceWrites(&functional.make.graph(), Schemas());
  EXPECT_THAT(Targets(functional.make.graph()), ElementsAre("add", "view", "relu", "copy_", "mul"));
}

TEST(PlaceWrites, LeavesACopyWhoseResultIsUsed) {
  Functional functional;
  Graph& graph = functional.make.graph();
  graph.outputs[0].item = V(graph.nodes.back().results[0].values[0]);
  PlaceWrites(&graph, Schemas());
  EXPECT_THAT(Targets(graph), ElementsAre("add", "view", "relu", "mul", "copy_"));
}

TEST(PlaceWrites, WaitsForWritesToItsSource) {
  Functional functional;
  Graph& graph = functional.make.graph();
  const ValueId fresh = graph.nodes[0].results[0].values[0];
  functional.make.Node("relu_", {V(fresh)}, {D(4)});
  std::swap(graph.nodes[4], graph.nodes[5]);  // the copy stays last
  RunAll(&graph, Schemas());
  EXPECT_THAT(Targets(graph), ElementsAre("add", "view", "relu", "mul", "relu_", "copy_"));
}

}  // namespace
}  // namespace echelon::passes
