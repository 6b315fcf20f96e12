#include "runtime/exec/stage_module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/exec/oracle.h"
#include "tests/graph/testing.h"

namespace echelon::exec {
namespace {

using graph::Graph;
using graph::Stored;
using graph::ValueId;
using graph::testing::D;
using graph::testing::GraphMaker;
using graph::testing::V;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;

// Every weight is 1.
class Ones final : public weights::WeightSource {
 public:
  absl::Status Read(const std::string&, uint64_t, absl::Span<std::byte> to) override {
    const float one = 1;
    for (size_t i = 0; i + sizeof one <= to.size(); i += sizeof one)
      std::memcpy(&to[i], &one, sizeof one);
    bytes_ += to.size();
    return absl::OkStatus();
  }
  uint64_t bytes_read() const override { return bytes_; }

 private:
  uint64_t bytes_ = 0;
};

Tensor Floats(std::vector<int64_t> shape, float value) {
  Tensor tensor = Tensor::Empty(DType::kF32, std::move(shape));
  auto* data = reinterpret_cast<float*>(tensor.data);
  std::fill(data, data + tensor.elements(), value);
  return tensor;
}

std::vector<float> Numbers(const Tensor& tensor) {
  const auto* data = reinterpret_cast<const float*>(tensor.data);
  return {data, data + tensor.elements()};
}

// Row-major, as most are saved.
void Lay(Graph& graph) {
  for (Stored& stored : graph.stored) {
    stored.strides.assign(stored.shape.size(), 1);
    for (size_t i = stored.shape.size(); i-- > 1;)
      stored.strides[i - 1] = stored.strides[i] * stored.shape[i];
  }
}

std::unique_ptr<StageModule> Load(const Graph& graph, const LoadOptions& options = {.threads = 1}) {
  Ones ones;
  auto module = LoadStage(
      graph, oracle::StagesOf(graph, {0, static_cast<int>(graph.nodes.size())})[0], ones, options);
  EXPECT_TRUE(module.ok()) << module.status();
  return module.ok() ? *std::move(module) : nullptr;
}

link::Frame Frame(ValueId value, Tensor tensor) {
  link::Frame frame;
  frame.tensors.push_back({static_cast<uint32_t>(value), std::move(tensor)});
  return frame;
}

std::string ErrorOf(StageModule& module, link::Frame frame) {
  const absl::Status status = module.Run(frame);
  EXPECT_EQ(status.message().find('\n'), status.message().npos);
  return status.ok() ? "none" : status.ToString();
}

TEST(StageModule, NamesStageNodeAndModuleOfAnOperatorThatFails) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D("s0"), D(3)});
  make.Output("output", V(make.Node("matmul", {V(x), V(x)}, {D("s0"), D(3)}, "encoder.layer.1")));
  make.graph().nodes[0].name = "product";
  const auto module = Load(make.graph());
  EXPECT_EQ(ErrorOf(*module, Frame(x, Floats({3, 3}, 1))), "none");
  EXPECT_THAT(
      ErrorOf(*module, Frame(x, Floats({2, 3}, 1))),
      HasSubstr(
          "INTERNAL: stage 0, node product of encoder.layer.1 (torch.ops.aten.matmul.default): "));
  EXPECT_EQ(ErrorOf(*module, Frame(x, Floats({3, 3}, 1))), "none")
      << "a failure leaves nothing behind";
}

TEST(StageModule, SaysSoWhenThereIsNoMemoryForWhatItSends) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(1)});
  make.Output("output", V(make.Node("expand", {V(x), int64_t{0}}, {D(3)})));
  graph::Argument& size = make.graph().nodes[0].arguments[1];
  size.is_list = true;
  size.items = {int64_t{1} << 50};  // a view of one number, until it is to be sent
  const auto module = Load(make.graph());
  const std::string said = ErrorOf(*module, Frame(x, Floats({1}, 1)));
  EXPECT_THAT(said, HasSubstr("INTERNAL: stage 0: "));
  EXPECT_THAT(said, HasSubstr("memory"));
}

TEST(StageModule, NamesThePythonOperatorThatFails) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(3)});
  const ValueId rows = make.Scalar("torch.ops.aten.sym_size.int", {V(x), int64_t{0}}, 3);
  make.Output("output", V(make.Scalar("_operator.floordiv", {V(rows), int64_t{0}}, 0)));
  const auto module = Load(make.graph());
  EXPECT_THAT(ErrorOf(*module, Frame(x, Floats({3}, 1))),
              HasSubstr("(_operator.floordiv): integer division by zero"));
}

TEST(StageModule, RefusesFramesThatDoNotFitThePlan) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(3)}), y = make.Input("y", {D(3)});
  const ValueId sum = make.Node("add.Tensor", {V(x), V(y)}, {D(3)});
  make.Output("output", V(sum));
  const auto module = Load(make.graph());
  const auto both = [&](Tensor second, ValueId id) {
    link::Frame frame = Frame(x, Floats({3}, 1));
    frame.tensors.push_back({static_cast<uint32_t>(id), std::move(second)});
    return frame;
  };
  EXPECT_EQ(ErrorOf(*module, both(Floats({3}, 2), y)), "none");
  EXPECT_EQ(ErrorOf(*module, Frame(x, Floats({3}, 1))),
            "INVALID_ARGUMENT: stage 0: a step brings 1 values, the plan has 2");
  EXPECT_THAT(ErrorOf(*module, both(Tensor::Empty(DType::kF64, {3}), y)),
              HasSubstr("value y arrives as f64[3], the graph has f32 of 1 dimensions"));
  EXPECT_THAT(ErrorOf(*module, both(Floats({3, 1}, 1), y)),
              HasSubstr("value y arrives as f32[3x1]"));
  EXPECT_THAT(ErrorOf(*module, both(Floats({3}, 1), sum)),
              HasSubstr("which the plan does not send here"));
  EXPECT_THAT(ErrorOf(*module, both(Floats({3}, 1), 1000000)),
              HasSubstr("a step brings value 1000000"));
  EXPECT_THAT(ErrorOf(*module, both(Floats({3}, 1), x)), HasSubstr("value x comes twice"));
  link::Frame number = Frame(x, Floats({3}, 1));
  number.scalars.push_back({static_cast<uint32_t>(y), int64_t{1}});
  EXPECT_THAT(ErrorOf(*module, number), HasSubstr("value y arrives as a number"));
}

TEST(StageModule, KnowsItsOperatorsBeforeItReadsWeights) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(3)}), weight = make.Stored("weight", {3});
  make.Output("output", V(make.Node("torch.ops.mine.secret.default", {V(x), V(weight)}, {D(3)})));
  Ones ones;
  const auto module = LoadStage(make.graph(), oracle::StagesOf(make.graph(), {0, 1})[0], ones, {});
  EXPECT_EQ(module.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(module.status().message()), HasSubstr("torch.ops.mine.secret.default"));
  EXPECT_EQ(ones.bytes_read(), 0u);
}

TEST(StageModule, SendsCopiesOfItsBuffers) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(2)}), calls = make.Stored("calls", {2}, Stored::kBuffer);
  const ValueId sum = make.Node("add_.Tensor", {V(calls), V(x)}, {D(2)});
  make.Output("calls", V(sum));
  Lay(make.graph());
  const auto module = Load(make.graph());
  link::Frame first = Frame(x, Floats({2}, 1)), second = Frame(x, Floats({2}, 10));
  ASSERT_TRUE(module->Run(first).ok());
  ASSERT_TRUE(module->Run(second).ok());
  EXPECT_THAT(Numbers(first.tensors[0].tensor), ElementsAre(2, 2));
  EXPECT_THAT(Numbers(second.tensors[0].tensor), ElementsAre(12, 12)) << "the buffer lives on";
}

TEST(StageModule, ReadsTiedWeightsOnce) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(2)});
  const ValueId a = make.Stored("a", {2}, Stored::kParameter, "record");
  const ValueId b = make.Stored("b", {2}, Stored::kParameter, "record");
  const ValueId sum = make.Node("add.Tensor", {V(x), V(a)}, {D(2)});
  make.Output("output", V(make.Node("add.Tensor", {V(sum), V(b)}, {D(2)})));
  Lay(make.graph());
  EXPECT_EQ(Load(make.graph())->weight_bytes(), 8u);
}

// DIR/model.safetensors with the bf16 tensor w [16, 4], all ones.
std::string CheckpointOfOnes() {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "checkpoint_of_ones";
  std::filesystem::create_directories(folder);
  const std::string header = R"({"w":{"dtype":"BF16","shape":[16,4],"data_offsets":[0,128]}})";
  const uint64_t size = header.size();
  std::ofstream file(folder / "model.safetensors", std::ios::binary);
  file.write(reinterpret_cast<const char*>(&size), sizeof size) << header;
  for (int i = 0; i < 64; ++i) file.write("\x80\x3F", 2);
  return folder.string();
}

TEST(StageModule, PacksWhatARecipeComputesAndKeepsNoOtherCopy) {
  const auto checkpoint = weights::Checkpoint::Open(CheckpointOfOnes());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  GraphMaker make;
  const ValueId x = make.Input("x", {D(2), D(16)}), weight = make.Stored("weight", {4, 16});
  make.Output("output", V(make.Node("linear", {V(x), V(weight)}, {D(2), D(4)})));
  Lay(make.graph());
  using graph::Recipe;
  const Recipe turned{
      .op = Recipe::kTranspose, .dim = 0, .other = 1, .of = {Recipe{.tensor = "w"}}};
  make.graph().stored[0].recipe = Recipe{.op = Recipe::kCast, .dtype = DType::kF32, .of = {turned}};
  bool is_kept = true;
  const LoadOptions options{
      .threads = 1,
      .checkpoint = &*checkpoint,
      .least_packed_elements = 1,
      .observe = [&](int, const auto& storage_of) { is_kept = !storage_of(weight).empty(); }};
  const auto files = weights::LocalFiles();
  const auto module =
      LoadStage(make.graph(), oracle::StagesOf(make.graph(), {0, 1})[0], *files, options);
  ASSERT_TRUE(module.ok()) << module.status();
  link::Frame frame = Frame(x, Floats({2, 16}, 0.5));
  ASSERT_TRUE((*module)->Run(frame).ok());
  EXPECT_THAT(Numbers(frame.tensors[0].tensor), Each(8));
  EXPECT_FALSE(is_kept);
}

TEST(StageModule, AddsUpTheTimesOfItsNodes) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(2)});
  make.Output("output", V(make.Node("relu", {V(make.Node("relu", {V(x)}, {D(2)}))}, {D(2)})));
  std::vector<int64_t> times(2);
  const auto module = Load(make.graph(), {.threads = 1, .node_times_ns = &times});
  link::Frame frame = Frame(x, Floats({2}, 1));
  ASSERT_TRUE(module->Run(frame).ok());
  EXPECT_THAT(times, Each(Gt(0)));
}

}  // namespace
}  // namespace echelon::exec
