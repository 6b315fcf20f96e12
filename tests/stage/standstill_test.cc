#include "runtime/stage/standstill.h"

#include <gtest/gtest.h>

#include <vector>

namespace echelon::stage {
namespace {

TEST(Standstill, IsTheSameNumberOfBytesForLong) {
  const struct {
    const char* what;
    std::vector<std::optional<uint64_t>> each_second;
    int at;  // the first second that it is said; -1: never
  } cases[] = {
      {"reading that hangs", {0, 5, 5, 5, 5}, 4},
      {"reading that never begins", {0, 0, 0, 0}, 3},
      {"slow reading", {0, 0, 0, 1, 1, 1, 2, 2, 2, 3}, -1},
      {"waiting for others", {{}, {}, {}, {}, {}, {}}, -1},
      {"waiting, then reading", {{}, {}, {}, {}, 0, 0, 0, 7}, -1},
      {"one reading after another", {4, 4, 4, {}, 4, 4, 4}, -1},
      {"reading that hangs after a wait", {{}, {}, 4, 4, 4, 4}, 5},
  };
  for (const auto& one : cases) {
    Standstill standstill(absl::Seconds(3));
    int at = -1;
    for (int second = 0; second < static_cast<int>(one.each_second.size()); ++second) {
      const absl::Time now = absl::UnixEpoch() + absl::Seconds(second);
      if (standstill.Observe(one.each_second[second], now) && at < 0) at = second;
    }
    EXPECT_EQ(at, one.at) << one.what;
  }
}

}  // namespace
}  // namespace echelon::stage
