#include "runtime/schedule/fill_drain.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace echelon::schedule {
namespace {

std::string Play(FillDrain* schedule, const std::vector<Event>& events) {
  std::string text;
  for (const Event& event : events) text += ToString(event) + "\n" + ToString(schedule->On(event));
  return text;
}

TEST(FillDrain, FillsTheWindowAndFeedsAsStepsReturn) {
  FillDrain schedule({.window = 4});
  EXPECT_EQ(
      Play(&schedule, {Request{1, 10, 4}, StepDone{0}, StepDone{1}, StepDone{2}, StepDone{3}}),
      "request 1: 10 rows in 4 chunks\n"
      "launch step 0: request 1 chunk 0/4 rows 0..3\n"
      "launch step 1: request 1 chunk 1/4 rows 3..6\n"
      "launch step 2: request 1 chunk 2/4 rows 6..8\n"
      "launch step 3: request 1 chunk 3/4 rows 8..10\n"
      "step 0 done\n"
      "step 1 done\n"
      "step 2 done\n"
      "step 3 done\n"
      "finish request 1\n");
}

TEST(FillDrain, TheNextRequestFollowsOnTheHeelsOfTheFirst) {
  FillDrain schedule({.window = 3});
  EXPECT_EQ(Play(&schedule, {Request{1, 4, 2}, Request{2, 2, 2}, StepDone{0}, StepDone{1},
                             StepDone{2}, StepDone{3}}),
            "request 1: 4 rows in 2 chunks\n"
            "launch step 0: request 1 chunk 0/2 rows 0..2\n"
            "launch step 1: request 1 chunk 1/2 rows 2..4\n"
            "request 2: 2 rows in 2 chunks\n"
            "launch step 2: request 2 chunk 0/2 rows 0..1\n"
            "step 0 done\n"
            "launch step 3: request 2 chunk 1/2 rows 1..2\n"
            "step 1 done\n"
            "finish request 1\n"
            "step 2 done\n"
            "step 3 done\n"
            "finish request 2\n");
}

TEST(FillDrain, WhatHasBegunGoesOnWhileTheRestIsHeldAcrossEpochs) {
  FillDrain schedule({.window = 1, .max_waiting = 2});
  EXPECT_EQ(Play(&schedule, {Request{1, 4, 2}, Request{2, 1, 1}, Hold{}, StepDone{0}, StepDone{1},
                             Request{3, 1, 1}, Request{4, 1, 1}}),
            "request 1: 4 rows in 2 chunks\n"
            "launch step 0: request 1 chunk 0/2 rows 0..2\n"
            "request 2: 1 rows in 1 chunks\n"
            "hold\n"
            "step 0 done\n"
            "launch step 1: request 1 chunk 1/2 rows 2..4\n"
            "step 1 done\n"
            "finish request 1\n"
            "request 3: 1 rows in 1 chunks\n"
            "request 4: 1 rows in 1 chunks\n"
            "reject request 4: RESOURCE_EXHAUSTED: the queue is full: 2 requests wait; try again "
            "later\n");
  EXPECT_EQ(schedule.begun(), 0);
  EXPECT_EQ(schedule.ToString(), "in flight 0/1:; held: 2 3");
  EXPECT_EQ(Play(&schedule, {EpochEnded{absl::UnavailableError("rank 1 leaves")}, Resume{}}),
            "epoch ended: UNAVAILABLE: rank 1 leaves\n"
            "resume\n"
            "launch step 2: request 2 chunk 0/1 rows 0..1\n");
}

TEST(FillDrain, AnEpochThatBreaksWhileHeldFailsOnlyWhatHasBegun) {
  FillDrain schedule({.window = 1});
  EXPECT_EQ(Play(&schedule, {Request{1, 4, 2}, Request{2, 1, 1}, Hold{},
                             EpochEnded{absl::UnavailableError("rank 1 is lost")}, StepDone{0}}),
            "request 1: 4 rows in 2 chunks\n"
            "launch step 0: request 1 chunk 0/2 rows 0..2\n"
            "request 2: 1 rows in 1 chunks\n"
            "hold\n"
            "epoch ended: UNAVAILABLE: rank 1 is lost\n"
            "fail request 1: UNAVAILABLE: rank 1 is lost\n"
            "step 0 done\n");
  EXPECT_EQ(schedule.ToString(), "in flight 0/1:; held: 2");
}

TEST(FillDrain, NeverMakesMoreChunksThanRowsNorAnyOfWhatCannotBeSplit) {
  FillDrain schedule({.window = 8});
  EXPECT_EQ(Play(&schedule,
                 {Request{1, 2, 4}, Request{2, 8, 4, false}, Request{3, 0, 4}, Request{4, 5, 0}}),
            "request 1: 2 rows in 4 chunks\n"
            "launch step 0: request 1 chunk 0/2 rows 0..1\n"
            "launch step 1: request 1 chunk 1/2 rows 1..2\n"
            "request 2: 8 rows in 4 chunks, not chunkable\n"
            "launch step 2: request 2 chunk 0/1 rows 0..8\n"
            "request 3: 0 rows in 4 chunks\n"
            "launch step 3: request 3 chunk 0/1 rows 0..0\n"
            "request 4: 5 rows in 0 chunks\n"
            "launch step 4: request 4 chunk 0/1 rows 0..5\n");
}

TEST(FillDrain, RejectsWhenTheQueueIsFull) {
  FillDrain schedule({.window = 1, .max_waiting = 1});
  EXPECT_EQ(
      Play(&schedule,
           {Request{1, 1, 1}, Request{2, 1, 1}, Request{3, 1, 1}, StepDone{0}, Request{4, 1, 1}}),
      "request 1: 1 rows in 1 chunks\n"
      "launch step 0: request 1 chunk 0/1 rows 0..1\n"
      "request 2: 1 rows in 1 chunks\n"
      "request 3: 1 rows in 1 chunks\n"
      "reject request 3: RESOURCE_EXHAUSTED: the queue is full: 1 requests wait; try again later\n"
      "step 0 done\n"
      "finish request 1\n"
      "launch step 1: request 2 chunk 0/1 rows 0..1\n"
      "request 4: 1 rows in 1 chunks\n");
  EXPECT_EQ(schedule.ToString(), "in flight 1/1: step 1 (request 2 chunk 0); waiting: 4");
}

TEST(FillDrain, AFailedStepFailsItsRequestAloneAndSwallowsTheRest) {
  FillDrain schedule({.window = 2});
  EXPECT_EQ(Play(&schedule,
                 {Request{1, 4, 4}, Request{2, 1, 1},
                  StepFailed{0, absl::InternalError("node add: boom")}, StepDone{1}, StepDone{2}}),
            "request 1: 4 rows in 4 chunks\n"
            "launch step 0: request 1 chunk 0/4 rows 0..1\n"
            "launch step 1: request 1 chunk 1/4 rows 1..2\n"
            "request 2: 1 rows in 1 chunks\n"
            "step 0 failed: INTERNAL: node add: boom\n"
            "fail request 1: INTERNAL: node add: boom\n"
            "launch step 2: request 2 chunk 0/1 rows 0..1\n"
            "step 1 done\n"
            "step 2 done\n"
            "finish request 2\n");
}

TEST(FillDrain, CancelledRequestsLeaveAtOnceAndTheirStepsKeepTheirPlaceUntilTheyReturn) {
  FillDrain schedule({.window = 2});
  EXPECT_EQ(Play(&schedule, {Request{1, 4, 4}, Request{2, 1, 1}, Request{3, 1, 1}, Cancel{2},
                             Cancel{1}, Cancel{9}}),
            "request 1: 4 rows in 4 chunks\n"
            "launch step 0: request 1 chunk 0/4 rows 0..1\n"
            "launch step 1: request 1 chunk 1/4 rows 1..2\n"
            "request 2: 1 rows in 1 chunks\n"
            "request 3: 1 rows in 1 chunks\n"
            "cancel request 2\n"
            "fail request 2: CANCELLED: the client has gone\n"
            "cancel request 1\n"
            "fail request 1: CANCELLED: the client has gone\n"
            "cancel request 9\n");
  EXPECT_EQ(schedule.ToString(),
            "in flight 2/2: step 0 (request 1 chunk 0, dropped) step 1 (request 1 chunk 1, "
            "dropped); waiting: 3");
  EXPECT_EQ(Play(&schedule, {StepFailed{0, absl::InternalError("late")}}),
            "step 0 failed: INTERNAL: late\n"
            "launch step 2: request 3 chunk 0/1 rows 0..1\n");
}

TEST(FillDrain, TheEndOfAnEpochFailsAllAndStepNumbersGoOn) {
  FillDrain schedule({.window = 1});
  EXPECT_EQ(Play(&schedule, {Request{1, 2, 2}, Request{2, 1, 1},
                             EpochEnded{absl::UnavailableError("rank 1 is lost")}, StepDone{0},
                             Request{3, 1, 1}}),
            "request 1: 2 rows in 2 chunks\n"
            "launch step 0: request 1 chunk 0/2 rows 0..1\n"
            "request 2: 1 rows in 1 chunks\n"
            "epoch ended: UNAVAILABLE: rank 1 is lost\n"
            "fail request 1: UNAVAILABLE: rank 1 is lost\n"
            "fail request 2: UNAVAILABLE: rank 1 is lost\n"
            "step 0 done\n"
            "request 3: 1 rows in 1 chunks\n"
            "launch step 1: request 3 chunk 0/1 rows 0..1\n");
}

// A driver that does what it is told, with steps that return in order: whatever happens, each
// request is answered once, rows are covered without a gap, steps go up by one and the window
// holds.
TEST(FillDrain, KeepsItsPromisesUnderRandomEvents) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    FillDrain schedule(
        {.window = 1 + static_cast<int>(seed % 5), .max_waiting = static_cast<int>(seed % 4)});
    std::deque<StepId> flying;
    std::map<RequestId, int64_t> rows_wanted, rows_seen;
    std::set<RequestId> open;
    RequestId next_request = 1;
    StepId next_step = 0;
    const auto apply = [&](const Event& event) {
      for (const Action& action : schedule.On(event)) {
        if (const auto* launch = std::get_if<Launch>(&action)) {
          ASSERT_EQ(launch->step, next_step++);
          ASSERT_EQ(launch->first_row, rows_seen[launch->request]);
          ASSERT_TRUE(open.contains(launch->request));
          rows_seen[launch->request] += launch->row_count;
          flying.push_back(launch->step);
        } else if (const auto* finish = std::get_if<Finish>(&action)) {
          ASSERT_EQ(open.erase(finish->request), 1u);
          ASSERT_EQ(rows_seen[finish->request], rows_wanted[finish->request]);
        } else if (const auto* fail = std::get_if<Fail>(&action)) {
          ASSERT_EQ(open.erase(fail->request), 1u);
        } else {
          ASSERT_EQ(open.erase(std::get<Reject>(action).request), 1u);
        }
      }
      ASSERT_LE(schedule.in_flight(), 1 + static_cast<int>(seed % 5));
      ASSERT_LE(schedule.waiting(), static_cast<int>(seed % 4));
    };
    for (int i = 0; i < 300; ++i) {
      const unsigned dice = random() % 20;
      if (dice < 6) {
        const RequestId id = next_request++;
        rows_wanted[id] = random() % 20;
        open.insert(id);
        apply(Request{id, rows_wanted[id], static_cast<int>(random() % 8), random() % 8 != 0});
      } else if (dice < 17 && !flying.empty()) {
        const StepId step = flying.front();
        flying.pop_front();
        if (dice == 16) {
          apply(StepFailed{step, absl::InternalError("boom")});
        } else {
          apply(StepDone{step});
        }
      } else if (dice == 18) {
        apply(Cancel{random() % next_request});
      } else if (dice == 19 && random() % 10 == 0) {
        apply(EpochEnded{absl::UnavailableError("lost")});
        flying.clear();
      }
      if (HasFatalFailure()) FAIL() << "seed " << seed << ": " << schedule.ToString();
    }
    while (!flying.empty()) {
      const StepId step = flying.front();
      flying.pop_front();
      apply(StepDone{step});
    }
    EXPECT_TRUE(open.empty()) << "seed " << seed << ": " << schedule.ToString();
  }
}

}  // namespace
}  // namespace echelon::schedule
