// Groups that find no room.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/operator/reconcile/world.h"

namespace echelon::op::testing {
namespace {

using ::testing::HasSubstr;

TEST(AGroupWithoutRoom, HoldsTheNextOneBack) {
  World world("{replicas: 3}");
  world.room = 3;
  world.Rest();
  EXPECT_EQ(world.Groups(), "A-0 2/2, A-1 0/2");
  EXPECT_EQ(world.Column(), "2/6 FailedScheduling");
  EXPECT_EQ(world.Says(world.Look(), "Progressing"),
            "Progressing True FailedScheduling: net-A-1-0-1: 0/3 nodes are available: 3 "
            "Insufficient cpu.");
  world.room = 6;
  world.Rest();
  EXPECT_EQ(world.Column(), "6/6 Available");
}

TEST(AGroupWithoutRoom, GivesItsPodsBackAfterTheTimeoutAndTriesAgainWithGrowingDelay) {
  World world("{scheduling: {timeoutSeconds: 60}}");
  world.room = 1;
  absl::Duration last = absl::ZeroDuration();
  for (int attempt = 1; attempt <= 4; ++attempt) {
    world.Rest();
    ASSERT_EQ(world.observed.pods.size(), 2u);
    const absl::Time timeout = world.now + absl::Seconds(60);
    ASSERT_EQ(world.Look().requeue, timeout);
    world.now = timeout;
    EXPECT_EQ(world.Actions(world.Pass()),
              "scale StatefulSet/net-A-0-0 to 0: its group found no room\n");
    world.Rest();
    EXPECT_TRUE(world.observed.pods.empty());
    EXPECT_EQ(world.object.status.groups[0].attempts, attempt);
    EXPECT_EQ(world.Column(), "0/2 SchedulingTimeout");
    const absl::Time retry = *world.Look().requeue;
    EXPECT_GT(retry - timeout, last);
    last = retry - timeout;
    world.now = retry;
  }
  world.room = 2;
  world.Rest();
  EXPECT_EQ(world.Column(), "2/2 Available");
  EXPECT_EQ(world.object.status.groups[0].attempts, 0);
}

TEST(GroupsThatGaveTheirPodsBack, ComeBackInOrder) {
  World world("{replicas: 2, scheduling: {timeoutSeconds: 60}}");
  world.Rest();
  world.room = 0;
  for (const char* name : {"A-0/0", "A-0/1", "A-1/0", "A-1/1"}) world.DeletePod(world.Pod(name));
  world.Rest();
  world.Wait(absl::Seconds(60));
  world.Rest();
  ASSERT_TRUE(world.observed.pods.empty()) << "both have given up";
  // The first retries later than the second.
  world.object.status.groups[0].retry_at = world.now + absl::Seconds(30);
  world.object.status.groups[1].retry_at = world.now + absl::Seconds(10);
  world.room = 2;
  world.Wait(absl::Seconds(10));
  world.Rest();
  EXPECT_TRUE(world.observed.pods.empty());
  world.Wait(absl::Seconds(20));
  world.Rest();
  EXPECT_EQ(world.Groups(), "A-0 2/2, A-1 0/2");
}

TEST(ASurgeWithoutRoom, ReportsRolloutBlockedAndTheOldGroupServesOn) {
  World world("{scheduling: {timeoutSeconds: 60}}");
  world.room = 3;
  world.Rest();
  world.Change("{model: {path: better.pt2}}");
  world.Rest();
  EXPECT_EQ(world.Groups(), "A-0 2/2, B-0 0/2");
  EXPECT_EQ(world.Column(), "2/2 RolloutBlocked");
  EXPECT_THAT(world.Says(world.Look(), "Available"), HasSubstr("Available True"));
  EXPECT_THAT(world.Says(world.Look(), "Progressing"),
              HasSubstr("no room beside the old groups: net-B-0-0-1: 0/3 nodes"));
  world.Wait(absl::Seconds(60));
  world.Rest();
  EXPECT_EQ(world.Column(), "2/2 RolloutBlocked");
  EXPECT_EQ(world.observed.pods.size(), 2u) << "the new group has given its pods back";
}

TEST(ARolloutWithoutAStepForward, ExceedsItsDeadlineAndGoesOnTrying) {
  World world("{rollout: {progressDeadlineSeconds: 300}, scheduling: {timeoutSeconds: 100}}");
  world.room = 2;
  world.Rest();
  world.Change("{model: {path: better.pt2}}");
  world.Rest();
  const absl::Time start = world.now;
  while (world.now < start + absl::Seconds(300)) {
    world.Rest();
    const auto next = world.Look().requeue;
    ASSERT_TRUE(next);
    world.now = *next;
  }
  world.Rest();
  EXPECT_EQ(world.Column(), "2/2 ProgressDeadlineExceeded");
  EXPECT_THAT(world.Says(world.Look(), "Progressing"),
              HasSubstr("no step forward for 300 s; RolloutBlocked: no room"));
  world.room = 4;
  world.Rest();
  EXPECT_EQ(world.Groups(), "B-0 2/2");
  EXPECT_EQ(world.Column(), "2/2 Available");
}

}  // namespace
}  // namespace echelon::op::testing
