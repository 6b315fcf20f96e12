#include "runtime/schedule/continuous.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>

namespace echelon::schedule {
namespace {

using Request = Continuous::Request;
using StepDone = Continuous::StepDone;
using StepFailed = Continuous::StepFailed;
using Cancel = Continuous::Cancel;
using EpochEnded = Continuous::EpochEnded;
using RequestId = Continuous::RequestId;

std::string Play(Continuous* schedule, const std::vector<Continuous::Event>& events) {
  std::string text;
  for (const Continuous::Event& event : events)
    text += ToString(event) + "\n" + ToString(schedule->On(event));
  return text;
}

TEST(Continuous, ARequestIsPrefilledInChunksThatFollowEachOtherAndThenDecodesTokenByToken) {
  Continuous schedule({.stages = 2, .chunk_tokens = 4, .blocks = 8, .block_tokens = 4});
  EXPECT_EQ(Play(&schedule, {Request{1, 10, 14}, StepDone{0}, StepDone{1}, StepDone{2}, StepDone{3},
                             StepDone{4, {1}}}),
            "request 1: prompt 10, at most 14 tokens\n"
            "launch step 0: request 1 tokens 0..3 in 0\n"
            "launch step 1: request 1 tokens 4..7 in 0..1\n"
            "launch step 2: request 1 tokens 8..9 in 0..2 draws\n"
            "step 0 done\n"
            "step 1 done\n"
            "step 2 done\n"
            "launch step 3: request 1 tokens 10 in 0..2 draws\n"
            "step 3 done\n"
            "launch step 4: request 1 tokens 11 in 0..2 draws\n"
            "step 4 done, finished 1\n");
  EXPECT_EQ(schedule.ToString(), "in flight 0/4:; running:; waiting: ; free 8 of 8: 0..7");
}

TEST(Continuous, DecodesAreSpreadOverAsManyGroupsAsThereAreStages) {
  Continuous schedule({.stages = 3, .blocks = 64, .block_tokens = 4});
  EXPECT_EQ(Play(&schedule,
                 {Request{1, 2, 9}, Request{2, 2, 9}, Request{3, 2, 9}, Request{4, 2, 9},
                  StepDone{0}, StepDone{1}, StepDone{2}, StepDone{3}, StepDone{4}, StepDone{5}}),
            "request 1: prompt 2, at most 9 tokens\n"
            "launch step 0: request 1 tokens 0..1 in 0 draws\n"
            "request 2: prompt 2, at most 9 tokens\n"
            "launch step 1: request 2 tokens 0..1 in 32 draws\n"
            "request 3: prompt 2, at most 9 tokens\n"
            "launch step 2: request 3 tokens 0..1 in 16 draws\n"
            "request 4: prompt 2, at most 9 tokens\n"
            "step 0 done\n"
            "launch step 3: request 1 tokens 2 in 0 draws, request 4 tokens 0..1 in 48 draws\n"
            "step 1 done\n"
            "launch step 4: request 2 tokens 2 in 32 draws\n"
            "step 2 done\n"
            "launch step 5: request 3 tokens 2 in 16 draws\n"
            "step 3 done\n"
            "launch step 6: request 1 tokens 3 in 0 draws, request 4 tokens 2 in 48 draws\n"
            "step 4 done\n"
            "launch step 7: request 2 tokens 3 in 32 draws\n"
            "step 5 done\n"
            "launch step 8: request 3 tokens 3 in 16 draws\n");
}

TEST(Continuous, GroupsLevelOutWhenRequestsGo) {
  Continuous schedule({.stages = 2, .blocks = 64, .block_tokens = 4});
  EXPECT_EQ(Play(&schedule, {Request{1, 2, 9}, Request{2, 1, 9}, Request{3, 1, 9}, Request{4, 1, 9},
                             StepDone{0}, StepDone{1}, StepDone{2, {}}, StepDone{3, {2}},
                             StepDone{4, {}}, StepDone{5, {}}, StepDone{6, {}}}),
            "request 1: prompt 2, at most 9 tokens\n"
            "launch step 0: request 1 tokens 0..1 in 0 draws\n"
            "request 2: prompt 1, at most 9 tokens\n"
            "launch step 1: request 2 tokens 0 in 32 draws\n"
            "request 3: prompt 1, at most 9 tokens\n"
            "request 4: prompt 1, at most 9 tokens\n"
            "step 0 done\n"
            "launch step 2: request 1 tokens 2 in 0 draws, request 3 tokens 0 in 16 draws, request "
            "4 tokens 0 in 48 draws\n"
            "step 1 done\n"
            "launch step 3: request 2 tokens 1 in 32 draws\n"
            "step 2 done\n"
            "launch step 4: request 1 tokens 3 in 0 draws, request 3 tokens 1 in 16 draws\n"
            "step 3 done, finished 2\n"
            "launch step 5: request 4 tokens 1 in 48 draws\n"
            "step 4 done\n"
            "launch step 6: request 1 tokens 4 in 0..1 draws, request 3 tokens 2 in 16 draws\n"
            "step 5 done\n"
            "launch step 7: request 4 tokens 2 in 48 draws\n"
            "step 6 done\n"
            "launch step 8: request 1 tokens 5 in 0..1 draws, request 3 tokens 3 in 16 draws\n");
}

TEST(Continuous, ALongPromptIsFedBetweenDecodesWithoutQueueingUpBeforeThem) {
  Continuous schedule({.stages = 2, .chunk_tokens = 4, .blocks = 64, .block_tokens = 4});
  EXPECT_EQ(Play(&schedule, {Request{1, 2, 20}, StepDone{0}, Request{2, 20, 30}, StepDone{1},
                             StepDone{2}, StepDone{3}}),
            "request 1: prompt 2, at most 20 tokens\n"
            "launch step 0: request 1 tokens 0..1 in 0 draws\n"
            "step 0 done\n"
            "launch step 1: request 1 tokens 2 in 0 draws\n"
            "request 2: prompt 20, at most 30 tokens\n"
            "launch step 2: request 2 tokens 0..3 in 30\n"
            "step 1 done\n"
            "launch step 3: request 1 tokens 3 in 0 draws, request 2 tokens 4..7 in 30..31\n"
            "step 2 done\n"
            "launch step 4: request 2 tokens 8..11 in 30..32\n"
            "step 3 done\n"
            "launch step 5: request 1 tokens 4 in 0..1 draws, request 2 tokens 12..15 in 30..33\n");
}

TEST(Continuous, ShortPromptsShareAStep) {
  Continuous schedule({.stages = 1, .window = 1, .chunk_tokens = 8, .blocks = 64});
  EXPECT_EQ(Play(&schedule, {Request{1, 20, 30}, Request{2, 3, 9}, Request{3, 9, 10}, StepDone{0},
                             StepDone{1}, StepDone{2}, StepDone{3}}),
            "request 1: prompt 20, at most 30 tokens\n"
            "launch step 0: request 1 tokens 0..7 in 0\n"
            "request 2: prompt 3, at most 9 tokens\n"
            "request 3: prompt 9, at most 10 tokens\n"
            "step 0 done\n"
            "launch step 1: request 1 tokens 8..15 in 0\n"
            "step 1 done\n"
            "launch step 2: request 1 tokens 16..19 in 0..1 draws, request 2 tokens 0..2 in 32 "
            "draws, request 3 tokens 0 in 48\n"
            "step 2 done\n"
            "launch step 3: request 1 tokens 20 in 0..1 draws, request 2 tokens 3 in 32 draws, "
            "request 3 tokens 1..8 in 48 draws\n"
            "step 3 done\n"
            "launch step 4: request 1 tokens 21 in 0..1 draws, request 2 tokens 4 in 32 draws, "
            "request 3 tokens 9 in 48 draws\n");
}

TEST(Continuous, TheYoungestGivesItsBlocksUpAndIsComputedAgainWithItsAnswerSoFar) {
  Continuous schedule({.stages = 1, .blocks = 4, .block_tokens = 2});
  EXPECT_EQ(Play(&schedule, {Request{1, 2, 8}, Request{2, 1, 5}, StepDone{0}, StepDone{1},
                             StepDone{2}, StepDone{3}, StepDone{4}, StepDone{5}, StepDone{6, {1}},
                             StepDone{7}, StepDone{8, {2}}}),
            "request 1: prompt 2, at most 8 tokens\n"
            "launch step 0: request 1 tokens 0..1 in 0 draws\n"
            "request 2: prompt 1, at most 5 tokens\n"
            "step 0 done\n"
            "launch step 1: request 1 tokens 2 in 0..1 draws, request 2 tokens 0 in 2 draws\n"
            "step 1 done\n"
            "launch step 2: request 1 tokens 3 in 0..1 draws, request 2 tokens 1 in 2 draws\n"
            "step 2 done\n"
            "launch step 3: request 1 tokens 4 in 0..1 3 draws\n"
            "step 3 done\n"
            "launch step 4: request 1 tokens 5 in 0..1 3 draws\n"
            "step 4 done\n"
            "launch step 5: request 1 tokens 6 in 0..1 3 2 draws\n"
            "step 5 done\n"
            "launch step 6: request 1 tokens 7 in 0..1 3 2 draws\n"
            "step 6 done, finished 1\n"
            "launch step 7: request 2 tokens 0..2 in 0..1 draws\n"
            "step 7 done\n"
            "launch step 8: request 2 tokens 3 in 0..1 draws\n"
            "step 8 done, finished 2\n");
  EXPECT_EQ(schedule.ToString(), "in flight 0/2:; running:; waiting: ; free 4 of 4: 0..3");
}

TEST(Continuous, RefusesWhatCanNeverFitAndWhatFindsTheQueueFull) {
  Continuous schedule({.blocks = 2, .block_tokens = 4, .max_running = 1, .max_waiting = 1});
  EXPECT_EQ(Play(&schedule, {Request{1, 2, 10}, Request{2, 2, 9}, Request{3, 9, 10},
                             Request{4, 1, 2}, Request{5, 1, 2}}),
            "request 1: prompt 2, at most 10 tokens\n"
            "reject request 1: INVALID_ARGUMENT: prompt and answer may take 9 tokens of KV cache, "
            "but it holds 8; ask for fewer tokens, or start with a larger --kv-memory\n"
            "request 2: prompt 2, at most 9 tokens\n"
            "launch step 0: request 2 tokens 0..1 in 0 draws\n"
            "request 3: prompt 9, at most 10 tokens\n"
            "reject request 3: INVALID_ARGUMENT: prompt and answer may take 9 tokens of KV cache, "
            "but it holds 8; ask for fewer tokens, or start with a larger --kv-memory\n"
            "request 4: prompt 1, at most 2 tokens\n"
            "request 5: prompt 1, at most 2 tokens\n"
            "reject request 5: RESOURCE_EXHAUSTED: the queue is full: 1 requests wait; try again "
            "later\n");
}

TEST(Continuous, CancelledRequestsGiveTheirBlocksToTheVeryNextStep) {
  Continuous schedule({.window = 2, .chunk_tokens = 4, .blocks = 2, .block_tokens = 4});
  EXPECT_EQ(Play(&schedule, {Request{1, 8, 9}, Request{2, 3, 4}, Cancel{9}, Cancel{1}, StepDone{0},
                             StepDone{1}, StepDone{2, {2}}}),
            "request 1: prompt 8, at most 9 tokens\n"
            "launch step 0: request 1 tokens 0..3 in 0\n"
            "launch step 1: request 1 tokens 4..7 in 0..1 draws\n"
            "request 2: prompt 3, at most 4 tokens\n"
            "cancel request 9\n"
            "cancel request 1\n"
            "fail request 1: CANCELLED: the client has gone\n"
            "step 0 done\n"
            "launch step 2: request 2 tokens 0..2 in 0 draws\n"
            "step 1 done\n"
            "step 2 done, finished 2\n");
}

TEST(Continuous, AFailedStepFailsItsRequestsAloneAndTheEndOfAnEpochFailsAll) {
  Continuous schedule({.chunk_tokens = 4, .blocks = 8, .block_tokens = 4});
  EXPECT_EQ(Play(&schedule, {Request{1, 2, 9}, Request{2, 3, 4}, Request{3, 3, 4},
                             StepFailed{0, absl::InternalError("node add: boom")}, StepDone{1},
                             EpochEnded{absl::UnavailableError("rank 1 is lost")}, StepDone{2},
                             Request{4, 1, 2}}),
            "request 1: prompt 2, at most 9 tokens\n"
            "launch step 0: request 1 tokens 0..1 in 0 draws\n"
            "request 2: prompt 3, at most 4 tokens\n"
            "request 3: prompt 3, at most 4 tokens\n"
            "step 0 failed: INTERNAL: node add: boom\n"
            "fail request 1: INTERNAL: node add: boom\n"
            "launch step 1: request 2 tokens 0..2 in 4 draws, request 3 tokens 0 in 2\n"
            "step 1 done\n"
            "launch step 2: request 2 tokens 3 in 4 draws, request 3 tokens 1..2 in 2 draws\n"
            "epoch ended: UNAVAILABLE: rank 1 is lost\n"
            "fail request 2: UNAVAILABLE: rank 1 is lost\n"
            "fail request 3: UNAVAILABLE: rank 1 is lost\n"
            "step 2 done\n"
            "request 4: prompt 1, at most 2 tokens\n"
            "launch step 3: request 4 tokens 0 in 0 draws\n");
}

TEST(Continuous, WhatHasBegunGoesOnWhileTheRestIsHeldAcrossEpochs) {
  Continuous schedule({.chunk_tokens = 4, .blocks = 8, .block_tokens = 4});
  EXPECT_EQ(Play(&schedule, {Request{1, 2, 4}, Continuous::Hold{}, Request{2, 3, 4}, StepDone{0},
                             StepDone{1, {1}}}),
            "request 1: prompt 2, at most 4 tokens\n"
            "launch step 0: request 1 tokens 0..1 in 0 draws\n"
            "hold\n"
            "request 2: prompt 3, at most 4 tokens\n"
            "step 0 done\n"
            "launch step 1: request 1 tokens 2 in 0 draws\n"
            "step 1 done, finished 1\n");
  EXPECT_EQ(schedule.begun(), 0);
  EXPECT_EQ(schedule.waiting(), 1);
  EXPECT_EQ(
      Play(&schedule, {EpochEnded{absl::UnavailableError("rank 1 leaves")}, Continuous::Resume{}}),
      "epoch ended: UNAVAILABLE: rank 1 leaves\n"
      "resume\n"
      "launch step 2: request 2 tokens 0..2 in 0 draws\n");
}

TEST(Continuous, OptionsAreBroughtInOrder) {
  const Continuous schedule({.stages = 4, .window = 1, .chunk_tokens = 512, .step_tokens = 100});
  EXPECT_EQ(schedule.options().window, 4);
  EXPECT_EQ(schedule.options().chunk_tokens, 99);
  EXPECT_EQ(Continuous({.stages = 3}).options().window, 6);
}

// Stages that do what they are told, with a cache that remembers whose token lies where. Whatever
// happens, each token of a sequence is computed after those before it and sees them all, no token
// is drawn twice, every request ends, and all stages have work while there is any.
class Pipeline {
 public:
  Pipeline(unsigned seed, const Continuous::Options& options)
      : random_(seed), schedule_(options), options_(schedule_.options()), slots_(options.blocks) {
    for (auto& block : slots_) block.resize(options.block_tokens);
  }

  void Play(int events) {
    for (int i = 0; i < events && !testing::Test::HasFatalFailure(); ++i) {
      const unsigned dice = random_() % 40;
      if (dice < 8) {
        Ask();
      } else if (dice < 37) {
        Return(dice == 36 && random_() % 4 == 0);
      } else if (dice < 39) {
        Apply(Cancel{1 + random_() % next_request_});
      } else if (random_() % 20 == 0) {
        flying_.clear();
        Apply(EpochEnded{absl::UnavailableError("lost")});
        EXPECT_TRUE(open_.empty());
      }
    }
    for (int i = 0; i < 100000 && !flying_.empty(); ++i) Return(false);
    EXPECT_TRUE(open_.empty());
    EXPECT_EQ(schedule_.used_blocks(), 0);
    EXPECT_EQ(schedule_.waiting(), 0);
    EXPECT_EQ(schedule_.running(), 0);
  }

  const Continuous& schedule() const { return schedule_; }
  int64_t finished() const { return finished_; }

 private:
  struct Sequence {
    int32_t known = 0, max_tokens = 0;
    int32_t launched = 0;
    bool drawing = false;
  };
  struct Slot {
    RequestId request = 0;
    int32_t position = -1;
    bool operator==(const Slot&) const = default;
  };

  int Random(int below) { return static_cast<int>(random_() % below); }

  void Ask() {
    const int held = options_.blocks * options_.block_tokens;
    const int prompt = 1 + Random(Random(4) == 0 ? held : 1 + held / 8);
    const Request request{next_request_++, prompt, prompt + 1 + Random(1 + held / 4)};
    open_[request.id] = {.known = prompt, .max_tokens = request.max_tokens};
    Apply(request);
  }

  void Return(bool fails) {
    if (flying_.empty()) return;
    const Continuous::Launch step = flying_.front();
    flying_.pop_front();
    if (fails) return Apply(StepFailed{step.step, absl::InternalError("boom")});
    StepDone done{step.step};
    for (const Continuous::Part& part : step.parts) {
      const auto found = open_.find(part.request);
      if (!part.draws || found == open_.end()) continue;
      Sequence& sequence = found->second;
      ASSERT_EQ(part.start + part.count, sequence.known++) << "drawn in order, and once";
      sequence.drawing = false;
      if (sequence.known < sequence.max_tokens && Random(30) != 0) continue;
      done.finished.push_back(part.request);
      open_.erase(found);
      ++finished_;
    }
    Apply(done);
  }

  void Apply(const Continuous::Event& event) {
    for (const Continuous::Action& action : schedule_.On(event)) {
      if (const auto* launch = std::get_if<Continuous::Launch>(&action)) {
        Run(*launch);
      } else if (const auto* fail = std::get_if<Continuous::Fail>(&action)) {
        ASSERT_EQ(open_.erase(fail->request), 1u);
      } else {
        ASSERT_EQ(open_.erase(std::get<Continuous::Reject>(action).request), 1u);
      }
    }
    ASSERT_EQ(schedule_.in_flight(), static_cast<int>(flying_.size()));
    ASSERT_LE(schedule_.in_flight(), options_.window);
    ASSERT_LE(schedule_.running(), options_.max_running);
    ASSERT_LE(schedule_.waiting(), options_.max_waiting + options_.max_running);
    if (schedule_.in_flight() >= options_.stages) return;
    // Who is neither waiting for its token nor for blocks could have been launched.
    int launchable = 0;
    for (const auto& [id, sequence] : open_) launchable += sequence.drawing ? 0 : 1;
    ASSERT_LE(launchable, schedule_.waiting()) << schedule_.ToString();
    ASSERT_TRUE(!flying_.empty() || open_.empty()) << schedule_.ToString();
  }

  // Steps run in the order of their launch, so it makes no difference that they run here.
  void Run(const Continuous::Launch& step) {
    ASSERT_EQ(step.step, next_step_++);
    flying_.push_back(step);
    int tokens = 0;
    std::set<int32_t> blocks;
    std::set<RequestId> requests;
    for (const Continuous::Part& part : step.parts) {
      tokens += part.count;
      ASSERT_TRUE(requests.insert(part.request).second);
      for (const int32_t block : part.blocks) ASSERT_TRUE(blocks.insert(block).second);
      Write(part);
    }
    ASSERT_GT(tokens, 0);
    ASSERT_LE(tokens, options_.step_tokens);
    for (const Continuous::Part& part : step.parts) Read(part);
  }

  void Write(const Continuous::Part& part) {
    ASSERT_TRUE(open_.contains(part.request));
    Sequence& sequence = open_[part.request];
    const int32_t end = part.start + part.count;
    ASSERT_FALSE(sequence.drawing);
    ASSERT_TRUE(part.start == sequence.launched || part.start == 0) << "in order, or from anew";
    ASSERT_LE(end, sequence.known);
    ASSERT_EQ(part.draws, end == sequence.known);
    ASSERT_LE(static_cast<int>(blocks_of(end)), static_cast<int>(part.blocks.size()));
    sequence.launched = end;
    sequence.drawing = part.draws;
    for (int32_t position = part.start; position < end; ++position)
      SlotOf(part, position) = {part.request, position};
  }

  void Read(const Continuous::Part& part) {
    for (int32_t position = 0; position < part.start + part.count; ++position)
      ASSERT_EQ(SlotOf(part, position), (Slot{part.request, position}));
  }

  int32_t blocks_of(int32_t tokens) const {
    return (tokens + options_.block_tokens - 1) / options_.block_tokens;
  }
  Slot& SlotOf(const Continuous::Part& part, int32_t position) {
    return slots_[part.blocks[position / options_.block_tokens]][position % options_.block_tokens];
  }

  std::mt19937 random_;
  Continuous schedule_;
  const Continuous::Options options_;
  std::vector<std::vector<Slot>> slots_;
  std::deque<Continuous::Launch> flying_;
  std::map<RequestId, Sequence> open_;
  RequestId next_request_ = 1;
  Continuous::StepId next_step_ = 0;
  int64_t finished_ = 0;
};

TEST(Continuous, KeepsItsPromisesUnderRandomEvents) {
  int64_t finished = 0, preemptions = 0;
  for (unsigned seed = 0; seed < 100 && !HasFatalFailure(); ++seed) {
    std::mt19937 random(seed);
    Continuous::Options options{.stages = 1 + static_cast<int>(random() % 4)};
    options.window = static_cast<int>(random() % 10);
    options.chunk_tokens = 1 + static_cast<int>(random() % 12);
    options.step_tokens = 2 + static_cast<int>(random() % 24);
    options.blocks = 1 + static_cast<int>(random() % 40);
    options.block_tokens = 1 + static_cast<int>(random() % 8);
    options.max_running = 1 + static_cast<int>(random() % 20);
    options.max_waiting = static_cast<int>(random() % 20);
    Pipeline pipeline(seed, options);
    pipeline.Play(2000);
    EXPECT_FALSE(HasFailure()) << "seed " << seed << ": " << pipeline.schedule().ToString();
    if (HasFailure()) return;
    finished += pipeline.finished();
    preemptions += pipeline.schedule().preemptions();
  }
  EXPECT_GT(finished, 5000) << "the simulation reaches what it is about";
  EXPECT_GT(preemptions, 500);
}

TEST(Continuous, StagesAreBusyAndGroupsEvenWhenEveryoneDecodes) {
  for (int stages = 1; stages <= 5; ++stages) {
    for (int users = stages; users <= 3 * stages; ++users) {
      Continuous schedule({.stages = stages, .blocks = 256});
      std::deque<Continuous::Launch> flying;
      const auto apply = [&](const Continuous::Event& event) {
        for (const Continuous::Action& action : schedule.On(event))
          flying.push_back(std::get<Continuous::Launch>(action));
      };
      for (int id = 1; id <= users; ++id) apply(Request{RequestId(id), 3, 200});
      for (int i = 0; i < 20 * stages; ++i) {
        const Continuous::StepId step = flying.front().step;
        flying.pop_front();
        apply(StepDone{step});
      }
      ASSERT_EQ(flying.size(), static_cast<size_t>(stages));
      for (const Continuous::Launch& launch : flying) {
        EXPECT_GE(static_cast<int>(launch.parts.size()), users / stages);
        EXPECT_LE(static_cast<int>(launch.parts.size()), (users + stages - 1) / stages);
      }
    }
  }
}

}  // namespace
}  // namespace echelon::schedule
