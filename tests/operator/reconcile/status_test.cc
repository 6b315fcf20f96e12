// What status says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/operator/reconcile/world.h"

namespace echelon::op::testing {
namespace {

using ::testing::HasSubstr;

std::string Phases(const World& world) {
  std::string text;
  for (const RankState& rank : world.Look().status.ranks) {
    text += (text.empty() ? "" : ", ") + rank.phase;
  }
  return text;
}

HeadView Answer(World* world, const std::vector<std::string>& phases) {
  HeadView answer{.pod_uid = world->FindPod(world->Pod("A-0/0"))->uid, .epoch = 3};
  for (int rank = 0; rank < static_cast<int>(phases.size()); ++rank) {
    answer.ranks.push_back(
        {.rank = rank,
         .phase = phases[rank],
         .incarnation = world->FindPod(world->Pod("A-0/" + std::to_string(rank)))->uid,
         .loaded_bytes = 10,
         .total_bytes = 40});
  }
  return answer;
}

// With all pods running, but no group formed.
World Starting() {
  World world;
  while (world.Settle() + (world.MakePod() || world.PlacePod() || world.StartPod() ? 1 : 0) > 0) {
  }
  return world;
}

TEST(Conditions, OfAGroupThatServesReadAsSentences) {
  World world;
  world.Rest();
  const std::string text = world.Named(Print(world.Look()));
  EXPECT_EQ(text,
            "nothing to do\n"
            "Available True Available: 1 of 1 group has a ready head\n"
            "Progressing True Complete: 1 group of revision A is ready\n"
            "Degraded False AllReady: 2 of 2 ranks are ready\n"
            "ModelReady True Loaded: 2 of 2 ranks have loaded net.pt2\n"
            "GroupFormed True Formed: 1 of 1 group is formed\n"
            "Failed False WithinLimits: no rank has failed\n");
}

TEST(Conditions, OfANewObjectReadAsSentences) {
  World world;
  const std::string text = world.Named(Print([&] {
    world.Pass();
    return world.Pass();
  }()));
  EXPECT_THAT(text, HasSubstr("Available False TooFewReady: 0 of 1 group has a ready head\n"
                              "Progressing True GroupForming: 0 of 1 group of revision A is "
                              "ready\n"
                              "Degraded True RanksMissing: 0 of 2 ranks are ready\n"
                              "ModelReady False Loading: 0 of 2 ranks have loaded net.pt2\n"
                              "GroupFormed False GroupForming: group A-0 is forming\n"));
}

TEST(Status, HasWhatScaleAndEndpointsNeed) {
  World world("{replicas: 2}");
  world.Rest();
  const Status& status = world.object.status;
  EXPECT_EQ(status.replicas, 2);
  EXPECT_EQ(status.ready_replicas, 2);
  EXPECT_EQ(status.selector, "echelon.dev/deployment=net,apps.kubernetes.io/pod-index=0");
  EXPECT_EQ(status.endpoint, "net.ns.svc:8001");
  EXPECT_EQ(status.current_revision, status.update_revision);
}

TEST(Phases, FollowAPodFromItsPlaceToReady) {
  World world;
  world.Settle();
  EXPECT_EQ(Phases(world), "Pending, Pending");
  while (world.MakePod()) {
  }
  world.PlacePod();
  EXPECT_EQ(Phases(world), "Starting, Pending");
  while (world.PlacePod() || world.StartPod()) {
  }
  EXPECT_EQ(Phases(world), "Starting, Starting");
  HeadView& answer = world.observed.heads[world.Pod("A-0/0")];
  answer = Answer(&world, {"loading", "joined"});
  EXPECT_EQ(Phases(world), "Loading, Waiting");
  answer = Answer(&world, {"loaded", "ready"});
  EXPECT_EQ(Phases(world), "Loaded, Loaded");
  answer.ranks[1].incarnation = "an earlier pod";
  EXPECT_EQ(Phases(world), "Loaded, Starting");
  world.FormGroup();
  EXPECT_EQ(Phases(world), "Ready, Ready");
  world.DeletePod(world.Pod("A-0/1"));
  EXPECT_EQ(Phases(world), "Loaded, Terminating");
}

TEST(ASilentHead, MakesWhatItWouldTellUnknownAndNeverUnavailable) {
  World world;
  world.Rest();
  HeadView& answer = world.observed.heads[world.Pod("A-0/0")];
  answer.error = "no answer within 1 s";
  answer.missed = 1;
  EXPECT_THAT(world.Says(world.Look(), "GroupFormed"), HasSubstr("GroupFormed True"));
  answer.missed = 2;
  const Plan plan = world.Pass();
  EXPECT_EQ(world.Says(plan, "GroupFormed"),
            "GroupFormed Unknown HeadUnreachable: head net-A-0-0-0 does not answer at /status: no "
            "answer within 1 s");
  EXPECT_THAT(world.Says(plan, "ModelReady"), HasSubstr("ModelReady Unknown HeadUnreachable"));
  EXPECT_THAT(world.Says(plan, "Available"), HasSubstr("Available True"));
  EXPECT_THAT(world.Says(plan, "event"), HasSubstr("Warning HeadUnreachable"));
}

TEST(AnAnswer, OfAnEarlierPodIsDropped) {
  World world = Starting();
  HeadView& answer = world.observed.heads[world.Pod("A-0/0")];
  answer = Answer(&world, {"loaded", "loaded"});
  answer.pod_uid = "an earlier pod";
  EXPECT_EQ(Phases(world), "Starting, Starting");
}

TEST(AnEpoch, IsRememberedWhileANewHeadSaysNone) {
  World world;
  world.Rest();
  world.observed.heads[world.Pod("A-0/0")].epoch = 7;
  world.Pass();
  world.DeletePod(world.Pod("A-0/0"));
  while (world.FinishPod() || world.MakePod() || world.PlacePod() || world.StartPod()) {
  }
  world.observed.heads[world.Pod("A-0/0")] = Answer(&world, {"loading", "loading"});
  world.observed.heads[world.Pod("A-0/0")].epoch = 0;
  EXPECT_EQ(world.Pass().status.groups[0].epoch, 7);
}

TEST(AHeadThatWaitsToBeRestarted, IsNeitherAskedNorSilent) {
  World world = Starting();
  HeadView& answer = world.observed.heads[world.Pod("A-0/0")];
  answer = Answer(&world, {"loading", "loading"});
  answer.missed = 9;
  world.FindPod(world.Pod("A-0/0"))->waiting_reason = "CrashLoopBackOff";
  const Plan plan = world.Pass();
  EXPECT_THAT(plan.ask, ::testing::IsEmpty());
  EXPECT_THAT(world.Says(plan, "GroupFormed"), HasSubstr("GroupFormed False GroupForming"));
  world.FindPod(world.Pod("A-0/0"))->waiting_beside = true;
  EXPECT_THAT(world.Look().ask, ::testing::SizeIs(1)) << "another container than the rank waits";
}

TEST(LoadedBytes, AloneAreOnlyProgress) {
  World world = Starting();
  HeadView& answer = world.observed.heads[world.Pod("A-0/0")];
  answer = Answer(&world, {"loading", "loading"});
  world.Pass();
  world.Wait(absl::Seconds(2));
  answer.ranks[0].loaded_bytes = 20;
  EXPECT_TRUE(OnlyProgress(world.object.status, world.Look().status));
  answer.ranks[0].phase = "loaded";
  EXPECT_FALSE(OnlyProgress(world.object.status, world.Look().status));
  EXPECT_FALSE(OnlyProgress(world.object.status, world.object.status));
}

TEST(Loading, IsAStepForwardHoweverLongItTakes) {
  World world = Starting();
  HeadView& answer = world.observed.heads[world.Pod("A-0/0")];
  answer = Answer(&world, {"loading", "loading"});
  for (int i = 0; i < 10; ++i) {
    world.Wait(absl::Minutes(20));
    answer.ranks[0].loaded_bytes += 1;
    world.Settle();
    EXPECT_EQ(world.Column(), "0/2 GroupForming");
  }
  world.Wait(absl::Minutes(30));
  world.Settle();
  EXPECT_EQ(world.Column(), "0/2 ProgressDeadlineExceeded");
}

TEST(Heads, AreAskedOftenOnlyWhileSomethingMoves) {
  World world = Starting();
  EXPECT_THAT(world.Look().ask, ::testing::ElementsAre(world.Pod("A-0/0")));
  EXPECT_EQ(world.Look().ask_every, absl::Seconds(2));
  world.FormGroup();
  EXPECT_EQ(world.Look().ask_every, absl::Seconds(10));
}

TEST(AWaitingReason, IsTheReasonOfProgressing) {
  const struct {
    const char* waiting;
    const char* reason;
  } kCases[] = {{"ErrImagePull", "ImagePull"},
                {"ImagePullBackOff", "ImagePull"},
                {"CreateContainerConfigError", "CreateContainer"},
                {"CrashLoopBackOff", "CrashLoop"},
                {"ContainerCreating", "GroupForming"}};
  for (const auto& c : kCases) {
    World world = Starting();
    PodView* pod = world.FindPod(world.Pod("A-0/1"));
    pod->waiting_reason = c.waiting;
    pod->waiting_message = "because";
    world.Settle();
    EXPECT_EQ(world.Column(), std::string("0/2 ") + c.reason) << c.waiting;
  }
}

TEST(AContainerBesideTheRank, IsToldInItsOwnWords) {
  World world = Starting();
  PodView* pod = world.FindPod(world.Pod("A-0/1"));
  pod->waiting_reason = "CrashLoopBackOff";
  pod->waiting_message = "container fetch, 4 restarts, last exit code 6: back-off 40s";
  pod->waiting_beside = true;
  EXPECT_EQ(world.Says(world.Look(), "Progressing"),
            "Progressing True CrashLoop: net-A-0-0-1: CrashLoopBackOff: container fetch, 4 "
            "restarts, last exit code 6: back-off 40s");
}

TEST(AWarning, AboutPodsThatAreNotMadeIsTheReasonOfProgressing) {
  const struct {
    const char* message;
    const char* reason;
  } kCases[] = {
      {"create Pod net-0 failed: pods \"net-0\" is forbidden: exceeded quota: gpus",
       "QuotaExceeded"},
      {"create Pod net-0 failed: pods \"net-0\" is forbidden: violates PodSecurity \"restricted\"",
       "PodSecurity"},
      {"create Pod net-0 failed: admission webhook denied the request", "FailedCreate"}};
  for (const auto& c : kCases) {
    World world;
    world.Settle();
    world.observed.warnings.push_back({.kind = "StatefulSet",
                                       .object = world.observed.sets[0].name,
                                       .reason = "FailedCreate",
                                       .message = c.message,
                                       .last_seen = world.now});
    const Plan plan = world.Pass();
    EXPECT_EQ(world.Says(plan, "Progressing"), std::string("Progressing True ") + c.reason +
                                                   ": StatefulSet net-A-0-0: " + c.message);
    EXPECT_THAT(world.Says(plan, "event"), HasSubstr(std::string("event Warning ") + c.reason));
    EXPECT_TRUE(world.Pass().notes.empty());
  }
}

TEST(AnObjectThatTheApiServerDoesNotTake, IsTheReasonOfProgressing) {
  World world;
  world.Pass();
  const std::string name = world.observed.sets[0].name;
  world.observed.sets.clear();
  world.observed.warnings.push_back({.kind = "StatefulSet",
                                     .object = name,
                                     .reason = kFailedWrite,
                                     .message = "exceeded quota: statefulsets"});
  EXPECT_EQ(world.Says(world.Look(), "Progressing"),
            "Progressing True QuotaExceeded: StatefulSet net-A-0-0: exceeded quota: statefulsets");
  world.Settle();
  EXPECT_EQ(world.Column(), "0/2 GroupForming") << "it has been written, whoever says otherwise";
}

TEST(AWarning, OfAnEarlierTimeIsNoCause) {
  World world;
  world.Settle();
  world.observed.warnings.push_back({.kind = "StatefulSet",
                                     .object = world.observed.sets[0].name,
                                     .reason = "FailedCreate",
                                     .message = "exceeded quota: gpus",
                                     .last_seen = world.now});
  world.Settle();
  EXPECT_EQ(world.Column(), "0/2 QuotaExceeded");
  world.Wait(absl::Minutes(9));  // the StatefulSet controller tries ever more rarely
  world.Settle();
  EXPECT_EQ(world.Column(), "0/2 QuotaExceeded");
  world.Rest();
  world.DeletePod(world.Pod("A-0/1"));
  ASSERT_TRUE(world.FinishPod());
  world.Settle();
  EXPECT_EQ(world.Column(), "0/2 GroupForming");
}

TEST(AVolumeThatIsMissing, IsTheReasonOfProgressing) {
  World world;
  world.observed.claims = {{.name = "models", .missing = true}};
  world.Rest();
  world.DeletePod(world.Pod("A-0/0"));
  world.Settle();
  EXPECT_THAT(world.Says(world.Look(), "Progressing"),
              HasSubstr("VolumeMissing: there is no PersistentVolumeClaim models in namespace ns"));
}

TEST(Transitions, KeepTheirMoment) {
  World world;
  world.Rest();
  const absl::Time since = world.object.status.conditions[0].last_transition;
  world.Wait(absl::Minutes(5));
  EXPECT_EQ(world.Pass().status.conditions[0].last_transition, since);
  world.DeletePod(world.Pod("A-0/0"));
  const Plan plan = world.Pass();
  EXPECT_EQ(plan.status.conditions[0].last_transition, world.now);
  EXPECT_EQ(world.Says(plan, "event"), "event Warning Unavailable: 0 of 1 group has a ready head");
}

TEST(AvailableWithSpareGroups, AsksForFewerThanAllOfThem) {
  World world("{replicas: 3, rollout: {maxUnavailable: 1}}");
  world.Rest();
  world.DeletePod(world.Pod("A-0/0"));
  world.Settle();
  EXPECT_THAT(world.Says(world.Look(), "Available"),
              HasSubstr("Available True Available: 2 of 3 groups have a ready head"));
  EXPECT_THAT(world.Says(world.Look(), "Degraded"), HasSubstr("Degraded True"));
}

}  // namespace
}  // namespace echelon::op::testing
