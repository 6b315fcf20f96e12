// Which groups there are, from the first one to a rollout that is taken back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "tests/operator/reconcile/world.h"

namespace echelon::op::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kNewModel[] = "{model: {path: better.pt2}}";

std::string Rollout(int replicas, int surge, int unavailable) {
  return absl::StrFormat("{replicas: %d, rollout: {maxSurge: %d, maxUnavailable: %d}}", replicas,
                         surge, unavailable);
}

TEST(ANewObject, GetsItsRevisionItsServicesAndItsFirstGroup) {
  World world;
  EXPECT_EQ(world.Actions(world.Pass()),
            "apply ControllerRevision/net-A: no earlier revision has this spec\n"
            "apply Service/net: it is not there\n"
            "apply Service/net-ranks: it is not there\n"
            "apply PodDisruptionBudget/net: it is not there\n"
            "apply NetworkPolicy/net: it is not there\n"
            "apply StatefulSet/net-A-0-0: group A-0 is wanted\n");
  EXPECT_EQ(world.Actions(world.Pass()), "nothing to do\n");
}

TEST(ANewObject, HasASetForEachRunOfEqualRanks) {
  World world(
      "{parallelism: {stages: 4}, overrides: [{name: big, firstRank: 1, count: 2, nodeSelector: "
      "{gpu: big}}]}");
  world.Settle();
  EXPECT_NE(world.FindSet(world.observed.sets[0].name), nullptr);
  ASSERT_EQ(world.observed.sets.size(), 3u);
  EXPECT_EQ(world.observed.sets[1].first_rank, 1);
  EXPECT_EQ(world.observed.sets[1].replicas, 2);
  EXPECT_EQ(world.observed.sets[2].first_rank, 3);
}

TEST(ASetThatIsNotSeenYet, IsNotMadeAgainBesideItsPods) {
  World world;
  world.Settle();
  ASSERT_TRUE(world.MakePod());
  const std::vector<SetView> sets = std::exchange(world.observed.sets, {});
  EXPECT_EQ(world.Actions(world.Look()), "nothing to do\n");
  EXPECT_EQ(world.Look().requeue, world.now + absl::Minutes(1));
  world.observed.sets = sets;
  world.Rest();
  EXPECT_EQ(world.Groups(), "A-0 2/2");
}

TEST(Groups, AreAdmittedOneAfterTheOther) {
  World world("{replicas: 3}");
  EXPECT_EQ(world.Story(),
            "A-0 0/2\n"
            "A-0 0/2, A-1 0/2\n"
            "A-0 0/2, A-1 0/2, A-2 0/2\n"
            "A-0 2/2, A-1 0/2, A-2 0/2\n"
            "A-0 2/2, A-1 2/2, A-2 0/2\n"
            "A-0 2/2, A-1 2/2, A-2 2/2\n");
  EXPECT_EQ(world.Column(), "6/6 Available");
}

TEST(ScalingDown, RemovesTheHighestIndex) {
  World world("{replicas: 3}");
  world.Rest();
  world.Change("{replicas: 1}");
  EXPECT_EQ(world.Story(), "A-0 2/2\n");
}

TEST(ScalingDown, RemovesAGroupThatServesNobodyFirst) {
  World world("{replicas: 3}");
  world.Rest();
  world.Crash(world.Pod("A-0/1"));
  world.Change("{replicas: 2}");
  world.Settle();
  EXPECT_EQ(world.Groups(), "A-1 2/2, A-2 2/2");
}

TEST(ARollout, BringsTheNewGroupUpBeforeTheOldOneGoes) {
  World world;
  world.Rest();
  world.Change(kNewModel);
  EXPECT_EQ(world.Story(),
            "A-0 2/2, B-0 0/2\n"
            "A-0 2/2, B-0 2/2\n"
            "B-0 2/2\n");
  EXPECT_EQ(world.Column(), "2/2 Available");
}

TEST(ARollout, OfSeveralGroupsGoesOneByOne) {
  World world(Rollout(3, 1, 0));
  world.Rest();
  world.Change(kNewModel);
  EXPECT_EQ(world.Story(),
            "A-0 2/2, A-1 2/2, A-2 2/2, B-0 0/2\n"
            "A-0 2/2, A-1 2/2, A-2 2/2, B-0 2/2\n"
            "A-0 2/2, A-1 2/2, B-0 2/2, B-1 0/2\n"
            "A-0 2/2, A-1 2/2, B-0 2/2, B-1 2/2\n"
            "A-0 2/2, B-0 2/2, B-1 2/2, B-2 0/2\n"
            "A-0 2/2, B-0 2/2, B-1 2/2, B-2 2/2\n"
            "B-0 2/2, B-1 2/2, B-2 2/2\n");
}

TEST(ARollout, WithoutSurgeRemovesTheOldOneFirst) {
  World world(Rollout(1, 0, 1));
  world.Rest();
  world.Change(kNewModel);
  const std::string plan = world.Actions(world.Look());
  EXPECT_THAT(plan, AllOf(HasSubstr("delete StatefulSet/net-A-0-0:"), HasSubstr("try StatefulSet/"),
                          Not(HasSubstr("apply StatefulSet"))));
  EXPECT_EQ(world.Story(),
            "B-0 0/2\n"
            "B-0 2/2\n");
}

TEST(ARollout, RemovesABrokenOldGroupAtOnce) {
  World world(Rollout(1, 1, 0));
  world.room = 0;  // it never finds a node
  world.Rest();
  world.Change(kNewModel);
  world.Settle();
  EXPECT_EQ(world.Groups(), "B-0 0/2");
}

TEST(ARollout, KeepsAnOldGroupThatIsComingBack) {
  World world;
  world.Rest();
  world.Crash(world.Pod("A-0/1"));
  world.Change(kNewModel);
  world.Settle();
  EXPECT_EQ(world.Groups(), "A-0 0/2, B-0 0/2");
  EXPECT_EQ(world.Story(),
            "A-0 0/2, B-0 0/2\n"
            "A-0 2/2, B-0 0/2\n"
            "A-0 2/2, B-0 2/2\n"
            "B-0 2/2\n");
}

TEST(ARollout, RestoresASetOfAnOldGroupWhileTheNewOneIsNotReady) {
  World world;
  world.Rest();
  world.room = 2;
  world.Change(kNewModel);
  world.Rest();
  world.DeleteSet(world.observed.sets[0].name);
  world.Rest();
  EXPECT_THAT(world.Groups(), HasSubstr("B-0"));
  EXPECT_EQ(world.ReadyGroups(), 1);
}

TEST(ARollout, TakenBackKeepsTheGroupsThatAreStillThere) {
  World world(Rollout(2, 1, 0));
  world.Rest();
  const std::string uid = world.observed.sets[0].uid;
  world.Change(kNewModel);
  world.Settle();
  EXPECT_EQ(world.Groups(), "A-0 2/2, A-1 2/2, B-0 0/2");
  world.Change("{model: {path: net.pt2}}");
  EXPECT_EQ(world.Story(), "A-0 2/2, A-1 2/2\n");
  EXPECT_EQ(world.observed.sets[0].uid, uid);
}

TEST(ARollout, FollowsTheNumberOfReplicasMeanwhile) {
  World world(Rollout(1, 1, 0));
  world.Rest();
  world.Change(kNewModel);
  world.Settle();
  world.Change("{replicas: 3}");
  EXPECT_EQ(world.Story(),
            "A-0 2/2, B-0 0/2\n"
            "A-0 2/2, B-0 0/2, B-1 0/2\n"
            "A-0 2/2, B-0 0/2, B-1 0/2, B-2 0/2\n"
            "A-0 2/2, B-0 2/2, B-1 0/2, B-2 0/2\n"
            "A-0 2/2, B-0 2/2, B-1 2/2, B-2 0/2\n"
            "A-0 2/2, B-0 2/2, B-1 2/2, B-2 2/2\n"
            "B-0 2/2, B-1 2/2, B-2 2/2\n");
}

TEST(ARollout, AndAScaleDownRemoveOldGroupsOnlyAsLongAsEnoughServe) {
  World world(Rollout(3, 1, 0));
  world.Rest();
  world.Change(kNewModel);
  world.Settle();
  world.Change("{replicas: 1}");
  EXPECT_EQ(world.Story(),
            "A-0 2/2, B-0 0/2\n"
            "A-0 2/2, B-0 2/2\n"
            "B-0 2/2\n");
}

TEST(ANewOperator, RestartsNothing) {
  World world;
  world.Rest();
  world.settings = {.runtime_image = "runtime:2", .exporter_image = "exporter:2"};
  EXPECT_EQ(world.Actions(world.Look()), "nothing to do\n");
}

TEST(OldRevisions, AreKeptButForTheLastThree) {
  World world;
  for (int i = 0; i < 7; ++i) {
    world.Change(absl::StrFormat("{model: {revision: v%d}}", i));
    world.Rest();
  }
  EXPECT_EQ(world.observed.revisions.size(), 4u);
  EXPECT_EQ(world.observed.revisions.back().number, 7);
}

TEST(AServiceOfOtherPorts, IsAppliedAgainAndNothingElse) {
  World world;
  world.Rest();
  world.Change("{service: {annotations: {team: a}}}");
  EXPECT_EQ(world.Actions(world.Pass()), "apply Service/net: its part of the spec has changed\n");
  EXPECT_EQ(world.Actions(world.Pass()), "nothing to do\n");
}

TEST(ASuspendedObject, HasNoGroupsAndComesBack) {
  World world("{replicas: 2}");
  world.Rest();
  world.Change("{suspend: true}");
  EXPECT_EQ(world.Story(), "\n");
  EXPECT_EQ(world.Column(), "0/0 Suspended");
  EXPECT_EQ(world.observed.objects.size(), 4u);
  world.Change("{suspend: false}");
  world.Rest();
  EXPECT_EQ(world.Column(), "4/4 Available");
}

TEST(AnObjectThatIsSuspendedFromTheStart, GetsNothing) {
  World world("{suspend: true}");
  EXPECT_EQ(world.Actions(world.Pass()), "nothing to do\n");
  EXPECT_TRUE(world.observed.objects.empty());
}

TEST(AnObjectThatIsBeingDeleted, IsLeftToTheGarbageCollector) {
  World world;
  world.Rest();
  world.object.deleting = true;
  const Plan plan = world.Look();
  EXPECT_TRUE(plan.actions.empty());
  EXPECT_EQ(plan.status, world.object.status);
}

constexpr char kDirectory[] = "{model: {path: smollm2}}";

TEST(ADirectory, IsExportedBeforeItsGroupIsMade) {
  World world(kDirectory);
  EXPECT_THAT(world.Actions(world.Pass()), HasSubstr("apply Job/net-A-export: the model is"));
  EXPECT_TRUE(world.observed.sets.empty());
  EXPECT_EQ(world.Column(), "0/2 Exporting");
  EXPECT_EQ(world.Says(world.Look(), "ModelReady"),
            "ModelReady False Exporting: Job net-A-export exports smollm2");
  world.Rest();
  EXPECT_EQ(world.Column(), "2/2 Available");
  world.observed.jobs.clear();  // somebody cleans up
  EXPECT_EQ(world.Actions(world.Look()), "nothing to do\n");
}

TEST(ADirectory, ThatCannotBeExportedSaysWhyAndTheOldGroupServesOn) {
  World world("{rollout: {maxSurge: 0, maxUnavailable: 1}}");
  world.Rest();
  world.Change(kDirectory);
  world.Settle();
  world.observed.jobs[0].gave_up = true;
  world.observed.jobs[0].message = "Job has reached the specified backoff limit";
  world.Rest();
  EXPECT_EQ(world.Groups(), "A-0 2/2");
  EXPECT_EQ(world.Column(), "2/2 ExportFailed");
  EXPECT_EQ(world.Says(world.Look(), "ModelReady"),
            "ModelReady False ExportFailed: Job net-B-export failed: Job has reached the specified "
            "backoff limit; see its log, and delete it to try again");
  world.observed.jobs.clear();
  world.Rest();
  EXPECT_EQ(world.Column(), "2/2 Available");
}

TEST(ASetThatSomebodyDeleted, ComesBackOnceThePodsOfItsNamesAreGone) {
  World world;
  world.Rest();
  world.DeleteSet(world.observed.sets[0].name);
  EXPECT_EQ(world.Groups(), "");
  world.Settle();
  EXPECT_EQ(world.Groups(), "A-1 0/2") << "another group's names are free at once";
  world.Rest();
  EXPECT_EQ(world.Column(), "2/2 Available");
}

TEST(OneOfAGroupsSetsThatSomebodyDeleted, ComesBackOnceThePodsOfItsNamesAreGone) {
  World world("{overrides: [{name: last, firstRank: 1, speed: 2, nodeSelector: {a: b}}]}");
  world.Rest();
  world.DeleteSet(world.observed.sets[1].name);
  EXPECT_EQ(world.Settle(), 0);
  EXPECT_EQ(world.Story(), "A-0 0/2\nA-0 2/2\n");
}

}  // namespace
}  // namespace echelon::op::testing
