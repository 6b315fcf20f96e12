// echelon::experts against ATen's operators, and a token's result in other company.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/ops/operators.h"

namespace echelon::ops {
namespace {

using testing::HasSubstr;
using OptionalTensor = std::optional<at::Tensor>;

struct Call {
  at::Tensor x, index, weight, gate_up, down;
  OptionalTensor gate_up_bias, down_bias;
  bool transposed = false;
  std::string activation = "silu";
  bool interleaved = false;
  double alpha = 0, limit = 0;
};

at::Tensor RunOperator(const Call& c) {
  RegisterOperators();
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("echelon::experts", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                            const at::Tensor&, const OptionalTensor&, const at::Tensor&,
                            const OptionalTensor&, bool, c10::string_view, bool, double, double)>();
  return op.call(c.x, c.index, c.weight, c.gate_up, c.gate_up_bias, c.down, c.down_bias,
                 c.transposed, c.activation, c.interleaved, c.alpha, c.limit);
}

at::Tensor Gate(const Call& c, const at::Tensor& h) {
  const int64_t inner = h.size(-1) / 2;
  at::Tensor gate = c.interleaved ? h.slice(-1, 0, INT64_MAX, 2) : h.slice(-1, 0, inner);
  at::Tensor up = c.interleaved ? h.slice(-1, 1, INT64_MAX, 2) : h.slice(-1, inner);
  if (c.activation == "clamped_swiglu") {
    gate = at::clamp_max(gate, c.limit);
    up = at::clamp(up, -c.limit, c.limit);
    return (up + 1) * (gate * at::sigmoid(gate * c.alpha));
  }
  if (c.activation == "silu") return at::silu(gate) * up;
  if (c.activation == "relu") return at::relu(gate) * up;
  return at::gelu(gate, c.activation == "gelu" ? "none" : "tanh") * up;
}

// Token by token, slot by slot.
at::Tensor Eager(const Call& c) {
  const auto linear = [&](const at::Tensor& x, const at::Tensor& w, const OptionalTensor& bias,
                          int64_t expert) {
    const at::Tensor y = at::matmul(x, c.transposed ? w[expert] : w[expert].t());
    return bias ? y + (*bias)[expert] : y;
  };
  std::vector<at::Tensor> rows;
  for (int64_t token = 0; token < c.x.size(0); ++token) {
    at::Tensor sum = at::zeros({c.x.size(1)});
    for (int64_t slot = 0; slot < c.index.size(1); ++slot) {
      const auto expert = c.index[token][slot].item<int64_t>();
      const at::Tensor h = Gate(c, linear(c.x[token], c.gate_up, c.gate_up_bias, expert));
      sum += (linear(h, c.down, c.down_bias, expert) * c.weight[token][slot]).to(at::kFloat);
    }
    rows.push_back(sum.to(c.x.scalar_type()));
  }
  return at::stack(rows);
}

Call Made(int64_t tokens, int64_t width, int64_t inner, at::ScalarType dtype, bool transposed,
          bool has_bias) {
  constexpr int64_t kExperts = 5, kChosen = 3;
  const auto matrix = [&](int64_t inputs, int64_t outputs) {
    const at::Tensor made = at::randn({kExperts, outputs, inputs}) / std::sqrt(double(inputs));
    return (transposed ? made.transpose(1, 2).contiguous() : made).to(dtype);
  };
  Call call{.x = at::randn({tokens, width}).to(dtype),
            .index = std::get<1>(at::topk(at::rand({tokens, kExperts}), kChosen)),
            .weight = at::softmax(at::randn({tokens, kChosen}), 1).to(dtype),
            .gate_up = matrix(width, 2 * inner),
            .down = matrix(inner, width),
            .transposed = transposed};
  if (has_bias) {
    call.gate_up_bias = at::randn({kExperts, 2 * inner}).to(dtype);
    call.down_bias = at::randn({kExperts, width}).to(dtype);
  }
  return call;
}

struct Gates {
  const char* activation;
  bool interleaved;
  double alpha, limit;
};
const Gates kGates[] = {{"silu", false, 0, 0},
                        {"gelu", true, 0, 0},
                        {"gelu_pytorch_tanh", false, 0, 0},
                        {"relu", false, 0, 0},
                        {"clamped_swiglu", true, 1.702, 0.7}};

class ExpertsOperator : public testing::TestWithParam<std::tuple<at::ScalarType, bool>> {};

TEST_P(ExpertsOperator, AgreesWithEager) {
  const auto [dtype, transposed] = GetParam();
  at::manual_seed(5);
  for (const Gates& gates : kGates)
    for (const auto& [width, inner] : {std::pair{64, 32}, {70, 37}}) {
      Call call = Made(29, width, inner, dtype, transposed, gates.interleaved);
      call.activation = gates.activation;
      call.interleaved = gates.interleaved;
      call.alpha = gates.alpha, call.limit = gates.limit;
      const at::Tensor result = RunOperator(call), expected = Eager(call);
      ASSERT_EQ(result.scalar_type(), dtype);
      const double tolerance = dtype == at::kFloat ? 2e-6 : 2.0 / 100;
      EXPECT_TRUE(at::allclose(result, expected, tolerance, tolerance))
          << gates.activation << " " << width << ": off by "
          << (result - expected).abs().max().item<float>();
    }
}

TEST_P(ExpertsOperator, GivesATokenTheSameBitsInAnyCompany) {
  const auto [dtype, transposed] = GetParam();
  at::manual_seed(6);
  const Call all = Made(130, 70, 37, dtype, transposed, true);
  const auto rows = [&](const at::Tensor& which) {
    Call some = all;
    some.x = all.x.index_select(0, which);
    some.index = all.index.index_select(0, which);
    some.weight = all.weight.index_select(0, which);
    return RunOperator(some);
  };
  const at::Tensor expected = RunOperator(all);
  for (int64_t count = 1; count <= 130; ++count) {
    const at::Tensor which = at::randperm(130).slice(0, 0, count);
    ASSERT_TRUE(at::equal(rows(which), expected.index_select(0, which))) << count << " tokens";
  }
}

// What a recipe may leave: the same matrices in the other order of memory.
TEST_P(ExpertsOperator, TakesMatricesThatLieTheOtherWay) {
  const auto [dtype, transposed] = GetParam();
  at::manual_seed(7);
  Call call = Made(6, 70, 37, dtype, transposed, false);
  const at::Tensor expected = Eager(call);
  for (at::Tensor* matrix : {&call.gate_up, &call.down})
    *matrix = matrix->transpose(1, 2).contiguous().transpose(1, 2);
  const double tolerance = dtype == at::kFloat ? 2e-6 : 2.0 / 100;
  EXPECT_TRUE(at::allclose(RunOperator(call), expected, tolerance, tolerance));
}

INSTANTIATE_TEST_SUITE_P(All, ExpertsOperator,
                         testing::Combine(testing::Values(at::kFloat, at::kBFloat16),
                                          testing::Bool()));

TEST(ExpertsOperator, NamesWhatDoesNotFit) {
  const auto says = [](const std::function<void(Call&)>& change) -> std::string {
    Call call = Made(4, 16, 8, at::kFloat, false, false);
    change(call);
    try {
      RunOperator(call);
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "none";
  };
  EXPECT_THAT(says([](Call& c) { c.index[2][1] = 5; }), HasSubstr("expert 5 is none of 5"));
  EXPECT_THAT(says([](Call& c) { c.index[0][0] = -1; }), HasSubstr("expert -1"));
  EXPECT_THAT(says([](Call& c) { c.activation = "mish"; }), HasSubstr("activation mish"));
  EXPECT_THAT(says([](Call& c) { c.x = at::zeros({4, 17}); }), HasSubstr("do not fit together"));
  EXPECT_THAT(says([](Call& c) { c.x = at::zeros({3, 16}); }), HasSubstr("do not fit together"));
  EXPECT_THAT(says([](Call& c) { c.down = c.down.to(at::kBFloat16); }),
              HasSubstr("weights are BFloat16, x is Float"));
  EXPECT_THAT(says([](Call& c) {
                c.down_bias = at::zeros({5, 15});
              }),
              HasSubstr("the bias of down does not fit"));
}

}  // namespace
}  // namespace echelon::ops
