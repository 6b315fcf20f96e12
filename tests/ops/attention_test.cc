// echelon::attention as a graph calls it, against ATen's operators.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "runtime/ops/operators.h"

namespace echelon::ops {
namespace {

using testing::HasSubstr;
using OptionalTensor = std::optional<at::Tensor>;

struct Call {
  at::Tensor q, k, v;
  OptionalTensor sinks, slopes;
  int64_t layer = 0;
  double scale = 0.3;
  int64_t window = 0;
  double softcap = 0;
};

at::Tensor Attend(const Call& call) {
  RegisterOperators();
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("echelon::attention", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                            const OptionalTensor&, const OptionalTensor&, int64_t, double, int64_t,
                            double)>();
  return op.call(call.q, call.k, call.v, call.sinks, call.slopes, call.layer, call.scale,
                 call.window, call.softcap);
}

// One sequence from its first token on, as eager models compute it, in f32.
at::Tensor Eager(const Call& call) {
  const int64_t length = call.q.size(2), groups = call.q.size(1) / call.k.size(1);
  const at::Tensor k = call.k.to(at::kFloat).repeat_interleave(groups, 1),
                   v = call.v.to(at::kFloat).repeat_interleave(groups, 1);
  at::Tensor scores = at::matmul(call.q.to(at::kFloat), k.transpose(2, 3)) * call.scale;
  if (call.softcap != 0) scores = at::tanh(scores / call.softcap) * call.softcap;
  const at::Tensor at = at::arange(length);
  const at::Tensor distance = at.unsqueeze(1) - at.unsqueeze(0);
  if (call.slopes) scores = scores - call.slopes->view({1, -1, 1, 1}) * distance;
  const int64_t window = call.window == 0 ? length : call.window;
  scores = scores.masked_fill(at::logical_or(distance < 0, distance >= window), -INFINITY);
  if (call.sinks) {
    const at::Tensor column =
        call.sinks->to(at::kFloat).view({1, -1, 1, 1}).expand({1, scores.size(1), length, 1});
    scores = at::cat({scores, column}, 3);
  }
  const at::Tensor weights = at::softmax(scores, 3).slice(3, 0, length);
  return at::matmul(weights, v).transpose(1, 2).contiguous();
}

std::unique_ptr<kv::KvCache> Cache(const Call& call, DType dtype, int32_t blocks) {
  return *kv::KvCache::Create({.blocks = blocks,
                               .layers = {{.layer = static_cast<int32_t>(call.layer),
                                           .kv_heads = static_cast<int32_t>(call.k.size(1)),
                                           .key_dim = static_cast<int32_t>(call.k.size(3)),
                                           .value_dim = static_cast<int32_t>(call.v.size(3))}},
                               .dtype = dtype});
}

// As projections leave it: [1, T, heads * dim], seen as heads.
at::Tensor Heads(int64_t tokens, int64_t heads, int64_t dim, at::ScalarType dtype) {
  return at::randn({1, tokens, heads * dim})
      .to(dtype)
      .view({1, tokens, heads, dim})
      .transpose(1, 2);
}

class AttentionOperator : public testing::TestWithParam<at::ScalarType> {};

TEST_P(AttentionOperator, AgreesWithEagerOnRaggedSteps) {
  at::manual_seed(3);
  const at::ScalarType dtype = GetParam();
  const bool is_bf16 = dtype == at::kBFloat16;
  for (int kind = 0; kind < 16; ++kind) {
    const bool is_windowed = kind & 1, is_capped = kind & 2, has_sinks = kind & 4,
               has_alibi = kind & 8;
    std::vector<Call> calls;  // one a sequence, whole
    const std::vector<int64_t> lengths = {40, 9, 23};
    calls.reserve(lengths.size());
    for (const int64_t length : lengths)
      calls.push_back({.q = Heads(length, 6, 24, dtype),
                       .k = Heads(length, 2, 24, dtype),
                       .v = Heads(length, 2, 40, dtype),
                       .layer = 7,
                       .window = is_windowed ? 11 : 0,
                       .softcap = is_capped ? 3.0 : 0.0});
    const at::Tensor sinks = at::randn({6}).to(dtype), slopes = at::rand({6}) / 4;
    const auto cache = Cache(calls[0], is_bf16 ? DType::kBF16 : DType::kF32, 12);
    const std::vector<std::vector<int32_t>> blocks = {{4, 2, 9}, {0}, {11, 1}};
    std::vector<at::Tensor> out(lengths.size());
    // Half of each in a first step, then one by one together with what is left of the first.
    const std::vector<std::vector<int64_t>> ends = {{20, 4, 11}, {40, 5, 12}, {40, 9, 23}};
    std::vector<int64_t> done(lengths.size(), 0);
    for (const std::vector<int64_t>& end : ends) {
      step::Step step;
      std::vector<at::Tensor> q, k, v;
      for (const size_t i : {2, 0, 1}) {
        const int64_t count = end[i] - done[i];
        if (count == 0) continue;
        step.sequences.push_back({.id = i,
                                  .start = static_cast<int32_t>(done[i]),
                                  .count = static_cast<int32_t>(count),
                                  .blocks = blocks[i]});
        q.push_back(calls[i].q.slice(2, done[i], end[i]));
        k.push_back(calls[i].k.slice(2, done[i], end[i]));
        v.push_back(calls[i].v.slice(2, done[i], end[i]));
      }
      Call packed = calls[0];
      packed.q = at::cat(q, 2), packed.k = at::cat(k, 2), packed.v = at::cat(v, 2);
      if (has_sinks) packed.sinks = sinks;
      if (has_alibi) packed.slopes = slopes;
      const StepContext context{&step, cache.get()};
      const Running running(&context);
      const at::Tensor result = Attend(packed);
      ASSERT_TRUE(result.is_contiguous());
      ASSERT_EQ(result.scalar_type(), dtype);
      int64_t row = 0;
      for (const step::Sequence& sequence : step.sequences) {
        const at::Tensor part = result.slice(1, row, row + sequence.count);
        at::Tensor& whole = out[sequence.id];
        whole = whole.defined() ? at::cat({whole, part}, 1) : part;
        row += sequence.count;
      }
      done = end;
    }
    for (size_t i = 0; i < lengths.size(); ++i) {
      if (has_sinks) calls[i].sinks = sinks;
      if (has_alibi) calls[i].slopes = slopes;
      const at::Tensor expected = Eager(calls[i]);
      const double tolerance = is_bf16 ? 1.0 / 100 : 5e-6;
      EXPECT_TRUE(at::allclose(out[i].to(at::kFloat), expected, tolerance, tolerance))
          << "kind " << kind << ", sequence " << i << ": off by "
          << (out[i].to(at::kFloat) - expected).abs().max().item<float>();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, AttentionOperator, testing::Values(at::kFloat, at::kBFloat16));

std::string FaultOf(const Call& call) {
  try {
    Attend(call);
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "none";
}

std::string FaultOf(const StepContext& context) {
  try {
    const Running running(&context);
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "none";
}

TEST(AttentionOperator, NamesWhatDoesNotFit) {
  const Call call{
      .q = at::zeros({1, 4, 2, 8}), .k = at::zeros({1, 2, 2, 8}), .v = at::zeros({1, 2, 2, 8})};
  EXPECT_THAT(FaultOf(call), HasSubstr("no step is in progress on this thread"));
  const auto cache = Cache(call, DType::kF32, 2);
  step::Step step{.sequences = {{.id = 3, .start = 0, .count = 2, .blocks = {1}}}};
  const StepContext context{&step, cache.get()};
  const Running running(&context);
  EXPECT_EQ(FaultOf(call), "none");
  Call other = call;
  other.layer = 1;
  EXPECT_THAT(FaultOf(other), HasSubstr("layer 1 has no place in the KV cache"));
  other = call;
  other.k = other.v = at::zeros({1, 4, 2, 8});
  EXPECT_THAT(FaultOf(other), HasSubstr("layer 0 of the cache has 2 heads of 8 and 8"));
  other = call;
  other.k = at::zeros({1, 3, 2, 8});
  EXPECT_THAT(FaultOf(other), HasSubstr("do not fit together"));
  other = call;
  other.q = at::zeros({1, 4, 2, 8}, at::kHalf);
  other.k = other.v = at::zeros({1, 2, 2, 8}, at::kHalf);
  EXPECT_THAT(FaultOf(other), HasSubstr("compute in float32 and bfloat16"));
  other = call;
  other.sinks = at::zeros({2});
  EXPECT_THAT(FaultOf(other), HasSubstr("sinks is [2] for 4 heads"));
  step.sequences[0].count = 1;
  EXPECT_THAT(FaultOf(call), HasSubstr("the graph gives 2 tokens, the step has 1"));
  step.sequences[0] = {.id = 3, .start = 15, .count = 2, .blocks = {1}};
  EXPECT_THAT(FaultOf(context), HasSubstr("sequence 3 has blocks for 16 of its 17 tokens"));
  step.sequences[0].blocks = {1, 2};
  EXPECT_THAT(FaultOf(context), HasSubstr("block 2 of sequence 3 is none of the cache's 2"));
}

TEST(AttentionOperator, ComesBackToTheOuterStep) {
  const Call call{
      .q = at::zeros({1, 1, 1, 1}), .k = at::zeros({1, 1, 1, 1}), .v = at::zeros({1, 1, 1, 1})};
  const auto cache = Cache(call, DType::kF32, 1);
  const step::Step one{.sequences = {{.count = 1, .blocks = {0}}}}, none;
  const StepContext outer{&one, cache.get()}, inner{&none, cache.get()};
  const Running running(&outer);
  {
    const Running nested(&inner);
    EXPECT_THAT(FaultOf(call), HasSubstr("the step has 0"));
  }
  EXPECT_EQ(FaultOf(call), "none");
}

TEST(AttentionOperator, HasAShapeWithoutAStep) {
  const auto meta = at::TensorOptions().device(at::kMeta).dtype(at::kBFloat16);
  const at::Tensor out = Attend({.q = at::empty({1, 4, 3, 8}, meta),
                                 .k = at::empty({1, 2, 3, 8}, meta),
                                 .v = at::empty({1, 2, 3, 5}, meta)});
  EXPECT_EQ(out.sizes(), at::IntArrayRef({1, 3, 4, 5}));
  EXPECT_EQ(out.scalar_type(), at::kBFloat16);
}

}  // namespace
}  // namespace echelon::ops
