#include "runtime/stage/rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace echelon::stage {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// 0, 1, 2... in memory order.
Tensor Counting(std::vector<int64_t> shape, int32_t from = 0) {
  Tensor tensor = Tensor::Empty(DType::kI32, std::move(shape));
  auto* data = reinterpret_cast<int32_t*>(tensor.data);
  std::iota(data, data + tensor.elements(), from);
  return tensor;
}

std::vector<int32_t> Numbers(const Tensor& tensor) {
  const auto* data = reinterpret_cast<const int32_t*>(tensor.data);
  return {data, data + tensor.elements()};
}

TEST(RowMajor, TakesWhatIsSoAlreadyAsItIs) {
  const Tensor tensor = Counting({2, 3});
  EXPECT_EQ(RowMajor(tensor).data, tensor.data);
}

TEST(RowMajor, PutsPermutedElementsInOrder) {
  Tensor turned = Counting({2, 3});
  turned.strides = {1, 2};
  EXPECT_THAT(Numbers(RowMajor(turned)), ElementsAre(0, 2, 4, 1, 3, 5));
  EXPECT_TRUE(RowMajor(turned).strides.empty());
  Tensor last = Counting({1, 2, 1, 2});  // channels last
  last.strides = {4, 1, 4, 2};
  EXPECT_THAT(Numbers(RowMajor(last)), ElementsAre(0, 2, 1, 3));
}

TEST(RowMajor, KeepsEmptyTensors) {
  Tensor empty = Counting({0, 3});
  empty.strides = {1, 1};
  EXPECT_EQ(RowMajor(empty).nbytes, 0u);
}

TEST(Rows, ShareTheMemory) {
  const Tensor tensor = Counting({4, 2});
  const Tensor rows = Rows(tensor, 1, 2);
  EXPECT_THAT(rows.shape, ElementsAre(2, 2));
  EXPECT_THAT(Numbers(rows), ElementsAre(2, 3, 4, 5));
  EXPECT_EQ(rows.data, tensor.data + 8);
  EXPECT_EQ(rows.nbytes, 16u);
  EXPECT_EQ(Rows(Counting({0, 2}), 0, 0).nbytes, 0u);
}

TEST(Copy, SharesNothingAndKeepsStrides) {
  Tensor tensor = Counting({2, 3});
  tensor.strides = {1, 2};
  const Tensor copy = Copy(tensor);
  EXPECT_NE(copy.data, tensor.data);
  EXPECT_EQ(copy.strides, tensor.strides);
  EXPECT_EQ(Numbers(copy), Numbers(tensor));
}

TEST(Aligned, CopiesWhatDoesNotBeginAtACacheLine) {
  const Tensor tensor = Counting({4, 2});
  EXPECT_EQ(Aligned(tensor).data, tensor.data);
  const Tensor moved = Aligned(Rows(tensor, 1, 3));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(moved.data) % 64, 0u);
  EXPECT_THAT(Numbers(moved), ElementsAre(2, 3, 4, 5, 6, 7));
}

TEST(PutRows, PutsPartsTogetherInAnyOrder) {
  Tensor whole;
  ASSERT_TRUE(PutRows(Counting({1, 2}, 4), 2, 3, &whole).ok());
  ASSERT_TRUE(PutRows(Counting({2, 2}, 0), 0, 3, &whole).ok());
  EXPECT_THAT(whole.shape, ElementsAre(3, 2));
  EXPECT_THAT(Numbers(whole), ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(PutRows, TurnsPermutedParts) {
  Tensor whole, part = Counting({2, 2});
  part.strides = {1, 2};
  ASSERT_TRUE(PutRows(part, 1, 3, &whole).ok());
  ASSERT_TRUE(PutRows(Counting({1, 2}, 8), 0, 3, &whole).ok());
  EXPECT_THAT(Numbers(whole), ElementsAre(8, 9, 0, 2, 1, 3));
}

TEST(PutRows, TakesAWholeAsItIs) {
  Tensor whole;
  const Tensor part = Counting({3, 2});
  ASSERT_TRUE(PutRows(part, 0, 3, &whole).ok());
  EXPECT_EQ(whole.data, part.data);
}

TEST(PutRows, RefusesPartsThatDoNotFit) {
  Tensor whole;
  EXPECT_THAT(std::string(PutRows(Counting({2, 2}), 2, 3, &whole).message()),
              HasSubstr("2x2 does not fit row 2 of 3"));
  EXPECT_FALSE(PutRows(Counting({}), 0, 3, &whole).ok()) << "a scalar has no rows";
  ASSERT_TRUE(PutRows(Counting({1, 2}), 0, 3, &whole).ok());
  EXPECT_THAT(std::string(PutRows(Counting({1, 5}), 1, 3, &whole).message()),
              HasSubstr("micro-batches disagree"));
  EXPECT_FALSE(PutRows(Tensor::Empty(DType::kF32, {1, 2}), 1, 3, &whole).ok()) << "another dtype";
}

}  // namespace
}  // namespace echelon::stage
