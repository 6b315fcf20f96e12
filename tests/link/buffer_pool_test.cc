#include "runtime/link/buffer_pool.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>

namespace echelon::link {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

TEST(BufferPool, GivesABlockOutAgainWhenItsOwnerDied) {
  const auto pool = BufferPool::Create();
  void* const first = pool->Take(8 * kMiB).get();
  EXPECT_EQ(pool->Take(8 * kMiB).get(), first);
  EXPECT_EQ(pool->Take(8 * kMiB - 100).get(), first) << "nearly the same size";
}

TEST(BufferPool, NeverGivesOneBlockToTwoOwners) {
  const auto pool = BufferPool::Create();
  const auto one = pool->Take(8 * kMiB), two = pool->Take(8 * kMiB);
  EXPECT_NE(one.get(), two.get());
}

TEST(BufferPool, BlocksAreAlignedAndWritable) {
  const auto pool = BufferPool::Create();
  for (const size_t bytes :
       {size_t{0}, size_t{1}, size_t{40000}, 2 * kMiB - 1, 2 * kMiB, 5 * kMiB + 3}) {
    const auto block = pool->Take(bytes);
    ASSERT_NE(block, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block.get()) % 64, 0u);
    std::memset(block.get(), 1, bytes);
  }
}

TEST(BufferPool, KeepsNoMoreThanItsBound) {
  const auto pool = BufferPool::Create(20 * kMiB);
  { const auto a = pool->Take(8 * kMiB), b = pool->Take(8 * kMiB), c = pool->Take(8 * kMiB); }
  EXPECT_EQ(pool->free_bytes(), 16 * kMiB);
  pool->Take(64 * kMiB).reset();
  EXPECT_EQ(pool->free_bytes(), 0u);
}

TEST(BufferPool, BlocksOutliveThePoolsHandle) {
  auto pool = BufferPool::Create();
  const auto block = pool->Take(3 * kMiB);
  pool.reset();
  std::memset(block.get(), 1, 3 * kMiB);
}

TEST(BufferPool, SaysNoToTheImpossible) {
  EXPECT_EQ(BufferPool::Create()->Take(SIZE_MAX - 5), nullptr);
}

}  // namespace
}  // namespace echelon::link
