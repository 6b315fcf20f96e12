// Ranks that fail and nodes that are lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "tests/operator/reconcile/world.h"

namespace echelon::op::testing {
namespace {

using ::testing::HasSubstr;

std::string Policy(const char* on_failure, int most, int window = 3600) {
  return absl::StrFormat("{failurePolicy: {onRankFailure: %s, maxRestarts: %d, windowSeconds: %d}}",
                         on_failure, most, window);
}

TEST(ARankThatFails, IsRestartedByKubernetesAndNoted) {
  World world;
  world.Rest();
  world.Crash(world.Pod("A-0/1"), 137);
  const Plan plan = world.Pass();
  EXPECT_EQ(world.Actions(plan), "nothing to do\n");
  EXPECT_EQ(world.Says(plan, "Degraded"), "Degraded True RanksMissing: 0 of 2 ranks are ready");
  EXPECT_EQ(world.Says(plan, "event"),
            "event Warning RankFailed: net-A-0-0-1: exit code 137: no such file: net.pt2");
  EXPECT_EQ(plan.notes.size(), 2u) << "and that the object is unavailable";
  EXPECT_TRUE(world.Pass().notes.empty());
  world.Rest();
  EXPECT_EQ(world.Says(world.Look(), "Failed"),
            "Failed False WithinLimits: last failure: net-A-0-0-1: exit code 137: no such file: "
            "net.pt2");
}

TEST(AGroupThatFailsTooOften, GivesItsPodsBackUntilTheWindowHasPassed) {
  World world(Policy("RestartRank", 2, 600));
  world.Rest();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(world.Groups(), i == 0 ? "A-0 2/2" : "A-0 0/2");
    world.Crash(world.Pod("A-0/0"));
    world.Wait(absl::Seconds(10));
    world.Settle();
  }
  EXPECT_EQ(world.FindSet(world.observed.sets[0].name)->replicas, 0);
  world.Rest();
  EXPECT_TRUE(world.observed.pods.empty());
  EXPECT_EQ(world.Column(), "0/2 TooManyRestarts");
  const Plan plan = world.Look();
  EXPECT_EQ(
      world.Says(plan, "Failed"),
      "Failed True TooManyRestarts: group A-0 has failed more than 2 times within 600 s; last "
      "net-A-0-0-0: exit code 1: no such file: net.pt2; it is tried again when the window has "
      "passed; or change model, parallelism, overrides or template, which makes a new revision");
  ASSERT_TRUE(plan.requeue);
  world.now = *plan.requeue;
  world.Rest();
  EXPECT_EQ(world.Column(), "2/2 Available");
}

TEST(AGroupThatServes, IsNotGivenUp) {
  World world(Policy("RestartRank", 0));
  world.Rest();
  world.Crash(world.Pod("A-0/1"));
  world.FormGroup();
  world.Settle();
  EXPECT_EQ(world.Column(), "2/2 Available");
}

TEST(AFailure, IsFinalWherePolicySaysNone) {
  World world(Policy("None", 10));
  world.Rest();
  world.Crash(world.Pod("A-0/1"));
  world.Settle();
  world.Wait(absl::Hours(24));
  world.Rest();
  EXPECT_EQ(world.Column(), "0/2 RankFailed");
  world.Change("{suspend: true}");
  world.Rest();
  world.Change("{suspend: false}");
  world.Rest();
  EXPECT_EQ(world.Column(), "2/2 Available");
}

TEST(RestartGroup, RestartsTheOthersOnce) {
  World world(Policy("RestartGroup", 10));
  world.Rest();
  world.Wait(absl::Seconds(30));
  world.Crash(world.Pod("A-0/1"));
  EXPECT_EQ(world.Actions(world.Pass()),
            "delete Pod/net-A-0-0-0: RestartGroup: net-A-0-0-1 failed\n");
  world.Rest();
  EXPECT_EQ(world.Column(), "2/2 Available");
}

TEST(RestartGroup, LeavesAloneWhatFailedBeforeThePolicy) {
  World world;
  world.Rest();
  world.Wait(absl::Seconds(30));
  world.Crash(world.Pod("A-0/1"));
  world.Rest();
  world.Change(Policy("RestartGroup", 10));
  EXPECT_EQ(world.Actions(world.Pass()), "nothing to do\n");
}

TEST(RestartGroup, HappensOnceWhereANodesClockIsAhead) {
  World world(Policy("RestartGroup", 10));
  world.Rest();
  world.Crash(world.Pod("A-0/1"));
  world.FindPod(world.Pod("A-0/1"))->terminated_at = world.now + absl::Hours(1);
  EXPECT_EQ(world.Actions(world.Pass()),
            "delete Pod/net-A-0-0-0: RestartGroup: net-A-0-0-1 failed\n");
  while (world.FinishPod() || world.MakePod()) {
  }
  EXPECT_EQ(world.Actions(world.Pass()), "nothing to do\n");
}

TEST(RestartGroup, FollowsAPodThatWasEvicted) {
  World world(Policy("RestartGroup", 10));
  world.Rest();
  PodView* pod = world.FindPod(world.Pod("A-0/1"));
  pod->phase = "Failed";
  pod->ready = false;
  EXPECT_EQ(world.Actions(world.Pass()),
            "delete Pod/net-A-0-0-0: RestartGroup: net-A-0-0-1 failed\n");
}

TEST(AGroupThatIsMadeAnew, BeginsWithoutTheFailuresOfTheEarlierOne) {
  World world(Policy("None", 10));
  world.Rest();
  world.Crash(world.Pod("A-0/1"));
  world.Settle();
  EXPECT_EQ(world.Column(), "0/2 RankFailed");
  world.Wait(absl::Seconds(10));
  world.Change("{model: {path: better.pt2}}");
  world.Rest();
  EXPECT_EQ(world.Groups(), "B-0 2/2");
  world.Change("{model: {path: net.pt2}}");
  world.Rest();
  EXPECT_EQ(world.Groups(), "A-0 2/2");
  world.DeletePod(world.Pod("A-0/0"));
  world.Rest();
  EXPECT_EQ(world.Column(), "2/2 Available");
}

TEST(TheLastFailure, StaysAsEvidence) {
  World world(Policy("RestartRank", 5, 60));
  world.Rest();
  for (int i = 0; i < 2; ++i) {
    world.Wait(absl::Seconds(1));
    world.Crash(world.Pod("A-0/1"), 40 + i);
    world.Settle();
  }
  EXPECT_EQ(world.object.status.failures.size(), 2u);
  world.Wait(absl::Hours(1));
  world.Rest();
  ASSERT_EQ(world.object.status.failures.size(), 1u);
  EXPECT_THAT(world.object.status.failures[0].message, HasSubstr("exit code 41"));
}

TEST(APodOnALostNode, IsDeletedByForceFiveSecondsAfterTheMark) {
  World world;
  world.Rest();
  world.LoseNode("n2");
  Plan plan = world.Pass();
  EXPECT_EQ(world.Actions(plan), "nothing to do\n");
  EXPECT_EQ(plan.requeue, world.now + absl::Seconds(5));
  world.Wait(absl::Seconds(5));
  EXPECT_EQ(world.Actions(world.Pass()), "delete by force Pod/net-A-0-0-1: node n2 is lost\n");
  world.Rest();
  EXPECT_EQ(world.Column(), "2/2 Available");
  EXPECT_EQ(world.FindPod(world.Pod("A-0/1"))->node, "n3");
}

TEST(APodThatDrainsOnANodeThatIsThere, KeepsItsGracePeriod) {
  World world;
  world.Rest();
  world.LoseNode("n2");
  PodView* pod = world.FindPod(world.Pod("A-0/1"));
  pod->reported_at = world.now + absl::Seconds(1);  // its kubelet said that it is not ready
  world.Wait(absl::Seconds(20));
  EXPECT_EQ(world.Actions(world.Pass()), "nothing to do\n");
  EXPECT_EQ(world.Look().requeue, pod->deletion + absl::Seconds(5));
}

TEST(APodThatOnlyTerminates, IsLeftAlone) {
  World world;
  world.Rest();
  world.DeletePod(world.Pod("A-0/1"));
  world.Wait(absl::Hours(1));
  EXPECT_EQ(world.Actions(world.Pass()), "nothing to do\n");
}

TEST(ALostNode, IsNoFailureOfTheRank) {
  World world(Policy("None", 0));
  world.Rest();
  world.LoseNode("n2");
  world.Wait(absl::Seconds(5));
  world.Rest();
  EXPECT_TRUE(world.object.status.failures.empty());
  EXPECT_EQ(world.Column(), "2/2 Available");
}

}  // namespace
}  // namespace echelon::op::testing
