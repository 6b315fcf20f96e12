#include "runtime/stage/text_sequence.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

namespace echelon::stage {
namespace {

using serve::FinishReason;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

const serve::TextModelInfo kModel{
    .name = "tiny", .vocab_size = 50, .max_model_len = 16, .eos_token_ids = {2, 3}};
const step::Limits kLimits{.length = 16, .blocks = 8, .vocabulary = 50};

serve::TokenRequest Prompt(std::vector<int32_t> prompt) { return {.prompt = std::move(prompt)}; }

std::string Refusal(const std::function<void(serve::TokenRequest&)>& change) {
  serve::TokenRequest request = Prompt({5, 6, 7});
  change(request);
  const absl::Status status = CheckRequest(request, kModel, kLimits);
  EXPECT_TRUE(status.ok() || absl::IsInvalidArgument(status));
  return std::string(status.message());
}

TEST(CheckRequest, NamesTheFieldAndWhatItMayBe) {
  EXPECT_EQ(Refusal([](auto& request) { request.max_tokens = 13; }), "");
  EXPECT_EQ(Refusal([](auto& request) { request.prompt.clear(); }),
            "prompt has no tokens; it needs at least one");
  EXPECT_EQ(Refusal([](auto& request) { request.prompt.resize(16); }),
            "prompt has 16 tokens; model tiny takes 16 of prompt and answer together");
  EXPECT_EQ(Refusal([](auto& request) { request.prompt[1] = 50; }),
            "prompt's token 1 is 50; model tiny has tokens 0..49");
  EXPECT_EQ(Refusal([](auto& request) { request.max_tokens = -1; }),
            "max_tokens is -1; it must be at least 1 (0: as many as fit)");
  EXPECT_EQ(Refusal([](auto& request) { request.max_tokens = 14; }),
            "prompt has 3 tokens and max_tokens is 14; model tiny takes 16 together");
  EXPECT_EQ(Refusal([](auto& request) { request.min_tokens = 14; }),
            "min_tokens is 14; it must be in 0..13");
  EXPECT_EQ(Refusal([](auto& request) {
              request.max_tokens = 4;
              request.min_tokens = 5;
            }),
            "min_tokens is 5; it must be in 0..4");
  EXPECT_EQ(Refusal([](auto& request) { request.stop_token_ids = {-1}; }),
            "stop_token_ids has -1; model tiny has tokens 0..49");
  EXPECT_EQ(Refusal([](auto& request) { request.sampling.temperature = -1; }),
            "temperature -1 is not 0 or more");
  EXPECT_EQ(Refusal([](auto& request) { request.sampling.top_p = NAN; }),
            "top_p nan is not above 0 and at most 1");
}

TEST(TextSequence, EndsAtEosAtAStopIdOrAtItsLength) {
  serve::TokenRequest request = Prompt({5, 6});
  request.stop_token_ids = {9};
  request.max_tokens = 3;
  EXPECT_EQ(TextSequence(request, kModel, 100).Take(3), FinishReason::kStop);
  EXPECT_EQ(TextSequence(request, kModel, 100).Take(9), FinishReason::kStop);
  TextSequence sequence(request, kModel, 100);
  EXPECT_EQ(sequence.Take(7), FinishReason::kNone);
  EXPECT_EQ(sequence.Take(8), FinishReason::kNone);
  EXPECT_EQ(sequence.Take(7), FinishReason::kLength);
  EXPECT_THAT(sequence.tokens(), ElementsAre(5, 6, 7, 8, 7));
  EXPECT_EQ(sequence.generated_tokens(), 3);
}

TEST(TextSequence, IgnoresEosWhenAskedToButNotStopIds) {
  serve::TokenRequest request = Prompt({5});
  request.ignore_eos = true;
  request.stop_token_ids = {9};
  request.min_tokens = 2;
  TextSequence sequence(request, kModel, 100);
  EXPECT_THAT(sequence.NextSample().bias,
              ElementsAre(Pair(9, -std::numeric_limits<float>::infinity())));
  EXPECT_EQ(sequence.Take(2), FinishReason::kNone);
  EXPECT_EQ(sequence.Take(9), FinishReason::kStop);
}

TEST(TextSequence, BansItsEndsUntilMinTokensAndKeepsTheRequestsBias) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  serve::TokenRequest request = Prompt({5});
  request.min_tokens = 1;
  request.stop_token_ids = {9};
  request.sampling.bias = {{1, 0.5F}, {3, 4.0F}, {20, kNever}};
  TextSequence sequence(request, kModel, 100);
  EXPECT_THAT(sequence.NextSample().bias,
              ElementsAre(Pair(1, 0.5F), Pair(2, kNever), Pair(3, kNever), Pair(9, kNever),
                          Pair(20, kNever)));
  sequence.Take(7);
  EXPECT_EQ(sequence.NextSample().bias, request.sampling.bias);
}

TEST(TextSequence, CountsTokensSeenOnlyWhereThereIsAPenalty) {
  serve::TokenRequest request = Prompt({8, 5, 8});
  request.sampling.seed = 77;
  TextSequence plain(request, kModel, 100);
  plain.Take(5);
  EXPECT_THAT(plain.NextSample().seen, IsEmpty());
  EXPECT_EQ(plain.NextSample().seed, 77u);
  request.sampling.frequency_penalty = 0.5;
  TextSequence sequence(request, kModel, 100);
  EXPECT_THAT(sequence.NextSample().seen, ElementsAre(Pair(5, 0), Pair(8, 0)));
  EXPECT_EQ(sequence.NextSample().position, 3);
  sequence.Take(5);
  sequence.Take(7);
  EXPECT_THAT(sequence.NextSample().seen, ElementsAre(Pair(5, 1), Pair(7, 1), Pair(8, 0)));
  EXPECT_EQ(sequence.NextSample().position, 5);
}

TEST(TextSequence, AnAnswerOfOpenLengthGoesAsFarAsModelAndCacheDo) {
  EXPECT_EQ(TextSequence(Prompt({5}), kModel, 100).max_tokens(), 16);
  EXPECT_EQ(TextSequence(Prompt({5}), kModel, 8).max_tokens(), 9);
  EXPECT_EQ(TextSequence(Prompt({5, 6, 7}), kModel, 1).max_tokens(), 4);
}

}  // namespace
}  // namespace echelon::stage
