#include "runtime/serve/text_session.h"

#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "tests/text/tiny.h"

namespace echelon::serve {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

constexpr int32_t kEnd = 256;  // of the byte-level tokenizer: id b is byte b

struct Played {
  std::string text;
  std::vector<std::string> pieces;  // as they came, empty ones too
  v1::GenerateResponse last;
};

// Feeds a text's bytes, one token each; the last one finishes as given.
Played Play(const v1::GenerateRequest& request, const std::string& bytes,
            FinishReason finish = FinishReason::kLength, int32_t min_tokens = 0) {
  TokenRequest tokens{.prompt = {1, 2, 3}, .min_tokens = min_tokens};
  tokens.sampling.seed = 7;
  TextSession session(ByteLevel(), request, tokens);
  Played played;
  std::vector<int32_t> ids(bytes.begin(), bytes.end());
  if (finish == FinishReason::kStop) ids.push_back(kEnd);
  for (size_t i = 0; i < ids.size() && !session.done(); ++i) {
    TokenEvent event{{.token = ids[i] < 0 ? ids[i] + 256 : ids[i], .logprob = -1}};
    if (i + 1 == ids.size()) event.finish = finish;
    auto response = session.Append(event);
    EXPECT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->has_seed(), i == 0);
    played.text += response->text();
    played.pieces.push_back(response->text());
    played.last = *std::move(response);
  }
  EXPECT_TRUE(session.done());
  return played;
}

v1::GenerateRequest Stops(std::vector<std::string> stops) {
  v1::GenerateRequest request;
  for (std::string& stop : stops) request.add_stop(std::move(stop));
  return request;
}

TEST(TextSession, GivesTheTextOfEachTokenAsItComes) {
  const Played played = Play({}, "abc");
  EXPECT_THAT(played.pieces, ElementsAre("a", "b", "c"));
  EXPECT_EQ(played.last.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(played.last.usage().prompt_tokens(), 3);
  EXPECT_EQ(played.last.usage().completion_tokens(), 3);
}

TEST(TextSession, NeverGivesABrokenCharacter) {
  EXPECT_THAT(Play({}, "\xF0\x9F\x98\x80!").pieces,
              ElementsAre("", "", "", "\xF0\x9F\x98\x80", "!"));
  EXPECT_EQ(Play({}, "ab\xF0\x9F").text, "ab") << "cut short at the very end";
}

TEST(TextSession, LeavesOutTheTokenThatEndsIt) {
  const Played played = Play({}, "ab", FinishReason::kStop);
  EXPECT_EQ(played.text, "ab");
  EXPECT_EQ(played.last.stop_token_id(), kEnd);
  EXPECT_EQ(played.last.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(played.last.usage().completion_tokens(), 3);
}

TEST(TextSession, CutsAStopStringThatSeveralTokensMake) {
  const Played played = Play(Stops({"\n\nUser:", "xyz"}), "hi\n\nUser: me");
  EXPECT_EQ(played.text, "hi");
  EXPECT_THAT(played.pieces, SizeIs(9)) << "ended with the token that met it";
  EXPECT_EQ(played.last.stop(), "\n\nUser:");
  EXPECT_EQ(played.last.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(played.last.usage().completion_tokens(), 9);
}

TEST(TextSession, GivesWhatWasHeldBackWhenItBecameNoStopString) {
  EXPECT_THAT(Play(Stops({"abc"}), "abdab").pieces, ElementsAre("", "", "abd", "", "ab"));
  EXPECT_EQ(Play(Stops({"abc"}), "xab", FinishReason::kStop).text, "xab");
}

TEST(TextSession, LooksForNoStopStringBeforeTheFewestTokens) {
  const Played played = Play(Stops({"b"}), "abab", FinishReason::kLength, /*min_tokens=*/2);
  EXPECT_EQ(played.text, "aba");
  EXPECT_EQ(played.last.stop(), "b");
}

TEST(TextSession, MeetsAStopStringThatBeginsAmongTheFewestTokens) {
  const Played played = Play(Stops({"bb"}), "abbcbb", FinishReason::kLength, /*min_tokens=*/2);
  EXPECT_EQ(played.text, "a");
  EXPECT_EQ(played.last.stop(), "bb");
}

TEST(TextSession, TellsLogProbabilitiesOfEachTokenWithItsText) {
  v1::GenerateRequest request;
  request.set_logprobs(2);
  TextSession session(ByteLevel(), request, {.prompt = {1}});
  const auto response =
      session.Append({{.token = 'a', .logprob = -0.25F, .top = {{'a', -0.25F}, {kEnd, -2.F}}}});
  ASSERT_TRUE(response.ok()) << response.status();
  ASSERT_EQ(response->logprobs_size(), 1);
  EXPECT_EQ(response->logprobs(0).token(), "a");
  EXPECT_EQ(response->logprobs(0).logprob(), -0.25F);
  ASSERT_EQ(response->logprobs(0).top_size(), 2);
  EXPECT_EQ(response->logprobs(0).top(1).token(), "<end>");
  EXPECT_EQ(response->logprobs(0).top(1).token_id(), kEnd);
}

TEST(TextSession, JoinsResponsesInTheirOrder) {
  v1::GenerateResponse first, second;
  first.set_seed(9);
  first.set_text("ab");
  first.add_token_ids(1);
  second.set_text("cd");
  second.add_token_ids(2);
  second.set_finish_reason(v1::FINISH_REASON_STOP);
  second.set_stop("x");
  Join(std::move(second), &first);
  EXPECT_EQ(first.text(), "abcd");
  EXPECT_THAT(first.token_ids(), ElementsAre(1, 2));
  EXPECT_EQ(first.seed(), 9u);
  EXPECT_EQ(first.stop(), "x");
}

}  // namespace
}  // namespace echelon::serve
