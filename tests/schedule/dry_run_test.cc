#include "runtime/schedule/dry_run.h"

#include <gtest/gtest.h>

namespace echelon::schedule {
namespace {

TEST(FillDrainTable, IsTheArticlesPicture) {
  EXPECT_EQ(FillDrainTable(2, 4),
            "tick  rank 0  rank 1\n"
            "   0       0       .\n"
            "   1       1       0\n"
            "   2       2       1\n"
            "   3       3       2\n"
            "   4       .       3\n");
}

TEST(FillDrainTable, FillsAndDrainsMoreStagesThanChunks) {
  EXPECT_EQ(FillDrainTable(3, 2),
            "tick  rank 0  rank 1  rank 2\n"
            "   0       0       .       .\n"
            "   1       1       0       .\n"
            "   2       .       1       0\n"
            "   3       .       .       1\n");
}

TEST(Simulate, EqualStagesReachTheIdealWhenHopsAreFree) {
  for (int stages = 1; stages <= 8; ++stages) {
    for (int chunks = 1; chunks <= 32; ++chunks) {
      const double one_stage_ms = stages * 5.0 * chunks;
      EXPECT_DOUBLE_EQ(one_stage_ms / Simulate(stages, 5.0, 0, chunks),
                       IdealSpeedup(stages, chunks));
    }
  }
}

TEST(Simulate, TheSlowestStageSetsThePace) {
  EXPECT_DOUBLE_EQ(Simulate({1, 3, 1}, 0, 10), 1 + 10 * 3 + 1);
}

TEST(Simulate, HopsAddLatencyAndNotPace) {
  EXPECT_DOUBLE_EQ(Simulate(2, 10, 1, 8), Simulate(2, 10, 0, 8) + 2);
  EXPECT_DOUBLE_EQ(Simulate(1, 10, 1, 8), 80) << "one stage has no hop";
}

}  // namespace
}  // namespace echelon::schedule
