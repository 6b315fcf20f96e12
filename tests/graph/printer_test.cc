#include "runtime/graph/printer.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/graph/testing.h"

namespace echelon::graph {
namespace {

using testing::D;
using testing::GraphMaker;
using testing::V;

TEST(PrintCode, ShowsTheStagesOfNet) {
  const Graph net = testing::Net();
  const ValueId x = net.inputs[0].value, linear = net.nodes[0].results[0].values[0];
  EXPECT_EQ(PrintCode(net, 0, 1, {x}, {linear}),
            "def forward(self, x):                                          # x: f32[s0, 128]\n"
            "    linear = aten.linear(x, self.net1.weight, self.net1.bias)  # f32[s0, 128]\n"
            "    return linear\n");
  EXPECT_EQ(
      PrintCode(net, 1, 3, {linear}, {net.nodes[2].results[0].values[0]}),
      "def forward(self, linear):                                          # linear: f32[s0, 128]\n"
      "    relu = aten.relu(linear)                                        # f32[s0, 128]\n"
      "    linear_1 = aten.linear(relu, self.net2.weight, self.net2.bias)  # f32[s0, 8]\n"
      "    return linear_1\n");
}

TEST(PrintCode, ShowsListsTuplesAndScalars) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D("s0"), D(4)});
  make.NodeOf("split.Tensor", {V(x), int64_t{2}, int64_t{1}}, 2, true, {D("s0"), D(2)});
  make.NodeOf("topk", {V(x), int64_t{2}}, 2, false, {D("s0"), D(2)});
  const ValueId size = make.Scalar("sym_size.int", {V(x), int64_t{0}}, 4, "s0");
  make.Scalar("_operator.mul", {V(size), int64_t{2}}, 8, "2*s0");
  make.NodeOf("_assert_scalar", {V(size), std::string("odd\n")}, 0, false, {});
  make.graph().nodes[0].arguments[2].keyword = true;
  EXPECT_EQ(PrintCode(make.graph(), 0, 5, {x}, {}),
            "def forward(self, x):                          # x: f32[s0, 4]\n"
            "    [v1, v2] = aten.split.Tensor(x, 2, dim=1)  # f32[s0, 2], f32[s0, 2]\n"
            "    v3, v4 = aten.topk(x, 2)                   # f32[s0, 2], f32[s0, 2]\n"
            "    v5 = aten.sym_size.int(x, 0)               # int s0\n"
            "    v6 = v5 * 2                                # int 2*s0\n"
            "    aten._assert_scalar(v5, 'odd\\n')\n"
            "    return\n");
}

TEST(ItemText, WritesLiteralsAsPythonDoes) {
  const Graph graph;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const std::pair<Item, const char*> cases[] = {
      {None{}, "None"},
      {true, "True"},
      {int64_t{-3}, "-3"},
      {1.0, "1.0"},
      {0.1, "0.1"},
      {1e-12, "1e-12"},
      {-kInfinity, "float('-inf')"},
      {std::string("mean"), "'mean'"},
      {DType::kBF16, "torch.bfloat16"},
      {Layout{}, "torch.strided"},
      {MemoryFormat::kChannelsLast, "torch.channels_last"},
      {Device{"cuda:0"}, "torch.device('cuda:0')"}};
  for (const auto& [item, wanted] : cases) EXPECT_EQ(ItemText(graph, item), wanted);
}

}  // namespace
}  // namespace echelon::graph
