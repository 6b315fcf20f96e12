// What follows from positions alone is made on each stage; what a language model's stages cache.
#include "runtime/plan/recompute.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/plan/plan.h"
#include "tests/graph/testing.h"

namespace echelon::plan {
namespace {

using graph::ValueId;
using graph::testing::D;
using graph::testing::GraphMaker;
using graph::testing::V;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Layers, each an attention whose keys carry a rotation that follows from the positions. With
// inputs of their own, made at the beginning, as Gemma 3n and 4 have them.
struct Decoder {
  GraphMaker make;
  ValueId positions;
  std::vector<ValueId> hidden;  // after each layer

  explicit Decoder(int layers = 2, bool own_inputs = false) {
    const ValueId ids = make.Input("input_ids", {D(1), D("s0", 7)}, DType::kI64);
    positions = make.Input("position_ids", {D(1), D("s0", 7)}, DType::kI64);
    const ValueId weight = make.Stored("embed", {128, 64});
    const ValueId frequency = make.Stored("inv_freq", {64});
    ValueId x = make.Node("torch.ops.aten.embedding.default", {V(weight), V(ids)},
                          {D(1), D("s0", 7), D(64)});  // 0
    const ValueId angle =
        make.Node("mul.Tensor", {V(positions), V(frequency)}, {D("s0", 7), D(64)});  // 1
    const ValueId cosine =
        make.Node("torch.ops.aten.cos.default", {V(angle)}, {D("s0", 7), D(64)});  // 2
    std::vector<ValueId> own;
    for (int layer = 0; own_inputs && layer < layers; ++layer)
      own.push_back(make.Node("torch.ops.aten.embedding.default", {V(weight), V(ids)},
                              {D(1), D("s0", 7), D(64)}));
    for (int layer = 0; layer < layers; ++layer) {
      const ValueId keys =
          make.Node("mul.Tensor", {V(x), V(cosine)}, {D(1), D(2), D("s0", 7), D(32)});
      const ValueId seen = make.Node(graph::kAttention, {}, {D(1), D("s0", 7), D(64)});
      graph::Node& node = make.graph().nodes.back();
      for (const char* name : {"q", "k", "v"})
        node.arguments.push_back({.name = name, .items = {V(keys)}});
      node.arguments.push_back({.name = "layer", .items = {int64_t{layer}}});
      x = make.Node("add.Tensor", {V(x), V(seen)}, {D(1), D("s0", 7), D(64)});
      if (own_inputs) x = make.Node("add.Tensor", {V(x), V(own[layer])}, {D(1), D("s0", 7), D(64)});
      hidden.push_back(x);
    }
    make.Output("logits", V(x));
    make.graph().text =
        graph::TextModel{.dtype = DType::kBF16, .max_model_len = 64, .vocab_size = 128};
  }
};

TEST(Recomputed, WhatFollowsFromPositionsAloneIsMadeAgain) {
  Decoder decoder;
  const Recomputed recomputed(decoder.make.graph());
  EXPECT_EQ(recomputed.positions(), decoder.positions);
  EXPECT_THAT(recomputed.NodesFor(6, 9), ElementsAre(1, 2));
  EXPECT_THAT(recomputed.NodesFor(0, 6), ElementsAre());
  EXPECT_FALSE(recomputed.Contains(decoder.hidden[0]));
}

TEST(Recomputed, OnlyPositionsAndTheHiddenStateCross) {
  Decoder decoder;
  const graph::Graph& graph = decoder.make.graph();
  const auto plan =
      MakePlan(graph, graph::testing::Schemas(), {.stages = 2, .kv_memory_bytes = 1 << 20});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->stages[1].begin, 6);
  EXPECT_THAT(plan->stages[1].receives, ElementsAre(decoder.positions, decoder.hidden[0]));
  EXPECT_THAT(plan->stages[1].recomputes, ElementsAre(1, 2));
  // Two heads of 32 for keys and values, in bf16; blocks of 16 tokens.
  EXPECT_EQ(plan->stages[0].kv_bytes_per_token, 2 * (32 + 32) * 2);
  EXPECT_EQ(plan->kv_blocks, (1 << 20) / (256 * 16));
  const auto again = FromJson(ToJson(*plan, graph), graph);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->kv_blocks, plan->kv_blocks);
  EXPECT_THAT(again->stages[1].recomputes, ElementsAre(1, 2));
  EXPECT_THAT(ToText(*plan, graph), HasSubstr("KV cache: 256 blocks of 16 tokens"));
}

TEST(Recomputed, LayersWithInputsOfTheirOwnAreCutInTheMiddleToo) {
  Decoder decoder(8, /*own_inputs=*/true);
  const graph::Graph& graph = decoder.make.graph();
  const auto plan =
      MakePlan(graph, graph::testing::Schemas(), {.stages = 2, .kv_memory_bytes = 1 << 20});
  ASSERT_TRUE(plan.ok()) << plan.status();
  // Making the inputs takes time as well. What crosses: positions, the hidden state, and the inputs
  // that are still to come.
  EXPECT_EQ(graph::AttentionLayers(graph, 0, plan->stages[0].end).size(), 2);
  EXPECT_EQ(plan->stages[1].receives.size(), 1 + 1 + 6);
}

TEST(Recomputed, ACacheWithoutABlockIsRefused) {
  Decoder decoder;
  const auto plan = MakePlan(decoder.make.graph(), graph::testing::Schemas(),
                             {.stages = 2, .kv_memory_bytes = 1000});
  EXPECT_THAT(std::string(plan.status().message()),
              HasSubstr("--kv-memory 1000 B holds no block of 16 tokens"));
}

TEST(Recomputed, OtherModelsSendWhatTheySentBefore) {
  Decoder decoder;
  decoder.make.graph().text.reset();
  EXPECT_THAT(Recomputed(decoder.make.graph()).NodesFor(6, 9), ElementsAre());
}

}  // namespace
}  // namespace echelon::plan
