#include "runtime/graph/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/graph/testing.h"

namespace echelon::graph {
namespace {

using testing::D;
using testing::GraphMaker;
using ::testing::HasSubstr;
using testing::Schemas;
using testing::V;

std::string WhyNot(const Graph& graph) { return BatchSymbol(graph, Schemas()).why; }

TEST(BatchSymbol, FindsTheBatchOfNet) {
  const BatchInfo info = BatchSymbol(testing::Net(), Schemas());
  EXPECT_EQ(info.symbol, "s0");
  EXPECT_EQ(info.inputs, std::vector<bool>{true});
  EXPECT_EQ(info.outputs, std::vector<bool>{true});
  EXPECT_TRUE(info.chunkable) << info.why;
}

// One node on x [s0, 8], its result the output.
std::string WhyNotAfter(const std::string& target, std::vector<Item> rest, std::vector<Dim> shape) {
  GraphMaker make;
  rest.insert(rest.begin(), V(make.Input("x", {D("s0"), D(8)})));
  make.Output("output", V(make.Node(target, rest, shape)));
  return WhyNot(make.graph());
}

TEST(BatchSymbol, SeesWhereRowsMeet) {
  EXPECT_EQ(WhyNotAfter("softmax.int", {int64_t{1}}, {D("s0"), D(8)}), "");
  EXPECT_THAT(WhyNotAfter("softmax.int", {int64_t{0}}, {D("s0"), D(8)}),
              HasSubstr("works along the batch"));
  EXPECT_THAT(WhyNotAfter("softmax.int", {int64_t{-2}}, {D("s0"), D(8)}),
              HasSubstr("works along the batch"));
  EXPECT_THAT(WhyNotAfter("mean.dim", {int64_t{0}}, {D(8)}),
              HasSubstr("output 'output' has no batch"));
  EXPECT_THAT(WhyNotAfter("mul.Tensor", {2.0}, {D("2*s0"), D(8)}), HasSubstr("has no batch"));
}

TEST(BatchSymbol, SeesRowsMeetInTheMiddle) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D("s0"), D(8)});
  const ValueId mean = make.Node("mean.dim", {V(x), int64_t{0}}, {D(8)});
  const ValueId unused = make.Node("mean.dim", {V(x), int64_t{0}}, {D(8)});
  static_cast<void>(unused);
  const ValueId out = make.Node("add.Tensor", {V(x), V(mean)}, {D("s0"), D(8)});
  make.Output("output", V(out));
  EXPECT_THAT(WhyNot(make.graph()),
              HasSubstr("node v1 (torch.ops.aten.mean.dim) works along the batch"));
}

TEST(BatchSymbol, SeesNumbersOfRowsAndOfTheBatch) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D("s0"), D(8)});
  const ValueId size = make.Scalar("sym_size.int", {V(x), int64_t{0}}, 4, "s0");
  const ValueId scaled = make.Node("mul.Tensor", {V(x), V(size)}, {D("s0"), D(8)});
  make.Output("output", V(scaled));
  EXPECT_THAT(WhyNot(make.graph()), HasSubstr("computes with the batch size"));

  GraphMaker numbered;
  const ValueId y = numbered.Input("y", {D("s0")});
  const ValueId count = numbered.Scalar("sym_size.int", {V(y), int64_t{0}}, 4, "s0");
  const ValueId index = numbered.Node("arange", {V(count)}, {D("s0")});
  numbered.Output("output", V(numbered.Node("add.Tensor", {V(y), V(index)}, {D("s0")})));
  EXPECT_THAT(WhyNot(numbered.graph()), HasSubstr("computes with the index of a row"));
}

TEST(BatchSymbol, FollowsRowsThroughTransposesAndReshapes) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D("s0"), D(6), D(8)});
  const ValueId turned =
      make.Node("transpose.int", {V(x), int64_t{0}, int64_t{1}}, {D(6), D("s0"), D(8)});
  const ValueId flat = make.Node("reshape", {V(turned)}, {D("6*s0", 24), D(8)});
  const ValueId back = make.Node("view", {V(flat)}, {D(6), D("s0"), D(8)});
  const ValueId out =
      make.Node("transpose.int", {V(back), int64_t{0}, int64_t{1}}, {D("s0"), D(6), D(8)});
  make.Output("output", V(out));
  EXPECT_EQ(WhyNot(make.graph()), "");
  make.graph().values[back].shape = {D("s0"), D(6), D(8)};  // as if rows were contiguous in flat
  EXPECT_THAT(WhyNot(make.graph()), HasSubstr("reshapes across rows"));
}

TEST(BatchSymbol, RefusesStateAndOddInputs) {
  GraphMaker state;
  const ValueId x = state.Input("x", {D("s0")});
  const ValueId buffer = state.Stored("steps", {1}, Stored::kBuffer);
  state.Node("add_.Tensor", {V(buffer), 1.0}, {D(1)});
  state.Output("output", V(state.Node("relu", {V(x)}, {D("s0")})));
  EXPECT_EQ(WhyNot(state.graph()), "buffer 'steps' is written");

  GraphMaker odd;
  odd.Input("x", {D("s0")});
  odd.Input("y", {D(3), D("s0")});
  EXPECT_EQ(WhyNot(odd.graph()), "input 'y' has the batch size elsewhere than in dimension 0");

  GraphMaker fixed;
  fixed.Input("x", {D(4)});
  EXPECT_EQ(WhyNot(fixed.graph()), "no input has a dynamic batch dimension");
}

}  // namespace
}  // namespace echelon::graph
