#include "runtime/sync/mutex.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "absl/time/time.h"
#include "runtime/sync/steady_clock.h"

namespace echelon {
namespace {

struct Turn {
  Mutex mutex;
  int at ABSL_GUARDED_BY(mutex) = 0;

  bool Comes(int which) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return mutex.AwaitUntil([this, which]()
                                ABSL_SHARED_LOCKS_REQUIRED(mutex) { return at == which; },
                            SteadyNow() + absl::Seconds(20));
  }
};

TEST(MutexTest, WhoWaitsIsWokenByAnUnlock) {
  Turn turn;
  std::thread other([&turn] {
    MutexLock lock(&turn.mutex);
    EXPECT_TRUE(turn.Comes(1));
    turn.at = 2;
  });
  {
    MutexLock lock(&turn.mutex);
    turn.at = 1;
  }
  {
    MutexLock lock(&turn.mutex);
    EXPECT_TRUE(turn.Comes(2));
  }
  other.join();
}

TEST(MutexTest, WhoWaitsIsWokenByAnotherThatChangesSomethingAndWaitsAsWell) {
  Turn turn;
  std::jthread other([&turn] {
    MutexLock lock(&turn.mutex);
    for (int mine = 1; mine < 2000; mine += 2) {
      EXPECT_TRUE(turn.Comes(mine)) << mine;
      if (turn.at != mine) break;
      turn.at = mine + 1;
    }
  });
  {
    MutexLock lock(&turn.mutex);
    for (int theirs = 1; theirs < 2000; theirs += 2) {
      turn.at = theirs;
      EXPECT_TRUE(turn.Comes(theirs + 1)) << theirs;
      if (turn.at != theirs + 1) break;
    }
  }
}

TEST(MutexTest, WhatNeverComesIsGivenUpAtTheDeadline) {
  Mutex mutex;
  MutexLock lock(&mutex);
  const absl::Time deadline = SteadyNow() + absl::Milliseconds(20);
  EXPECT_FALSE(mutex.AwaitUntil([] { return false; }, deadline));
  EXPECT_GE(SteadyNow(), deadline);
}

TEST(MutexTest, WhoSeesAChangeMayDestroyTheMutex) {
  for (int round = 0; round < 2000; ++round) {
    auto turn = std::make_unique<Turn>();  // outlived by the thread
    std::jthread other([at = turn.get()] {
      MutexLock lock(&at->mutex);
      at->at = 1;
    });
    bool has_come;
    {
      MutexLock lock(&turn->mutex);
      has_come = turn->Comes(1);
    }
    ASSERT_TRUE(has_come) << "round " << round;
    turn.reset();
  }
}

}  // namespace
}  // namespace echelon
