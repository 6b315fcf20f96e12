#include "operator/controller/queue.h"

#include "gtest/gtest.h"

namespace echelon::op {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'000'000);

absl::Time At(double seconds) { return kStart + absl::Seconds(seconds); }

TEST(Queue, HandsOutTheOldestFirstAndEachOnce) {
  Queue queue({});
  queue.Add("b", At(2));
  queue.Add("a", At(1));
  queue.Add("a", At(3));
  EXPECT_EQ(queue.waiting(), 2u);
  EXPECT_EQ(queue.Take(At(0.5)), std::nullopt);
  EXPECT_EQ(queue.next(), At(1));
  EXPECT_EQ(queue.Take(At(5)), "a");
  EXPECT_EQ(queue.Take(At(5)), "b");
  EXPECT_EQ(queue.Take(At(5)), std::nullopt);
}

TEST(Queue, WhatIsWorkedOnIsHandedOutAgainOnlyAfterwards) {
  Queue queue({});
  queue.Add("a", At(0));
  ASSERT_EQ(queue.Take(At(0)), "a");
  queue.Add("a", At(1));
  EXPECT_EQ(queue.Take(At(2)), std::nullopt);
  queue.Done("a");
  EXPECT_EQ(queue.Take(At(2)), "a");
  queue.Done("a");
  EXPECT_EQ(queue.next(), absl::InfiniteFuture());
}

TEST(Queue, ErrorsWaitLongerEachTimeUpToALimit) {
  Queue queue({.first_backoff = absl::Seconds(1), .max_backoff = absl::Seconds(8)});
  absl::Time now = At(0);
  queue.Add("a", now);
  for (const double longest : {1, 2, 4, 8, 8, 8}) {
    ASSERT_EQ(queue.Take(now), "a");
    queue.Retry("a", now);
    queue.Done("a");
    EXPECT_EQ(queue.next(), queue.held_until("a"));
    const absl::Duration wait = queue.next() - now;
    EXPECT_GE(wait, absl::Seconds(longest / 2));
    EXPECT_LE(wait, absl::Seconds(longest));
    now = queue.next();
  }
  ASSERT_EQ(queue.Take(now), "a");
  queue.Forget("a");
  queue.Add("a", now);
  queue.Done("a");
  EXPECT_EQ(queue.next(), now);
}

TEST(Queue, NewsAreHandedOutAtOnceWhileWhatFailedIsHeld) {
  Queue queue({.first_backoff = absl::Seconds(8)});
  queue.Add("a", At(0));
  ASSERT_EQ(queue.Take(At(0)), "a");
  queue.Retry("a", At(0));
  queue.Done("a");
  queue.Add("a", At(1));
  EXPECT_EQ(queue.Take(At(1)), "a");
  EXPECT_GE(queue.held_until("a"), At(4));
  queue.Forget("a");
  EXPECT_EQ(queue.held_until("a"), absl::InfinitePast());
}

TEST(Queue, ARemovedOneIsGone) {
  Queue queue({});
  queue.Add("a", At(0));
  queue.Remove("a");
  EXPECT_EQ(queue.Take(At(1)), std::nullopt);
  queue.Add("a", At(0));
  ASSERT_EQ(queue.Take(At(0)), "a");
  queue.Remove("a");
  queue.Done("a");
  EXPECT_EQ(queue.working(), 0u);
}

}  // namespace
}  // namespace echelon::op
