// Objects that cannot be served.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/operator/reconcile/world.h"

namespace echelon::op::testing {
namespace {

using ::testing::HasSubstr;

void ExpectRefused(World* world, const std::string& line) {
  const Plan plan = world->Pass();
  EXPECT_EQ(world->Actions(plan), "nothing to do\n");
  EXPECT_EQ(world->Says(plan, "Progressing"), line);
}

TEST(AnObject, WithANameThatIsTakenGetsNothing) {
  World world;
  world.observed.objects.push_back({.kind = "Service", .name = "net", .uid = "x", .owner_uid = ""});
  ExpectRefused(&world,
                "Progressing False NameTaken: Service net exists and is not of this "
                "PipelineDeployment; delete it, or choose another name");
  EXPECT_EQ(world.Column(), "0/2 NameTaken");
  world.observed.objects.clear();
  world.Rest();
  EXPECT_EQ(world.Column(), "2/2 Available");
}

TEST(AnObject, DoesNotMindOthersThatOnlyCarryItsLabels) {
  World world;
  world.observed.objects.push_back({.kind = "Service", .name = "net-external", .uid = "x"});
  world.Rest();
  EXPECT_EQ(world.Column(), "2/2 Available");
}

TEST(AnObject, WhoseSetIsOfSomebodyElseGetsNothing) {
  World world;
  world.Pass();
  SetView& set = world.observed.sets[0];
  set.owner_uid = "of the object of that name that was deleted";
  const Plan plan = world.Pass();
  EXPECT_EQ(world.Actions(plan), "nothing to do\n");
  EXPECT_THAT(world.Says(plan, "Progressing"),
              HasSubstr("NameTaken: StatefulSet net-A-0-0 exists"));
}

TEST(AnInvalidObject, ChangesNothingAboutWhatRuns) {
  World world;
  world.Rest();
  world.Change("{parallelism: {ranksPerPod: 2}}");
  ASSERT_NE(world.object.invalid_reason, "");
  ExpectRefused(&world, "Progressing False " + world.object.invalid_reason + ": " +
                            world.object.invalid_message);
  EXPECT_EQ(world.Groups(), "A-0 2/2");
  EXPECT_THAT(world.Says(world.Look(), "Available"), HasSubstr("Available True"));
}

TEST(AnInvalidObject, ThatIsSuspendedGivesItsPodsBack) {
  World world;
  world.Rest();
  world.Change("{suspend: true, parallelism: {ranksPerPod: 2}}");
  ASSERT_NE(world.object.invalid_reason, "");
  EXPECT_EQ(world.Actions(world.Pass()), "delete StatefulSet/net-A-0-0: the object is suspended\n");
  world.Rest();
  EXPECT_TRUE(world.observed.pods.empty());
  EXPECT_EQ(world.Column(), "0/0 NotSupported");
}

TEST(AVolumeOfOneNode, IsRefusedForMoreThanOneRank) {
  World world;
  world.observed.claims = {{.name = "models", .access_modes = {"ReadWriteOnce"}}};
  ExpectRefused(
      &world,
      "Progressing False VolumeNotShared: claim models is ReadWriteOnce, but 2 ranks need "
      "it; use a claim that is ReadOnlyMany or ReadWriteMany");
  world.observed.claims[0].access_modes = {"ReadWriteOncePod"};
  EXPECT_THAT(world.Says(world.Look(), "Progressing"), HasSubstr("VolumeNotShared"));
  world.observed.claims[0].access_modes = {"ReadWriteOnce", "ReadOnlyMany"};
  EXPECT_THAT(world.Actions(world.Look()), HasSubstr("apply StatefulSet"));
}

TEST(AVolumeOfOneNode, DoesForASingleRank) {
  World world("{parallelism: {stages: 1}}");
  world.observed.claims = {{.name = "models", .access_modes = {"ReadWriteOnce"}}};
  world.Rest();
  EXPECT_EQ(world.Column(), "1/1 Available");
}

TEST(ATemplateThatIsNoPod, MakesNothingAndCostsNoOldGroup) {
  World world("{rollout: {maxSurge: 0, maxUnavailable: 1}}");
  world.Rest();
  world.Change("{template: {spec: {containers: many}}}");
  const Plan plan = world.Pass();
  EXPECT_EQ(world.Actions(plan), "nothing to do\n");
  EXPECT_THAT(world.Says(plan, "Progressing"), HasSubstr("False InvalidTemplate: "));
  EXPECT_EQ(world.Groups(), "A-0 2/2");
}

TEST(ATemplateThatTheApiServerRejects, MakesNothing) {
  World world;
  world.Pass();
  const std::string name = world.observed.sets[0].name;
  world.observed.sets.clear();
  world.observed.warnings.push_back(
      {.kind = "StatefulSet",
       .object = name,
       .reason = "InvalidTemplate",
       .message = "spec.template.spec.containers[0].image: Required"});
  ExpectRefused(&world,
                "Progressing False InvalidTemplate: spec.template.spec.containers[0].image: "
                "Required");
}

}  // namespace
}  // namespace echelon::op::testing
