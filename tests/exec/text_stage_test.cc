#include "runtime/exec/text_stage.h"

#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace echelon::exec {
namespace {

using ::testing::HasSubstr;

TEST(TextStage, ARowThatCannotBeDrawnFromFailsAlone) {
  const graph::Graph graph{.name = "tiny",
                           .text = graph::TextModel{.max_model_len = 8, .vocab_size = 3}};
  const auto stage = TextStage::Open(graph, plan::Stage(), /*kv_blocks=*/4);
  ASSERT_TRUE(stage.ok()) << stage.status();
  step::Step step{.sequences = {{.id = 1, .count = 1, .blocks = {0}},
                                {.id = 2, .count = 1, .blocks = {1}},
                                {.id = 3, .count = 1, .blocks = {2}}}};
  for (int row = 0; row < 3; ++row) step.samples.push_back({.row = row, .position = 1});
  step.samples[1].bias = {{0, -INFINITY}, {1, -INFINITY}, {2, -INFINITY}};
  link::Frame frame{.rows = step::Serialize(step)};
  ASSERT_TRUE((*stage)->Begin(frame).ok());
  const at::Tensor logits =
      at::tensor({NAN, 1.F, 2.F, 0.F, 1.F, 2.F, 0.F, 2.F, 1.F}).view({1, 3, 3});
  const absl::Status status = (*stage)->Draw(logits, frame);
  ASSERT_TRUE(status.ok()) << status;
  const auto result = step::ParseResult(frame.rows, 3, {.vocabulary = 3});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(std::string(result->drawn[0].status.message()), HasSubstr("a logit of nan"));
  EXPECT_THAT(std::string(result->drawn[1].status.message()), HasSubstr("no token is left"));
  EXPECT_EQ(result->drawn[2].token, 1);
}

}  // namespace
}  // namespace echelon::exec
