// A packed linear layer computes x W^T + b, and each row alone.
#include "runtime/exec/packed_linear.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "runtime/exec/stage_module.h"

namespace echelon::exec {
namespace {

class PackedLinearTest : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    KeepRowsAlone();
    SetThreads(1);
  }
  at::Tensor Random(at::IntArrayRef shape) { return at::randn(shape).to(GetParam()); }
  const c10::InferenceMode inference_;
};

TEST_P(PackedLinearTest, GivesWhatLinearGives) {
  const at::Tensor weight = Random({96, 200}), bias = Random({96}), x = Random({2, 7, 200});
  const at::Tensor wanted = at::linear(x, weight, bias), got = PackedLinear(weight).Run(x, bias);
  EXPECT_EQ(got.sizes(), wanted.sizes());
  EXPECT_TRUE(got.is_contiguous());
  EXPECT_EQ(got.scalar_type(), GetParam());
  EXPECT_TRUE(got.allclose(wanted, GetParam() == at::kFloat ? 1e-5 : 2e-2, 1e-4));
}

TEST_P(PackedLinearTest, TakesAWeightOfAnyStridesAndNoBias) {
  const at::Tensor weight = Random({200, 96}).t(), x = Random({200, 5}).t();
  EXPECT_TRUE(PackedLinear(weight).Run(x, {}).allclose(
      at::linear(x, weight), GetParam() == at::kFloat ? 1e-5 : 2e-2, 1e-4));
}

TEST_P(PackedLinearTest, ARowIsTheSameInEveryBatch) {
  for (const auto& [inputs, outputs] : {std::pair{2048, 5632}, {576, 192}, {1536, 576}, {64, 33}}) {
    const PackedLinear linear(Random({outputs, inputs}));
    const at::Tensor x = Random({130, inputs});
    const at::Tensor whole = linear.Run(x, {});
    for (const int64_t rows : {1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 64, 100, 129})
      for (const int64_t first : {int64_t{0}, 130 - rows})
        EXPECT_TRUE(linear.Run(x.narrow(0, first, rows), {}).equal(whole.narrow(0, first, rows)))
            << rows << " rows of " << inputs << " -> " << outputs << " from " << first;
  }
}

TEST_P(PackedLinearTest, OfAWeightThatStaysARowIsTheSameInEveryBatchToo) {
  for (const auto& [inputs, outputs] : {std::pair{2048, 2048}, {576, 192}, {80, 5}, {64, 128}}) {
    const at::Tensor weight = Random({outputs, inputs}), x = Random({130, inputs});
    const at::Tensor whole = SharedLinear(weight, x, {});
    EXPECT_TRUE(
        whole.allclose(at::linear(x, weight), GetParam() == at::kFloat ? 1e-5 : 2e-2, 1e-3));
    for (const int64_t rows : {1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 64, 100, 129})
      EXPECT_TRUE(SharedLinear(weight, x.narrow(0, 130 - rows, rows), {})
                      .equal(whole.narrow(0, 130 - rows, rows)))
          << rows << " rows of " << inputs << " -> " << outputs;
  }
}

TEST_P(PackedLinearTest, NoRowsGiveNoRows) {
  const at::Tensor got = PackedLinear(Random({8, 16})).Run(Random({3, 0, 16}), {});
  EXPECT_EQ(got.sizes(), at::IntArrayRef({3, 0, 8}));
}

TEST_P(PackedLinearTest, AnotherWidthOrDtypeIsRefused) {
  const PackedLinear linear(Random({8, 16}));
  EXPECT_THROW(linear.Run(Random({3, 15}), {}), c10::Error);
  EXPECT_THROW(linear.Run(at::randn({3, 16}).to(at::kDouble), {}), c10::Error);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, PackedLinearTest, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

}  // namespace
}  // namespace echelon::exec
