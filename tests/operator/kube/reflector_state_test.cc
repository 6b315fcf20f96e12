#include "operator/kube/reflector_state.h"

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "operator/kube/api.h"
#include "operator/kube/backoff.h"

namespace echelon::op {
namespace {

const absl::Status kGone = absl::OutOfRangeError("410 Expired");
const absl::Status kDown = absl::UnavailableError("connection refused");

// The actions that these events lead to, with a jitter of a half.
std::string Actions(const std::vector<ReflectorEvent>& events) {
  ReflectorState state;
  std::string actions;
  for (const ReflectorEvent& event : events) {
    absl::StrAppend(&actions, actions.empty() ? "" : "; ", ToString(Next(state, event, 0.5)));
  }
  return actions;
}

TEST(ReflectorState, ListsPageByPageAndThenWatchesFromTheListsVersion) {
  EXPECT_EQ(Actions({Started{}, PageCame{"7", "t1"}, PageCame{"7", "t2"}, PageCame{"7", ""}}),
            "list; list page t1; list page t2; watch 7");
}

TEST(ReflectorState, ResumesAWatchFromTheLastEventOrBookmark) {
  EXPECT_EQ(
      Actions({Started{}, PageCame{"7", ""}, Advanced{"9"}, WatchEnded{{}, absl::Minutes(5)}}),
      "list; watch 7; nothing; watch 9");
  EXPECT_EQ(Actions({Started{}, PageCame{"7", ""}, Advanced{"9"}, WatchEnded{kDown, {}}, Waited{}}),
            "list; watch 7; nothing; wait 100ms; watch 9");
}

TEST(ReflectorState, AQuietWatchThatLastedIsReopenedAtOnceAndAShortOneLater) {
  EXPECT_EQ(Actions({Started{}, PageCame{"7", ""}, WatchEnded{{}, absl::Seconds(1)}}),
            "list; watch 7; watch 7");
  EXPECT_EQ(Actions({Started{}, PageCame{"7", ""}, WatchEnded{{}, absl::Milliseconds(1)}}),
            "list; watch 7; wait 100ms");
}

TEST(ReflectorState, WhatIsGoneIsListedAnewAtOnceButNotInACircle) {
  for (const ReflectorEvent& gone :
       {ReflectorEvent(WatchFailed{kGone}), ReflectorEvent(WatchEnded{kGone, absl::Seconds(9)})}) {
    EXPECT_EQ(Actions({Started{}, PageCame{"7", ""}, gone, PageCame{"8", ""}, gone, Waited{}}),
              "list; watch 7; list; watch 8; wait 200ms; list");
  }
}

TEST(ReflectorState, AnExpiredContinueTokenBeginsTheListAnew) {
  EXPECT_EQ(Actions({Started{}, PageCame{"7", "t1"}, ListFailed{kGone}, PageCame{"9", "t2"}}),
            "list; list page t1; list; list page t2");
}

TEST(ReflectorState, AFailedPageIsAskedForAgain) {
  EXPECT_EQ(Actions({Started{}, PageCame{"7", "t1"}, ListFailed{kDown}, Waited{}}),
            "list; list page t1; wait 100ms; list page t1");
}

TEST(ReflectorState, WaitsAsLongAsTheServerAsks) {
  const absl::Status busy =
      ToStatus({.code = 429, .body = "slow down", .retry_after = absl::Seconds(3)});
  EXPECT_EQ(Actions({Started{}, ListFailed{busy}}), "list; wait 3.1s");
}

TEST(ReflectorState, FailuresInARowWaitLongerUntilSomethingWorks) {
  EXPECT_EQ(
      Actions({Started{}, ListFailed{kDown}, ListFailed{kDown}, ListFailed{kDown},
               PageCame{"7", ""}, WatchEnded{kDown, {}}, Advanced{"8"}, WatchEnded{kDown, {}}}),
      "list; wait 100ms; wait 200ms; wait 400ms; watch 7; wait 800ms; nothing; wait 100ms");
}

TEST(Backoff, IsJitteredFromNothingToItsBoundOfThirtySeconds) {
  EXPECT_EQ(Backoff(0, 0.9), absl::ZeroDuration());
  for (int failures = 1; failures < 100; ++failures) {
    EXPECT_EQ(Backoff(failures, 0), absl::ZeroDuration());
    EXPECT_LE(Backoff(failures, 0.999), absl::Seconds(30));
  }
  EXPECT_GT(Backoff(99, 0.999), absl::Seconds(29));
}

}  // namespace
}  // namespace echelon::op
