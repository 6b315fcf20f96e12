// A packed linear layer computes x W^T + b, and each row alone.
#include "runtime/exec/packed_linear.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "runtime/exec/stage_module.h"

namespace echelon::exec {
namespace {

class LinearTest : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    KeepRowsAlone();
    SetThreads(1);
  }
  at::Tensor Random(at::IntArrayRef shape) { return at::randn(shape).to(GetParam()); }
  const c10::InferenceMode inference_;
};
using SharedLinearTest = LinearTest;

class PackedLinearTest : public LinearTest {
 protected:
  void SetUp() override {
    LinearTest::SetUp();
    if (!CanPack(GetParam())) GTEST_SKIP() << "oneDNN lays out no bf16 weights on this CPU";
  }
};

TEST_P(PackedLinearTest, GivesWhatLinearGives) {
  const at::Tensor weight = Random({96, 200}), bias = Random({96}), x = Random({2, 7, 200});
  const at::Tensor wanted = at::linear(x, weight, bias),
                   got = PackedLinear(weight, true).Run(x, bias);
  EXPECT_EQ(got.sizes(), wanted.sizes());
  EXPECT_TRUE(got.is_contiguous());
  EXPECT_EQ(got.scalar_type(), GetParam());
  EXPECT_TRUE(got.allclose(wanted, GetParam() == at::kFloat ? 1e-5 : 2e-2, 1e-4));
}

TEST_P(PackedLinearTest, TakesAWeightOfAnyStridesAndNoBias) {
  const at::Tensor weight = Random({200, 96}).t(), x = Random({200, 5}).t();
  EXPECT_TRUE(PackedLinear(weight, true)
                  .Run(x, {})
                  .allclose(at::linear(x, weight), GetParam() == at::kFloat ? 1e-5 : 2e-2, 1e-4));
}

TEST_P(PackedLinearTest, ARowIsTheSameInEveryBatch) {
  for (const int threads : {1, 2, 3}) {
    SetThreads(threads);
    for (const auto& [inputs, outputs] :
         {std::pair{2048, 5632}, {576, 192}, {1536, 576}, {64, 33}}) {
      const PackedLinear linear(Random({outputs, inputs}), true);
      const at::Tensor x = Random({560, inputs}), bias = Random({outputs});
      const at::Tensor whole = linear.Run(x, bias);
      for (const int64_t rows : {1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 64, 100, 129, 241, 300, 513})
        for (const int64_t first : {int64_t{0}, 560 - rows})
          EXPECT_TRUE(
              linear.Run(x.narrow(0, first, rows), bias).equal(whole.narrow(0, first, rows)))
              << rows << " rows of " << inputs << " -> " << outputs << " from " << first << ", "
              << threads << " threads";
    }
  }
}

TEST_P(SharedLinearTest, ARowIsTheSameInEveryBatch) {
  for (const auto& [inputs, outputs] : {std::pair{2048, 2048}, {576, 192}, {80, 5}, {64, 128}}) {
    const at::Tensor weight = Random({outputs, inputs}), x = Random({130, inputs});
    const at::Tensor whole = SharedLinear(weight, x, {}), bias = Random({outputs});
    EXPECT_TRUE(
        SharedLinear(weight.t().contiguous().t(), x, bias)
            .allclose(at::linear(x, weight, bias), 2e-2, GetParam() == at::kFloat ? 1e-3 : 1e-2));
    EXPECT_TRUE(
        whole.allclose(at::linear(x, weight), GetParam() == at::kFloat ? 1e-5 : 2e-2, 1e-3));
    for (const int threads : {1, 3}) {
      SetThreads(threads);
      const at::Tensor all = SharedLinear(weight, x, {});
      for (const int64_t rows : {1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 64, 100, 129})
        EXPECT_TRUE(SharedLinear(weight, x.narrow(0, 130 - rows, rows), {})
                        .equal(all.narrow(0, 130 - rows, rows)))
            << rows << " rows of " << inputs << " -> " << outputs << ", " << threads << " threads";
    }
  }
}

TEST_P(PackedLinearTest, NoRowsGiveNoRows) {
  const at::Tensor got = PackedLinear(Random({8, 16}), true).Run(Random({3, 0, 16}), {});
  EXPECT_EQ(got.sizes(), at::IntArrayRef({3, 0, 8}));
}

TEST_P(PackedLinearTest, AnotherWidthOrDtypeIsRefused) {
  const PackedLinear linear(Random({8, 16}), true);
  EXPECT_THROW(linear.Run(Random({3, 15}), {}), c10::Error);
  EXPECT_THROW(linear.Run(at::randn({3, 16}).to(at::kDouble), {}), c10::Error);
}

// A process's oneDNN is told once what it may use.
TEST(SharedLinearDeathTest, TakesBf16OnACpuWithoutAvx512) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto run = [] {
    ::setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
    const c10::InferenceMode inference;
    const at::Tensor weight = at::randn({70, 50}), x = at::randn({2, 7, 50}),
                     bias = at::randn({70});
    const at::Tensor got =
        SharedLinear(weight.to(at::kBFloat16), x.to(at::kBFloat16), bias.to(at::kBFloat16));
    const at::Tensor error = got.to(at::kFloat).sub(at::linear(x, weight, bias)).abs().max();
    std::fprintf(stderr, "packs bf16: %d, off by %g\n", CanPack(at::kBFloat16),
                 error.item<double>());
    std::_Exit(0);
  };
  EXPECT_EXIT(run(), ::testing::ExitedWithCode(0), "packs bf16: 0, off by 0\\.[01]");
}

constexpr auto kName = [](const auto& info) { return std::string(c10::toString(info.param)); };
INSTANTIATE_TEST_SUITE_P(Dtypes, PackedLinearTest, ::testing::Values(at::kFloat, at::kBFloat16),
                         kName);
INSTANTIATE_TEST_SUITE_P(Dtypes, SharedLinearTest, ::testing::Values(at::kFloat, at::kBFloat16),
                         kName);

}  // namespace
}  // namespace echelon::exec
