#include "runtime/graph/signature.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/graph/testing.h"

namespace echelon::graph {
namespace {

using testing::D;
using testing::GraphMaker;

NamedTensor T(const std::string& name, std::vector<int64_t> shape, DType dtype = DType::kF32) {
  return {name, Tensor::Empty(dtype, std::move(shape))};
}
std::string ErrorOf(const Graph& graph, const std::vector<NamedTensor>& inputs) {
  const absl::Status status = BindInputs(graph, inputs, nullptr);
  return status.ok() ? "ok" : std::string(status.message());
}

// x [s0, 3], y [s0, s1], z [2*s2, 3], w [s0 + 1]
Graph Door() {
  GraphMaker make;
  make.Input("z", {D("2*s2"), D(3)});
  make.Input("w", {D("s0 + 1")});
  make.Input("x", {D("s0"), D(3)});
  make.Input("y", {D("s0"), D("s1")}, DType::kI64);
  make.graph().symbols = {{"s0", {1, 64}}, {"s1", {2, INT64_MAX}}, {"s2", {1, 4}}};
  return make.graph();
}
std::vector<NamedTensor> Inputs() {
  return {T("x", {4, 3}), T("y", {4, 9}, DType::kI64), T("z", {6, 3}), T("w", {5})};
}

TEST(BindInputs, BindsEverySymbolInAnyOrder) {
  SymbolValues symbols;
  ASSERT_TRUE(BindInputs(Door(), Inputs(), &symbols).ok());
  EXPECT_EQ(symbols, (SymbolValues{{"s0", 4}, {"s1", 9}, {"s2", 3}}));
}

TEST(BindInputs, NamesInputAndDimension) {
  const auto with = [](NamedTensor changed) {
    std::vector<NamedTensor> inputs = Inputs();
    for (NamedTensor& input : inputs) {
      if (input.name == changed.name) input = changed;
    }
    return ErrorOf(Door(), inputs);
  };
  EXPECT_EQ(with(T("x", {4, 3}, DType::kF64)), "input 'x': is f64, the model takes f32[s0, 3]");
  EXPECT_EQ(with(T("x", {4})), "input 'x': has 1 dimensions (4), the model takes f32[s0, 3]");
  EXPECT_EQ(with(T("x", {4, 5})),
            "input 'x': dimension 1 is 5, must be 3; the model takes f32[s0, 3]");
  EXPECT_EQ(with(T("y", {3, 9}, DType::kI64)),
            "input 'y': dimension 0 is 3, but dimension 0 of input 'x' is 4; both are s0");
  EXPECT_EQ(with(T("y", {4, 1}, DType::kI64)),
            "input 'y': dimension 1 is 1, but s1 must be at least 2");
  EXPECT_EQ(with(T("w", {6})), "input 'w': dimension 0 is 6, must be s0 + 1 = 5");
  EXPECT_EQ(with(T("z", {5, 3})), "input 'z': dimension 0 is 5, must be 2*s2 for a whole s2");
  EXPECT_EQ(with(T("z", {10, 3})), "input 'z': dimension 0 is 10, but s2 must lie in 1..4");
}

TEST(BindInputs, ChecksNames) {
  std::vector<NamedTensor> inputs = Inputs();
  inputs.push_back(T("q", {1}));
  EXPECT_EQ(ErrorOf(Door(), inputs), "input 'q': unknown; the model takes z, w, x, y");
  inputs.back() = inputs.front();
  EXPECT_EQ(ErrorOf(Door(), inputs), "input 'x': given twice");
  EXPECT_EQ(ErrorOf(Door(), {}), "input 'z': missing; the model takes z, w, x, y");
}

TEST(BindInputs, RefusesABatchOutOfRange) {
  const Graph net = testing::Net();
  EXPECT_EQ(ErrorOf(net, {T("x", {64, 128})}), "ok");
  EXPECT_EQ(ErrorOf(net, {T("x", {65, 128})}),
            "input 'x': dimension 0 is 65, but s0 must lie in 1..64");
  EXPECT_EQ(ErrorOf(net, {T("x", {0, 128})}),
            "input 'x': dimension 0 is 0, but s0 must lie in 1..64");
}

TEST(BindInputs, ReadsSizesPassedAsArguments) {
  GraphMaker make;
  make.Input("n", {});
  make.graph().values[0].type = ValueType::kInt;
  make.graph().values[0].expr = "s0";
  make.graph().symbols["s0"] = {2, 8};
  NamedTensor n = T("n", {}, DType::kI64);
  const int64_t value = 9;
  std::memcpy(n.tensor.data, &value, sizeof value);
  EXPECT_EQ(ErrorOf(make.graph(), {n}), "input 'n': its value is 9, but s0 must lie in 2..8");
}

}  // namespace
}  // namespace echelon::graph
