#include "runtime/group/formation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace echelon::group {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1000);

Identity Rank(int rank, const std::string& incarnation = "a", int world = 2) {
  return {.rank = rank,
          .world = world,
          .graph_digest = "d1",
          .revision = "r1",
          .incarnation = incarnation};
}

Joined Join(StreamId stream, const Identity& identity) {
  return {stream, identity, absl::StrCat("10.0.0.", identity.rank, ":7"),
          absl::StrCat("10.0.0.", identity.rank, ":9")};
}

class Story {  // a Formation and its clock
 public:
  explicit Story(int world = 2, const Timing& timing = {})
      : formation_(Rank(0, "a", world), timing, 100, kStart) {}
  std::string On(const Event& event) { return ToString(formation_.On(event, now_)); }
  std::string After(absl::Duration time, absl::Duration late = absl::ZeroDuration()) {
    now_ += time;
    return On(Tick{now_ - late});
  }
  void HeadLoads() {
    On(Join(kSelf, formation_.status().ranks.size() == 2 ? Rank(0) : Rank(0, "a", 3)));
    On(Loaded{kSelf});
  }
  void Form() {
    HeadLoads();
    On(Join(1, Rank(1)));
    On(Loaded{1});
    On(Opened{kSelf, 100});
    On(Opened{1, 100});
    ASSERT_TRUE(formation_.status().formed);
  }
  Formation& formation() { return formation_; }

 private:
  absl::Time now_ = kStart;
  Formation formation_;
};

TEST(Formation, FormsAnEpochWhenAllHaveLoadedAndOpened) {
  Story story;
  EXPECT_EQ(story.On(Join(kSelf, Rank(0))), "stream 0: send the plan\n");
  EXPECT_EQ(story.On(Loaded{kSelf}), "");
  EXPECT_EQ(story.On(Join(1, Rank(1))), "stream 1: send the plan\n");
  EXPECT_EQ(story.On(Progressed{1, 5, 10}), "");
  EXPECT_EQ(story.formation().ToString(), "epoch 99 gathering: 0 loaded, 1 loading");
  EXPECT_EQ(story.On(Loaded{1}),
            "stream 0: open epoch 100, next is 10.0.0.1:9\n"
            "stream 1: open epoch 100, next is 10.0.0.0:9\n");
  EXPECT_EQ(story.On(Opened{1, 99}), "") << "of another epoch";
  EXPECT_EQ(story.On(Opened{1, 100}), "");
  EXPECT_EQ(story.On(Opened{kSelf, 100}),
            "stream 0: epoch 100 is formed\n"
            "stream 1: epoch 100 is formed\n"
            "log: epoch 100 is formed: 2 ranks\n");
  EXPECT_EQ(story.formation().ToString(), "epoch 100 formed: 0 ready, 1 ready");
}

TEST(Formation, OneRankIsAGroupToo) {
  Formation formation(Rank(0, "a", 1), {}, 7, kStart);
  formation.On(Join(kSelf, Rank(0, "a", 1)), kStart);
  formation.On(Loaded{kSelf}, kStart);
  EXPECT_EQ(ToString(formation.On(Opened{kSelf, 7}, kStart)),
            "stream 0: epoch 7 is formed\nlog: epoch 7 is formed: 1 ranks\n");
}

TEST(Formation, RefusesStrangersWithTheReason) {
  Story story;
  story.HeadLoads();
  Identity other_model = Rank(1), other_revision = Rank(1);
  other_model.graph_digest = "d2";
  other_revision.revision = "r2";
  const std::vector<std::pair<Identity, std::string>> cases = {
      {Rank(1, "a", 3), "rank 1 says WORLD=3, the head has WORLD=2"},
      {Rank(2), "ranks of WORLD=2 that join are 1 to 1"},
      {Rank(0), "ranks of WORLD=2 that join are 1 to 1"},
      {Rank(-1), "ranks of WORLD=2 that join are 1 to 1"},
      {other_model,
       "its model file differs from the head's (digest d2, the head has d1); give both the same "
       "file"},
      {other_revision, "it is of revision \"r2\", the head of \"r1\""},
  };
  for (const auto& [identity, why] : cases) {
    const std::string text = absl::StrCat("rank ", identity.rank, " is refused: ", why);
    EXPECT_EQ(story.On(Join(1, identity)),
              absl::StrCat("log: ", text, " (10.0.0.", identity.rank, ":7)\n",
                           "stream 1: refuse: FAILED_PRECONDITION: ", text, "\n"));
  }
}

TEST(Formation, RefusesASecondProcessWhileTheFirstLives) {
  Story story;
  story.Form();
  EXPECT_EQ(story.On(Join(2, Rank(1, "b"))), "")
      << "first it must be known whether the older one lives";
  EXPECT_EQ(story.On(Heard{1}), "");
  EXPECT_EQ(story.On(Heard{1}),
            "stream 2: refuse: FAILED_PRECONDITION: rank 1 is refused: rank 1 is already taken by "
            "a process at "
            "10.0.0.1:7\n");
  EXPECT_TRUE(story.formation().status().formed);
}

TEST(Formation, ANewerProcessWinsWhenTheOlderIsDead) {
  Story story;
  story.Form();
  story.On(Join(2, Rank(1, "b")));
  EXPECT_EQ(story.On(Lost{1, "its stream broke"}),
            "log: rank 1 at 10.0.0.1:7 is gone: its stream broke\n"
            "log: epoch 100 is closed: rank 1 is gone: its stream broke\n"
            "stream 0: close epoch 100: UNAVAILABLE: rank 1 is gone: its stream broke\n"
            "stream 2: send the plan\n");
  EXPECT_EQ(story.On(Loaded{2}),
            "stream 0: open epoch 101, next is 10.0.0.1:9\n"
            "stream 2: open epoch 101, next is 10.0.0.0:9\n");
}

TEST(Formation, TheSameProcessDiallingAnewReplacesItsOlderStreamAtOnce) {
  Story story;
  story.Form();
  EXPECT_EQ(story.On(Join(2, Rank(1))),
            "stream 1: drop: it joined anew\n"
            "log: rank 1 at 10.0.0.1:7 is gone: it joined anew\n"
            "log: epoch 100 is closed: rank 1 is gone: it joined anew\n"
            "stream 0: close epoch 100: UNAVAILABLE: rank 1 is gone: it joined anew\n"
            "stream 2: send the plan\n");
  EXPECT_EQ(story.On(Lost{1, "its stream broke"}), "") << "the older stream is nobody's";
  EXPECT_EQ(story.formation().status().ranks[1].joins, 2);
}

TEST(Formation, SilenceEndsTheEpochAndTheRankMayComeBack) {
  Story story;
  story.Form();
  EXPECT_EQ(story.After(absl::Milliseconds(650)), "");
  EXPECT_EQ(story.After(absl::Milliseconds(100)),
            "stream 1: drop: silent for 700ms\n"
            "log: rank 1 at 10.0.0.1:7 is gone: silent for 700ms\n"
            "log: epoch 100 is closed: rank 1 is gone: silent for 700ms\n"
            "stream 0: close epoch 100: UNAVAILABLE: rank 1 is gone: silent for 700ms\n");
  EXPECT_EQ(story.formation().ToString(), "epoch 100 gathering: 0 loaded, 1 missing");
  EXPECT_EQ(story.formation().status().ranks[1].last_error, "silent for 700ms");
  story.On(Join(2, Rank(1)));
  EXPECT_EQ(story.On(Loaded{2}),
            "stream 0: open epoch 101, next is 10.0.0.1:9\n"
            "stream 2: open epoch 101, next is 10.0.0.0:9\n");
}

TEST(Formation, NobodyIsSilentWhileTheHeadItselfDidNotRun) {
  Story story;
  story.Form();
  EXPECT_EQ(story.After(absl::Seconds(5), /*late=*/absl::Milliseconds(4900)), "");
  EXPECT_EQ(story.After(absl::Milliseconds(500)), "");
  EXPECT_EQ(story.After(absl::Milliseconds(100), /*late=*/absl::Milliseconds(100)), "")
      << "in time";
  EXPECT_THAT(story.After(absl::Milliseconds(1)),
              testing::HasSubstr("stream 1: drop: silent for 700ms"));
}

TEST(Formation, NorIsAProcessThatClaimsARank) {
  Story story;
  story.Form();
  story.On(Join(2, Rank(1, "b")));
  EXPECT_EQ(story.After(absl::Seconds(5), /*late=*/absl::Milliseconds(4900)), "");
  story.On(Heard{1});
  EXPECT_THAT(story.After(absl::Milliseconds(601)), testing::HasSubstr("stream 2: drop: silent"));
}

TEST(Formation, AReportedFailureClosesTheEpochEverywhereAndTriesAgainAfterAPause) {
  Story story;
  story.Form();
  EXPECT_EQ(story.On(Failed{1, 100, absl::UnavailableError("its link broke")}),
            "log: epoch 100 is closed: rank 1 reports: its link broke\n"
            "stream 0: close epoch 100: UNAVAILABLE: rank 1 reports: its link broke\n"
            "stream 1: close epoch 100: UNAVAILABLE: rank 1 reports: its link broke\n");
  EXPECT_EQ(story.On(Failed{kSelf, 100, absl::UnavailableError("its link broke")}), "")
      << "closed already";
  EXPECT_EQ(story.After(absl::Milliseconds(20)), "");
  story.On(Heard{1});
  EXPECT_EQ(story.After(absl::Milliseconds(40)),
            "stream 0: open epoch 101, next is 10.0.0.1:9\n"
            "stream 1: open epoch 101, next is 10.0.0.0:9\n");
}

TEST(Formation, LinksThatDoNotOpenInTimeAreNamed) {
  Story story(2, {.liveness = absl::InfiniteDuration(), .open = absl::Seconds(10)});
  story.HeadLoads();
  story.On(Join(1, Rank(1)));
  story.On(Loaded{1});
  story.On(Opened{kSelf, 100});
  EXPECT_EQ(story.After(absl::Seconds(11)),
            "log: epoch 100 is closed: rank 1 of 2 did not open its links within 10s\n"
            "stream 0: close epoch 100: DEADLINE_EXCEEDED: rank 1 of 2 did not open its links "
            "within 10s\n"
            "stream 1: close epoch 100: DEADLINE_EXCEEDED: rank 1 of 2 did not open its links "
            "within 10s\n");
}

TEST(Formation, SaysEveryTenSecondsWhoIsMissingAndEndsAtItsDeadline) {
  Story story(3, {.liveness = absl::InfiniteDuration(), .join = absl::Seconds(25)});
  story.HeadLoads();
  EXPECT_EQ(story.After(absl::Seconds(10)), "log: waiting for ranks 1, 2 of 3 to join\n");
  EXPECT_EQ(story.After(absl::Seconds(1)), "");
  story.On(Join(1, Rank(1, "a", 3)));
  EXPECT_EQ(story.After(absl::Seconds(10)), "log: waiting for rank 2 of 3 to join\n");
  EXPECT_EQ(story.After(absl::Seconds(5)),
            "end: DEADLINE_EXCEEDED: rank 2 of 3 did not join within 25 s\n");
  EXPECT_EQ(story.On(Join(2, Rank(2, "a", 3))), "") << "it is over";
}

TEST(Formation, SlowLoadingIsNoReasonToGiveUpAsLongAsItAdvances) {
  Story story(2, {.liveness = absl::InfiniteDuration(), .join = absl::Seconds(25)});
  story.HeadLoads();
  story.On(Join(1, Rank(1)));
  story.After(absl::Seconds(20));
  story.On(Progressed{1, 10, 100});
  EXPECT_EQ(story.After(absl::Seconds(20)), "log: waiting for rank 1 of 2 to load\n");
  EXPECT_EQ(story.After(absl::Seconds(6)),
            "end: DEADLINE_EXCEEDED: rank 1 of 2 was not ready within 25 s\n");
}

TEST(Formation, ALoadThatFailsIsNamedAndEndsTheHeadOnlyWhenItIsItsOwn) {
  Story story;
  story.HeadLoads();
  story.On(Join(1, Rank(1)));
  EXPECT_EQ(
      story.On(LoadFailed{1, absl::DataLossError("net.pt2 is truncated")}),
      "log: rank 1 cannot load its stage: net.pt2 is truncated\n"
      "stream 1: drop: rank 1 cannot load its stage: net.pt2 is truncated\n"
      "log: rank 1 at 10.0.0.1:7 is gone: rank 1 cannot load its stage: net.pt2 is truncated\n");
  EXPECT_EQ(story.formation().status().ranks[1].last_error,
            "rank 1 cannot load its stage: net.pt2 is truncated");
  EXPECT_EQ(story.On(LoadFailed{kSelf, absl::NotFoundError("no net.pt2")}),
            "log: rank 0 cannot load its stage: no net.pt2\n"
            "end: NOT_FOUND: rank 0 cannot load its stage: no net.pt2\n");
}

// ---- Leaving -----------------------------------------------------------------------------------

constexpr char kStays[] =
    "log: rank 1 at 10.0.0.1:7 is told to stop: it stays until what runs has ended\n";
constexpr char kReleased[] =
    "stream 1: release\n"
    "log: rank 1 at 10.0.0.1:7 is gone: it was told to stop\n";

TEST(Formation, AWorkerThatLeavesIsReleasedWhenNothingRunsAndAnotherTakesItsPlace) {
  Story story;
  story.Form();
  EXPECT_EQ(story.On(Leaving{1}), kStays);
  EXPECT_EQ(story.After(absl::Milliseconds(400)), "") << "the head may be told to stop as well";
  story.On(Heard{1});
  EXPECT_EQ(story.After(absl::Milliseconds(200)), "stream 0: hold requests of epoch 100\n");
  EXPECT_TRUE(story.formation().status().formed);
  EXPECT_EQ(story.On(Idle{99}), "") << "of another epoch";
  EXPECT_EQ(story.On(Idle{100}),
            absl::StrCat("log: epoch 100 is closed: rank 1 leaves\n"
                         "stream 0: close epoch 100: UNAVAILABLE: rank 1 leaves\n"
                         "stream 1: close epoch 100: UNAVAILABLE: rank 1 leaves\n",
                         kReleased));
  EXPECT_EQ(story.On(Lost{1, "its stream broke"}), "") << "it is nobody's";
  EXPECT_EQ(story.On(Join(2, Rank(1, "b"))), "stream 2: send the plan\n");
  EXPECT_EQ(story.On(Loaded{2}),
            "stream 0: open epoch 101, next is 10.0.0.1:9\n"
            "stream 2: open epoch 101, next is 10.0.0.0:9\n");
}

TEST(Formation, AWorkerThatLeavesWhileNoEpochIsFormedIsReleasedAtOnce) {
  Story gathering;
  gathering.HeadLoads();
  gathering.On(Join(1, Rank(1)));
  EXPECT_EQ(gathering.On(Leaving{1}), kReleased);
  Story opening;
  opening.HeadLoads();
  opening.On(Join(1, Rank(1)));
  opening.On(Loaded{1});
  EXPECT_EQ(opening.On(Leaving{1}),
            absl::StrCat("log: epoch 100 is closed: rank 1 leaves\n"
                         "stream 0: close epoch 100: UNAVAILABLE: rank 1 leaves\n"
                         "stream 1: close epoch 100: UNAVAILABLE: rank 1 leaves\n",
                         kReleased));
  EXPECT_EQ(opening.formation().ToString(), "epoch 100 gathering: 0 loaded, 1 missing");
}

TEST(Formation, AllThatLeaveTogetherAreReleasedTogether) {
  Story story(3);
  story.HeadLoads();
  for (const StreamId stream : {1, 2}) {
    story.On(Join(stream, Rank(static_cast<int>(stream), "a", 3)));
    story.On(Loaded{stream});
  }
  for (const StreamId stream : {0, 1, 2}) story.On(Opened{stream, 100});
  story.On(Leaving{1});
  story.On(Leaving{2});
  EXPECT_EQ(story.After(absl::Milliseconds(600)), "stream 0: hold requests of epoch 100\n");
  const std::string actions = story.On(Idle{100});
  EXPECT_THAT(actions, testing::HasSubstr("epoch 100 is closed: ranks 1, 2 leave"));
  EXPECT_THAT(actions, testing::HasSubstr("stream 1: release"));
  EXPECT_THAT(actions, testing::HasSubstr("stream 2: release"));
  EXPECT_EQ(story.formation().ToString(), "epoch 100 gathering: 0 loaded, 1 missing, 2 missing");
}

TEST(Formation, AFailureWhileARankLeavesReleasesItToo) {
  Story story;
  story.Form();
  story.On(Leaving{1});
  EXPECT_THAT(story.On(Failed{kSelf, 100, absl::UnavailableError("its link broke")}),
              testing::EndsWith(kReleased));
}

TEST(Formation, AHeadThatStopsKeepsItsLeavingWorkersAndOpensNoEpoch) {
  for (const bool head_first : {true, false}) {
    Story story;
    story.Form();
    if (head_first) {
      EXPECT_EQ(story.On(Leaving{kSelf}), "");
    }
    EXPECT_EQ(story.On(Leaving{1}), kStays);
    if (!head_first) {
      EXPECT_EQ(story.On(Leaving{kSelf}), "");
    }
    story.On(Heard{1});
    EXPECT_EQ(story.After(absl::Milliseconds(600)), "") << "requests go on";
    EXPECT_EQ(story.On(Idle{100}), "");
    EXPECT_TRUE(story.formation().status().formed);
  }
  Story story;
  story.HeadLoads();
  story.On(Leaving{kSelf});
  story.On(Join(1, Rank(1)));
  EXPECT_EQ(story.On(Loaded{1}), "");
}

// ---- Fencing -----------------------------------------------------------------------------------

Identity Pod(const std::string& incarnation, int64_t started_ms, const std::string& name = "p-1") {
  Identity identity = Rank(1, incarnation);
  identity.pod_name = name;
  identity.started_ms = started_ms;
  return identity;
}

const char kFenced[] =
    "FAILED_PRECONDITION: rank 1 is refused: a newer incarnation of rank 1 has joined";

TEST(Formation, OfTwoIncarnationsOfAPodTheNewerHasTheRank) {
  const std::string fenced = absl::StrCat("stream 1: refuse: ", kFenced, "\n");
  const std::string later =
      "stream 2: refuse: UNAVAILABLE: rank 1 is held by an incarnation of pod p-1 that began "
      "later; it is yours when that one has gone\n";
  const struct {
    const char* what;
    Identity in, newcomer;
    std::string begins;
  } cases[] = {
      {"began later", Pod("a", 1000), Pod("b", 2000), fenced},
      {"began earlier", Pod("a", 2000), Pod("b", 1000), later},
      {"at the same time", Pod("a", 1000), Pod("b", 1000), fenced},
      {"nobody knows when the newcomer began", Pod("a", 1000), Pod("b", 0), fenced},
      {"nobody knows when the other began", Pod("a", 0), Pod("b", 1000), fenced},
      {"another pod that says to be the rank", Pod("a", 1000), Pod("b", 2000, "q-1"), ""},
      {"processes outside Kubernetes", Pod("a", 1000, ""), Pod("b", 2000, ""), ""},
  };
  for (const auto& one : cases) {
    Story story;
    story.HeadLoads();
    story.On(Join(1, one.in));
    const std::string actions = story.On(Join(2, one.newcomer));
    EXPECT_THAT(actions, testing::StartsWith(one.begins)) << one.what;
    EXPECT_EQ(actions.empty(), one.begins.empty()) << one.what << actions;
    const bool took_over = one.begins == fenced;
    EXPECT_EQ(story.formation().status().ranks[1].incarnation, took_over ? "b" : "a") << one.what;
    EXPECT_EQ(actions.find("stream 2: send the plan") != std::string::npos, took_over) << one.what;
  }
}

TEST(Formation, AFencedIncarnationNeverComesBack) {
  Story story;
  story.HeadLoads();
  story.On(Join(1, Pod("a", 1000)));
  story.On(Join(2, Pod("b", 2000)));
  const auto refused = [](StreamId stream) {
    return absl::StrCat(
        "log: rank 1 is refused: a newer incarnation of rank 1 has joined (10.0.0.1:7)\n",
        "stream ", stream, ": refuse: ", kFenced, "\n");
  };
  EXPECT_EQ(story.On(Join(3, Pod("a", 9000))), refused(3)) << "its container was started again";
  story.On(Lost{2, "its stream broke"});
  EXPECT_EQ(story.On(Join(4, Pod("a", 9000))), refused(4)) << "though the rank is free";
  EXPECT_EQ(story.On(Join(5, Pod("b", 3000))), "stream 5: send the plan\n");
  EXPECT_EQ(story.formation().status().ranks[1].incarnation, "b");
}

TEST(Formation, ANewerIncarnationEndsTheEpochOfTheOlder) {
  Story story;
  story.HeadLoads();
  story.On(Join(1, Pod("a", 1000)));
  story.On(Loaded{1});
  story.On(Opened{kSelf, 100});
  story.On(Opened{1, 100});
  EXPECT_EQ(
      story.On(Join(2, Pod("b", 2000))),
      absl::StrCat("stream 1: refuse: ", kFenced, "\n",
                   "log: rank 1 at 10.0.0.1:7 is gone: a newer incarnation has joined\n"
                   "log: epoch 100 is closed: rank 1 is gone: a newer incarnation has joined\n"
                   "stream 0: close epoch 100: UNAVAILABLE: rank 1 is gone: a newer "
                   "incarnation has joined\n"
                   "stream 2: send the plan\n"));
}

TEST(Formation, AContainerStartedAgainInItsPodIsTheSameIncarnation) {
  Story story;
  story.HeadLoads();
  story.On(Join(1, Pod("a", 1000)));
  EXPECT_THAT(story.On(Join(2, Pod("a", 5000))), testing::EndsWith("stream 2: send the plan\n"));
  EXPECT_THAT(story.On(Join(3, Pod("a", 6000))), testing::EndsWith("stream 3: send the plan\n"));
}

}  // namespace
}  // namespace echelon::group
