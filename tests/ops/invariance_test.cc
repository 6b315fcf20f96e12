// ATen's operators, as decoders' graphs call them, give a row the same bits whatever number of rows
// comes with it; those that do not by themselves, as runtime/ops/invariant.h runs them.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "runtime/ops/invariant.h"

namespace echelon::ops {
namespace {

// x [1, T, C] to [1, T, ...]. What else the operator takes is made once, of C's size.
struct Operator {
  const char* name;
  std::function<at::Tensor(const at::Tensor& x)> run;
};

at::Tensor Weight(const at::Tensor& x, int64_t rows, int64_t columns) {
  static std::map<std::tuple<int64_t, int64_t, at::ScalarType>, at::Tensor> made;
  at::Tensor& weight = made[{rows, columns, x.scalar_type()}];
  if (!weight.defined())
    weight = (at::randn({rows, columns}) / std::sqrt(double(columns))).to(x.scalar_type());
  return weight;
}

at::Tensor Vector(const at::Tensor& x) { return Weight(x, 1, x.size(2))[0]; }

at::Tensor Silu(const at::Tensor& x) {
  return RunElementwise(x, [](const at::Tensor& y) { return at::silu(y); });
}
at::Tensor Tanh(const at::Tensor& x) {
  return RunElementwise(x, [](const at::Tensor& y) { return at::tanh(y); });
}
at::Tensor Sigmoid(const at::Tensor& x) {
  return RunElementwise(x, [](const at::Tensor& y) { return at::sigmoid(y); });
}
at::Tensor Gelu(const at::Tensor& x, const char* kind) {
  return RunElementwise(x, [=](const at::Tensor& y) { return at::gelu(y, kind); });
}
at::Tensor Rsqrt(const at::Tensor& x) {
  return RunElementwise(x, [](const at::Tensor& y) { return at::rsqrt(y); });
}
at::Tensor Pow(const at::Tensor& x, double power) {
  return RunElementwise(x, [=](const at::Tensor& y) { return at::pow(y, power); });
}
at::Tensor Cos(const at::Tensor& x) {
  return RunElementwise(x, [](const at::Tensor& y) { return at::cos(y); });
}
at::Tensor Sin(const at::Tensor& x) {
  return RunElementwise(x, [](const at::Tensor& y) { return at::sin(y); });
}

at::Tensor Rotated(const at::Tensor& x) {  // as rotary embeddings do, heads of 16
  const at::Tensor heads = x.view({1, x.size(1), -1, 16}).transpose(1, 2);
  const at::Tensor angles = Weight(x, 200, 16).slice(0, 0, x.size(1)).unsqueeze(0).unsqueeze(0);
  const at::Tensor turned = at::cat({-heads.slice(-1, 8), heads.slice(-1, 0, 8)}, -1);
  return (heads * Cos(angles) + turned * Sin(angles)).transpose(1, 2).flatten(2);
}

at::Tensor RmsNorm(const at::Tensor& x) {  // as exported: in f32
  const at::Tensor f = x.to(at::kFloat);
  const at::Tensor variance = at::mean(Pow(f, 2), {-1}, true);
  return Vector(x) * (f * Rsqrt(variance + 1e-6)).to(x.scalar_type());
}

const std::vector<Operator>& Operators() {
  static const std::vector<Operator> operators = {
      {"rms_norm_as_exported", RmsNorm},
      {"rms_norm", [](const auto& x) { return at::rms_norm(x, {x.size(2)}, Vector(x)); }},
      {"layer_norm",
       [](const auto& x) { return at::layer_norm(x, {x.size(2)}, Vector(x), Vector(x)); }},
      {"mean", [](const auto& x) { return at::mean(x, {-1}, true); }},
      {"sum", [](const auto& x) { return at::sum(x, {-1}, true); }},
      {"amax", [](const auto& x) { return at::amax(x, {-1}, true); }},
      {"norm", [](const auto& x) { return at::norm(x, 2, {-1}, true); }},
      {"softmax", [](const auto& x) { return at::softmax(x, -1); }},
      {"softmax_to_f32", [](const auto& x) { return at::softmax(x, -1, at::kFloat); }},
      {"log_softmax", [](const auto& x) { return at::log_softmax(x, -1); }},
      {"cumsum", [](const auto& x) { return at::cumsum(x, -1); }},
      {"topk_values", [](const auto& x) { return std::get<0>(at::topk(x, 8)); }},
      {"topk_indices", [](const auto& x) { return std::get<1>(at::topk(x, 8)); }},
      {"sort", [](const auto& x) { return std::get<1>(at::sort(x, -1, true)); }},
      {"argmax", [](const auto& x) { return at::argmax(x, -1, true); }},
      {"silu", [](const auto& x) { return Silu(x); }},
      {"gelu", [](const auto& x) { return Gelu(x, "none"); }},
      {"gelu_tanh", [](const auto& x) { return Gelu(x, "tanh"); }},
      {"gelu_new_as_exported",
       [](const auto& x) {
         return 0.5 * x * (1.0 + Tanh(0.7978845608 * (x + 0.044715 * Pow(x, 3.0))));
       }},
      {"quick_gelu", [](const auto& x) { return x * Sigmoid(1.702 * x); }},
      {"relu", [](const auto& x) { return at::relu(x); }},
      {"tanh_cap", [](const auto& x) { return Tanh(x / 30.0) * 30.0; }},
      {"exp",
       [](const auto& x) { return RunElementwise(x, [](const auto& y) { return at::exp(y); }); }},
      {"softplus",
       [](const auto& x) {
         return RunElementwise(x, [](const auto& y) { return at::softplus(y); });
       }},
      {"pow_3", [](const auto& x) { return Pow(x, 3); }},
      {"rsqrt", [](const auto& x) { return Rsqrt(at::abs(x) + 1); }},
      {"div", [](const auto& x) { return x / Vector(x); }},
      {"add_mul", [](const auto& x) { return x + x * Vector(x); }},
      {"to_bf16_and_back", [](const auto& x) { return x.to(at::kBFloat16).to(at::kFloat); }},
      {"gate_of_halves",
       [](const auto& x) {
         const auto halves = x.chunk(2, -1);
         return Silu(halves[0]) * halves[1];
       }},
      {"gate_of_pairs",
       [](const auto& x) {
         return Gelu(x.slice(-1, 0, INT64_MAX, 2), "none") * x.slice(-1, 1, INT64_MAX, 2);
       }},
      {"rotary", Rotated},
      {"rotary_cos_sin",
       [](const auto& x) {
         const at::Tensor positions = at::arange(x.size(1)).to(at::kFloat).view({1, 1, -1});
         const at::Tensor inverse = at::pow(10000.0, at::arange(32) / -32.0).view({1, -1, 1});
         const at::Tensor angles = at::matmul(inverse, positions).transpose(1, 2);
         return at::cat({Cos(angles), Sin(angles)}, -1);
       }},
      {"rotary_of_complex_numbers",  // of deepseek_v2
       [](const auto& x) {
         const auto times = [](const auto& a, const auto& b) { return at::mul(a, b); };
         const auto polar = [](const auto& a, const auto& b) { return at::polar(a, b); };
         const at::Tensor angles =
             Weight(x, 200, 8).slice(0, 0, x.size(1)).to(at::kFloat).view({1, -1, 1, 8});
         const at::Tensor turns = RunElementwise(at::ones_like(angles), angles, polar);
         const at::Tensor pairs = x.to(at::kFloat).reshape({1, x.size(1), -1, 8, 2});
         const at::Tensor turned = RunElementwise(at::view_as_complex(pairs), turns, times);
         return at::view_as_real(turned).flatten(2);
       }},
      {"head_norm",  // of qwen3: over a head's dimensions
       [](const auto& x) {
         const at::Tensor heads = x.view({1, x.size(1), -1, 16});
         const at::Tensor f = heads.to(at::kFloat);
         return (f * Rsqrt(at::mean(Pow(f, 2), {-1}, true) + 1e-6)).flatten(2);
       }},
      {"embedding",
       [](const auto& x) {
         return at::embedding(Weight(x, 300, 48), at::arange(x.size(1)).unsqueeze(0) + 7);
       }},
      {"index_select_rows", [](const auto& x) { return x.flatten(0, 0); }},
      {"router_softmax_topk_norm",
       [](const auto& x) {
         const at::Tensor p = at::softmax(x.slice(2, 0, 16).to(at::kFloat), -1);
         const at::Tensor top = std::get<0>(at::topk(p, 4));
         return top / at::sum(top, {-1}, true);
       }},
  };
  return operators;
}

// The least number of rows that gives some row other bits than `most` rows do; 0: none.
int64_t FirstVariant(const Operator& op, at::ScalarType dtype, int64_t width, int threads) {
  constexpr int64_t kMost = 130;
  at::manual_seed(1);
  at::set_num_threads(threads);
  const at::Tensor x = (at::randn({1, kMost, width}) * 3).to(dtype);
  const at::Tensor expected = op.run(x).contiguous();
  // Every number where that is quick; else those about which kernels change.
  const bool is_quick = width < 100 && threads == 1;
  for (int64_t count = 1; count <= kMost; count += is_quick || count < 18 ? 1 : 1 + count % 16)
    if (!at::equal(op.run(x.slice(1, 0, count).contiguous()), expected.slice(1, 0, count)))
      return count;
  return 0;
}

std::string Variants(const Operator& op) {
  std::string variants;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t width : {64, 80, 576, 2048})
      for (const int threads : {1, 2})
        if (const int64_t count = FirstVariant(op, dtype, width, threads); count != 0)
          variants += std::string(" ") + c10::toString(dtype) + " of " + std::to_string(width) +
                      " at " + std::to_string(count) + " rows, " + std::to_string(threads) +
                      " threads;";
  return variants;
}

class RowInvariance : public testing::TestWithParam<size_t> {};

TEST_P(RowInvariance, HoldsForEveryNumberOfRows) {
  EXPECT_EQ(Variants(Operators()[GetParam()]), "");
}

TEST(RunElementwise, AgreesWithTheOperator) {
  at::manual_seed(2);
  for (const int64_t rows : {0, 1, 3, 700}) {
    const at::Tensor x = at::randn({2, rows, 33}).transpose(0, 1);
    const at::Tensor result = RunElementwise(x, [](const auto& y) { return at::silu(y); });
    EXPECT_TRUE(at::allclose(result, at::silu(x))) << rows;
  }
  EXPECT_TRUE(HasVariantTail("aten::silu"));
  EXPECT_FALSE(HasVariantTail("aten::mul"));
}

TEST(RunElementwise, AgreesWithAnOperatorOfTwo) {
  at::manual_seed(2);
  for (const int64_t rows : {0, 1, 3, 900}) {
    const at::Tensor x = at::randn({2, rows, 33}, at::kComplexFloat).transpose(0, 1);
    const at::Tensor y = at::randn({2, 1}, at::kComplexFloat);
    const at::Tensor result =
        RunElementwise(x, y, [](const auto& a, const auto& b) { return at::mul(a, b); });
    EXPECT_EQ(result.sizes(), x.sizes());
    EXPECT_TRUE(at::allclose(result, x * y)) << rows;
  }
}

INSTANTIATE_TEST_SUITE_P(All, RowInvariance, testing::Range(size_t{0}, Operators().size()),
                         [](const auto& info) { return Operators()[info.param].name; });

}  // namespace
}  // namespace echelon::ops
