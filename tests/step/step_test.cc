#include "runtime/step/step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace echelon::step {
namespace {

using testing::HasSubstr;

const Limits kLimits{.tokens = 600,
                     .sequences = 4,
                     .samples = 5,
                     .length = 4096,
                     .block_tokens = 16,
                     .blocks = 1000,
                     .vocabulary = 50000,
                     .logprobs = 5};

std::vector<int32_t> Blocks(int32_t first, int32_t count) {
  std::vector<int32_t> blocks(count);
  std::iota(blocks.begin(), blocks.end(), first);
  return blocks;
}

// A prefill chunk with a user who samples with everything, and a decode row.
Step Mixed() {
  Step step;
  step.sequences.push_back({.id = 7, .start = 128, .count = 40, .blocks = Blocks(4, 10)});
  step.sequences.back().blocks.push_back(40);
  step.sequences.push_back({.id = 1ull << 60, .start = 15, .count = 1, .blocks = {999}});
  step.samples.push_back({.row = 0, .position = 16});
  step.samples.push_back({.row = 1,
                          .seed = 0xFFFF'FFFF'FFFF'FFFF,
                          .choice = 3,
                          .position = 168,
                          .temperature = 0.75F,
                          .top_k = 40,
                          .top_p = 0.5F,
                          .min_p = 0.25F,
                          .repetition_penalty = 1.5F,
                          .presence_penalty = -0.5F,
                          .frequency_penalty = 0.125F,
                          .seen = {{0, 2}, {17, 0}, {49999, 1}},
                          .bias = {{3, -INFINITY}, {8, 2.5F}},
                          .logprobs = 0});
  return step;
}

TEST(Step, ComesBackAsItWent) {
  const auto parsed = ParseStep(Serialize(Mixed()), kLimits);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, Mixed());
  const auto empty = ParseStep(Serialize(Step()), kLimits);
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_EQ(*empty, Step());
}

TEST(Step, PrintsItself) {
  EXPECT_EQ(ToText(Mixed()),
            "sequence 7: positions 128..167 in blocks 4..13,40\n"
            "sequence 1152921504606846976: positions 15..15 in blocks 999\n"
            "sample 0: row 0 position 16 greedy\n"
            "sample 1: row 1 position 168 temperature 0.75 seed 18446744073709551615 choice 3 "
            "top_k 40 top_p 0.5 min_p 0.25 repetition_penalty 1.5 presence_penalty -0.5 "
            "frequency_penalty 0.125 seen 0:2 17:0 49999:1 bias 3:-inf 8:2.5 logprobs 0\n");
}

TEST(Step, OfOneUserIsSmall) {
  Step step;
  step.sequences.push_back({.id = 123456, .start = 2048, .count = 1, .blocks = Blocks(700, 129)});
  step.samples.push_back({.row = 0,
                          .seed = 0x0123456789ABCDEF,
                          .position = 2049,
                          .temperature = 0.7F,
                          .top_k = 50,
                          .top_p = 0.9F});
  EXPECT_LT(Serialize(step).size(), 60U);
  step.samples[0] = {.row = 0, .position = 2049};
  EXPECT_LT(Serialize(step).size(), 30U);
}

TEST(Step, BlocksThatAreOnlyReadMayBeShared) {
  Step step;
  step.sequences.push_back({.id = 1, .start = 32, .count = 1, .blocks = {5, 6, 7}});
  step.sequences.push_back({.id = 2, .start = 33, .count = 2, .blocks = {5, 6, 8}});
  EXPECT_TRUE(Check(step, kLimits).ok()) << Check(step, kLimits);
}

struct Fault {
  const char* says;
  std::function<void(Step&)> does;
};

TEST(Step, WhatIsWrongIsNamed) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Fault> faults = {
      {"sequence 7 of the step: start -1", [](Step& s) { s.sequences[0].start = -1; }},
      {"sequence 7 of the step: start 128 and count 0", [](Step& s) { s.sequences[0].count = 0; }},
      {"11 blocks of 16 do not hold 177 tokens", [](Step& s) { s.sequences[0].count = 49; }},
      {"tokens, at most 4096", [](Step& s) { s.sequences[0].start = INT32_MAX; }},
      {"257 blocks hold more", [](Step& s) { s.sequences[0].blocks = Blocks(0, 257); }},
      {"block 1000 is none of the cache's 1000", [](Step& s) { s.sequences[0].blocks[3] = 1000; }},
      {"block -1 is none", [](Step& s) { s.sequences[1].blocks[0] = -1; }},
      {"block 4 is there twice", [](Step& s) { s.sequences[0].blocks[10] = 4; }},
      {"block 12 is sequence 7's too", [](Step& s) { s.sequences[1].blocks[0] = 12; }},
      {"block 4 is sequence 7's too", [](Step& s) { s.sequences[1].blocks[0] = 4; }},
      {"sequence 7 of the step: is there twice", [](Step& s) { s.sequences[1].id = 7; }},
      {"the step has 5 sequences, at most 4", [](Step& s) { s.sequences.resize(5); }},
      {"the step has 6 samples, at most 5", [](Step& s) { s.samples.resize(6); }},
      {"the step has 641 tokens, at most 600",
       [](Step& s) {
         s.sequences[0].count = 640;
         s.sequences[0].blocks = Blocks(0, 48);
       }},
      {"sample 1 of the step: row 41 is none of the step's 41",
       [](Step& s) { s.samples[1].row = 41; }},
      {"row -1", [](Step& s) { s.samples[0].row = -1; }},
      {"position -2", [](Step& s) { s.samples[0].position = -2; }},
      {"temperature -1", [](Step& s) { s.samples[0].temperature = -1; }},
      {"temperature nan", [=](Step& s) { s.samples[0].temperature = nan; }},
      {"top_k -1", [](Step& s) { s.samples[0].top_k = -1; }},
      {"top_p 0", [](Step& s) { s.samples[0].top_p = 0; }},
      {"top_p nan", [=](Step& s) { s.samples[0].top_p = nan; }},
      {"min_p 1.5", [](Step& s) { s.samples[0].min_p = 1.5F; }},
      {"repetition_penalty 0", [](Step& s) { s.samples[0].repetition_penalty = 0; }},
      {"penalty is not finite", [](Step& s) { s.samples[0].presence_penalty = INFINITY; }},
      {"not rising below 50000",
       [](Step& s) {
         s.samples[0].seen = {{4, 1}, {4, 1}};
       }},
      {"not rising below 50000",
       [](Step& s) {
         s.samples[0].bias = {{50000, 1}};
       }},
      {"token 4 was not seen -1 times",
       [](Step& s) {
         s.samples[0].seen = {{4, -1}};
       }},
      {"bias inf of token 4",
       [](Step& s) {
         s.samples[0].bias = {{4, INFINITY}};
       }},
      {"bias nan of token 4",
       [=](Step& s) {
         s.samples[0].bias = {{4, nan}};
       }},
      {"logprobs 6 is not in -1..5", [](Step& s) { s.samples[0].logprobs = 6; }},
  };
  for (const Fault& fault : faults) {
    Step step = Mixed();
    fault.does(step);
    const absl::Status status = Check(step, kLimits);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << fault.says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(fault.says));
  }
}

TEST(Step, ACheckTakesWhatTheStepTakesHoweverLargeTheCache) {
  Limits limits = kLimits;
  limits.blocks = INT32_MAX;  // two pointers for each would be 32 GiB
  EXPECT_TRUE(Check(Mixed(), limits).ok()) << Check(Mixed(), limits);
}

TEST(Step, ForeignBytesAreRefusedInOneLine) {
  Step huge;  // a run longer than the cache: the receiver has fewer blocks than the sender thinks
  huge.sequences.push_back({.id = 1, .start = 0, .count = 1, .blocks = Blocks(990, 100)});
  Step negative;
  negative.sequences.push_back({.id = 1, .start = -5, .count = 1, .blocks = {1}});
  for (const std::string& bytes :
       {std::string("\xFF\xFF\xFF"), std::string("hello"), Serialize(huge), Serialize(negative)}) {
    const auto parsed = ParseStep(bytes, kLimits);
    ASSERT_FALSE(parsed.ok());
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("malformed step metadata"));
  }
}

TEST(Result, ComesBackAsItWent) {
  const Result result{
      {{.token = 5, .logprob = -0.5F}, {.token = 0, .logprob = -2, .top = {{9, -0.25F}, {0, -2}}}}};
  const auto parsed = ParseResult(Serialize(result), 2, kLimits);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, result);
  EXPECT_EQ(ToText(result),
            "sample 0: token 5 logprob -0.5\nsample 1: token 0 logprob -2 top 9:-0.25 0:-2\n");
}

TEST(Result, OneSampleMayHaveFailedAndSaysWhy) {
  const Result result{{{.token = 5, .logprob = -0.5F}, {.status = absl::InternalError("NaN")}}};
  const auto parsed = ParseResult(Serialize(result), 2, kLimits);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, result);
  EXPECT_EQ(ToText(result), "sample 0: token 5 logprob -0.5\nsample 1: INTERNAL: NaN\n");
  const std::string unknown_code("\x0A\x02\x28\x11");  // drawn { failed: 17 }
  EXPECT_THAT(std::string(ParseResult(unknown_code, 1, kLimits).status().message()),
              HasSubstr("status 17"));
}

TEST(Result, WhatIsWrongIsNamed) {
  const auto says = [](const Result& result) {
    return std::string(ParseResult(Serialize(result), 1, kLimits).status().message());
  };
  EXPECT_THAT(says({}), HasSubstr("0 tokens drawn, 1 were asked for"));
  EXPECT_THAT(says({{{.token = 50000}}}), HasSubstr("token 50000 is none of 50000"));
  EXPECT_THAT(says({{{.token = 1, .logprob = std::nanf("")}}}), HasSubstr("a logprob is NaN"));
  EXPECT_THAT(says({{{.token = 1, .top = {{-1, 0}}}}}), HasSubstr("token 4294967295"));
}

}  // namespace
}  // namespace echelon::step
