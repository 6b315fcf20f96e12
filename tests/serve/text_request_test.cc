#include "runtime/serve/text_request.h"

#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <limits>

#include "tests/text/tiny.h"

namespace echelon::serve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

const TextModelInfo& Model() {
  static const auto* const model = new TextModelInfo{
      .name = "tiny", .vocab_size = 258, .max_model_len = 32, .eos_token_ids = {256}};
  return *model;
}

TextFiles Files() {
  return {ByteLevel(), *ChatTemplate::Parse("{% for m in messages %}{{ m.role[0] }}:{{ m.content }}"
                                            "<end>{% endfor %}a:")};
}

v1::GenerateRequest Text(const std::string& text) {
  v1::GenerateRequest request;
  request.set_text(text);
  return request;
}

TEST(TextRequest, TakesTextAsItIs) {
  const auto request = ReadTextRequest(Text("hi<end>"), Model(), Files());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(request->prompt, ElementsAre('h', 'i', 256));
  EXPECT_EQ(request->sampling.temperature, 0);
  EXPECT_EQ(request->sampling.top_p, 1);
  EXPECT_EQ(request->sampling.repetition_penalty, 1);
  EXPECT_EQ(request->sampling.logprobs, -1);
  EXPECT_EQ(request->max_tokens, 0);
}

TEST(TextRequest, WritesMessagesByTheChatTemplate) {
  v1::GenerateRequest request;
  auto* const message = request.mutable_messages()->add_messages();
  message->set_role("user");
  message->set_content("hi");
  const auto tokens = ReadTextRequest(request, Model(), Files());
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_THAT(tokens->prompt, ElementsAre('u', ':', 'h', 'i', 256, 'a', ':'));
}

TEST(TextRequest, TakesEveryOption) {
  v1::GenerateRequest request = Text("hi");
  request.set_max_tokens(9);
  request.set_min_tokens(2);
  request.add_stop_token_ids(10);
  request.set_ignore_eos(true);
  request.set_temperature(0.5F);
  request.set_top_k(40);
  request.set_top_p(0.9F);
  request.set_min_p(0.1F);
  request.set_repetition_penalty(1.5F);
  request.set_presence_penalty(-1);
  request.set_frequency_penalty(2);
  (*request.mutable_logit_bias())[7] = 3;
  (*request.mutable_logit_bias())[5] = -INFINITY;
  request.set_seed(42);
  request.set_logprobs(0);
  const auto tokens = ReadTextRequest(request, Model(), Files());
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->max_tokens, 9);
  EXPECT_EQ(tokens->min_tokens, 2);
  EXPECT_TRUE(tokens->ignore_eos);
  EXPECT_THAT(tokens->stop_token_ids, ElementsAre(10));
  EXPECT_THAT(tokens->sampling.bias, ElementsAre(Pair(5, -INFINITY), Pair(7, 3)));
  EXPECT_EQ(tokens->sampling.seed, 42u);
  EXPECT_EQ(tokens->sampling.top_k, 40);
  EXPECT_EQ(tokens->sampling.logprobs, 0);
  EXPECT_EQ(tokens->sampling.frequency_penalty, 2);
}

TEST(TextRequest, DrawsASeedWhereNoneIsGiven) {
  const auto first = ReadTextRequest(Text("a"), Model(), Files());
  const auto second = ReadTextRequest(Text("a"), Model(), Files());
  EXPECT_NE(first->sampling.seed, second->sampling.seed);
}

TEST(TextRequest, RefusesEachFieldByName) {
  const auto error = [](const std::function<void(v1::GenerateRequest&)>& change) {
    v1::GenerateRequest request = Text("hi");
    change(request);
    const auto tokens = ReadTextRequest(request, Model(), Files());
    EXPECT_EQ(tokens.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(tokens.status().message());
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(error([](auto& r) { r.clear_text(); }),
            "there is no prompt; give text, messages or token_ids");
  EXPECT_THAT(error([](auto& r) { r.set_text(""); }), HasSubstr("text: is empty"));
  EXPECT_THAT(error([](auto& r) { r.mutable_messages(); }), HasSubstr("messages: give at least"));
  EXPECT_THAT(error([](auto& r) { r.mutable_messages()->add_messages()->set_content("x"); }),
              HasSubstr("messages[0].role is empty"));
  EXPECT_THAT(error([](auto& r) { r.mutable_token_ids(); }), HasSubstr("token_ids: give at least"));
  EXPECT_EQ(error([](auto& r) { r.mutable_token_ids()->add_ids(258); }),
            "token_ids: 258 is no token of the model: ids are below 258");
  EXPECT_EQ(error([](auto& r) { r.set_temperature(-1); }), "temperature -1 is not 0 or more");
  EXPECT_EQ(error([&](auto& r) { r.set_temperature(nan); }), "temperature nan is not 0 or more");
  EXPECT_EQ(error([](auto& r) { r.set_top_k(-1); }), "top_k -1 is not 0 or more");
  EXPECT_EQ(error([](auto& r) { r.set_top_p(0); }), "top_p 0 is not above 0 and at most 1");
  EXPECT_EQ(error([](auto& r) { r.set_min_p(2); }), "min_p 2 is not between 0 and 1");
  EXPECT_EQ(error([](auto& r) { r.set_repetition_penalty(0); }),
            "repetition_penalty 0 is not between 0.01 and 100");
  EXPECT_EQ(error([](auto& r) { r.set_presence_penalty(3); }),
            "presence_penalty 3 is not between -2 and 2");
  EXPECT_EQ(error([&](auto& r) { r.set_frequency_penalty(nan); }),
            "frequency_penalty nan is not between -2 and 2");
  EXPECT_EQ(error([](auto& r) { (*r.mutable_logit_bias())[-1] = 0; }),
            "logit_bias: token -1 is no token of the model: ids are below 258");
  EXPECT_EQ(error([](auto& r) { (*r.mutable_logit_bias())[3] = INFINITY; }),
            "logit_bias: inf of token 3 is not between -100 and 100");
  EXPECT_EQ(error([](auto& r) { r.set_logprobs(21); }), "logprobs 21 is not between 0 and 20");
  EXPECT_EQ(error([](auto& r) { r.set_max_tokens(-1); }), "max_tokens -1 is not 0 or more");
  EXPECT_EQ(error([](auto& r) { r.set_max_tokens(31); }),
            "max_tokens 31 after a prompt of 2 is more than the model's 32; give at most 30");
  EXPECT_EQ(error([](auto& r) { r.set_min_tokens(-1); }), "min_tokens -1 is not 0 or more");
  EXPECT_EQ(error([](auto& r) { r.set_min_tokens(31); }),
            "min_tokens 31 is more than the 30 that the answer may have");
  EXPECT_THAT(error([](auto& r) { r.add_stop(""); }), HasSubstr("stop: an empty string"));
  EXPECT_THAT(error([](auto& r) { r.add_stop(std::string(2000, 'x')); }), HasSubstr("stop: a "));
  EXPECT_EQ(error([](auto& r) { r.add_stop_token_ids(1000); }),
            "stop_token_ids: 1000 is no token of the model: ids are below 258");
  EXPECT_EQ(error([](auto& r) { r.set_text(std::string(32, 'x')); }),
            "the prompt has 32 tokens; the model takes 32 of prompt and answer together");
  EXPECT_EQ(error([](auto& r) { r.set_text(std::string(10'000, 'x')); }),
            "text: 10000 bytes of text are more than the 32 tokens that the model takes");
  EXPECT_EQ(error([](auto& r) {  // before the template sees it
              auto* const message = r.mutable_messages()->add_messages();
              message->set_role("user");
              message->set_content(std::string(10'000, 'x'));
            }),
            "messages: 10004 bytes of text are more than the 32 tokens that the model takes");
}

TEST(TextRequest, RefusesMoreMessagesThanTheModelTakesTokens) {
  v1::GenerateRequest request;
  for (int i = 0; i < 33; ++i) request.mutable_messages()->add_messages()->set_role("u");
  EXPECT_EQ(CheckPromptSize(request, Model()).message(),
            "messages: 33 of them are more than the 32 tokens that the model takes");
}

// Tokenizers may hold tokens of a larger model of the family, images' for instance.
TEST(TextRequest, NamesATokenThatTheModelDoesNotKnow) {
  TextModelInfo model = Model();
  model.vocab_size = 'z';
  const auto tokens = ReadTextRequest(Text("a{b"), model, Files());
  EXPECT_EQ(tokens.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tokens.status().message(),
            "text holds '{', token 123 of tokenizer.json, which the model does not know: its ids "
            "are below 122");
}

TEST(TextRequest, ClipsAnAnswersLengthWhereThatIsWanted) {
  v1::GenerateRequest request = Text("hi");
  request.set_max_tokens(256);
  request.set_clip_max_tokens(true);
  EXPECT_EQ(ReadTextRequest(request, Model(), Files())->max_tokens, 30);
  request.set_max_tokens(9);
  EXPECT_EQ(ReadTextRequest(request, Model(), Files())->max_tokens, 9);
}

TEST(TextRequest, NamesTheModelServedWhenAnotherIsAskedFor) {
  v1::GenerateRequest request = Text("hi");
  request.set_model("other");
  const auto tokens = ReadTextRequest(request, Model(), Files());
  EXPECT_EQ(tokens.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(tokens.status().message(), "model 'other' is not here; this server serves 'tiny'");
}

TEST(TextRequest, RefusesMessagesWhereThereIsNoChatTemplate) {
  v1::GenerateRequest request;
  auto* const message = request.mutable_messages()->add_messages();
  message->set_role("user");
  const auto tokens = ReadTextRequest(request, Model(), {.tokenizer = ByteLevel()});
  EXPECT_EQ(tokens.status().message(),
            "messages: model 'tiny' has no chat template; give text instead");
}

}  // namespace
}  // namespace echelon::serve
