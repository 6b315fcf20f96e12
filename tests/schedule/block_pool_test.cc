#include "runtime/schedule/block_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace echelon::schedule {
namespace {

using Blocks = std::vector<int32_t>;
using testing::HasSubstr;

TEST(BlockPool, GivesARunAndRoomToGrowBehindIt) {
  BlockPool pool(100);
  const Blocks first = *pool.Take(3);
  EXPECT_EQ(first, Blocks({0, 1, 2}));
  const Blocks second = *pool.Take(2);  // in the middle of what is left: both can grow
  EXPECT_EQ(second, Blocks({50, 51}));
  EXPECT_EQ(*pool.Take(2, first.back()), Blocks({3, 4}));
  EXPECT_EQ(*pool.Take(1, second.back()), Blocks({52}));
  EXPECT_EQ(pool.ToText(), "free 92 of 100: 5..49 53..99");
}

TEST(BlockPool, TakesSeveralRunsWhereNoneIsLongEnough) {
  BlockPool pool(10);
  ASSERT_TRUE(pool.Take(10));
  ASSERT_TRUE(pool.Give({1, 2, 3, 6, 7, 9}).ok());
  EXPECT_EQ(pool.ToText(), "free 6 of 10: 1..3 6..7 9");
  EXPECT_EQ(*pool.Take(5), Blocks({1, 2, 3, 6, 7}));
  EXPECT_EQ(*pool.Take(1, 4), Blocks({9}));
}

TEST(BlockPool, GivesAllOrNothing) {
  BlockPool pool(4);
  EXPECT_FALSE(pool.Take(5));
  EXPECT_EQ(pool.free(), 4);
  EXPECT_EQ(*pool.Take(0), Blocks());
  EXPECT_EQ(pool.Take(4)->size(), 4U);
  EXPECT_FALSE(pool.Take(1));
  EXPECT_FALSE(pool.Take(-1));
  EXPECT_FALSE(BlockPool(0).Take(1));
}

TEST(BlockPool, JoinsWhatComesBackInAnyOrder) {
  BlockPool pool(8);
  ASSERT_TRUE(pool.Take(8));
  ASSERT_TRUE(pool.Give({5, 1, 7}).ok());
  ASSERT_TRUE(pool.Give({0, 6, 2, 3, 4}).ok());
  EXPECT_EQ(pool.ToText(), "free 8 of 8: 0..7");
}

TEST(BlockPool, RefusesWhatIsFreeOrNotItsOwn) {
  BlockPool pool(8);
  ASSERT_TRUE(pool.Take(4));
  EXPECT_THAT(std::string(pool.Give({0, 5}).message()), HasSubstr("block 5 of the KV cache"));
  EXPECT_THAT(std::string(pool.Give({0, 0}).message()), HasSubstr("but it is free"));
  EXPECT_THAT(std::string(pool.Give({8}).message()), HasSubstr("no such block"));
  EXPECT_FALSE(pool.Give({-1}).ok());
  EXPECT_EQ(pool.ToText(), "free 4 of 8: 4..7");
}

TEST(BlockPool, NeverGivesABlockTwice) {
  std::mt19937 random(7);
  BlockPool pool(200);
  std::vector<Blocks> owners;
  std::set<int32_t> used;
  for (int step = 0; step < 5000; ++step) {
    const bool grows = !owners.empty() && random() % 2 == 0;
    if (random() % 8 == 0 && !owners.empty()) {
      const size_t leaver = random() % owners.size();
      ASSERT_TRUE(pool.Give(owners[leaver]).ok());
      for (const int32_t block : owners[leaver]) used.erase(block);
      owners.erase(owners.begin() + static_cast<ptrdiff_t>(leaver));
      continue;
    }
    Blocks* owner = grows ? &owners[random() % owners.size()] : nullptr;
    const auto count = static_cast<int32_t>(grows ? 1 : 1 + random() % 12);
    const auto taken = pool.Take(count, grows ? owner->back() : -1);
    ASSERT_EQ(taken.has_value(), static_cast<size_t>(count) <= 200 - used.size());
    if (!taken) continue;
    for (const int32_t block : *taken) ASSERT_TRUE(used.insert(block).second) << block;
    ASSERT_EQ(pool.used(), static_cast<int32_t>(used.size()));
    if (owner == nullptr) owner = &owners.emplace_back();
    owner->insert(owner->end(), taken->begin(), taken->end());
  }
}

}  // namespace
}  // namespace echelon::schedule
