#include "runtime/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/text/tiny.h"

namespace echelon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Tokenizer, EncodesAndDecodesBytes) {
  auto tokenizer = ByteLevel();
  const std::string text = "é 👩‍🚀\n\t世";
  auto ids = tokenizer->Encode(text);
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(*ids, BytesOf(text, 0));
  EXPECT_EQ(*tokenizer->Decode(*ids), text);
}

TEST(Tokenizer, ReadsWhatIsNoUtf8AsReplacementCharacters) {
  EXPECT_EQ(*ByteLevel()->Encode("a\xFFz"), BytesOf("a\uFFFDz", 0));
}

TEST(Tokenizer, TellsSpecialTokensInATextFromWhatTheyAreWrittenWith) {
  auto tokenizer = ByteLevel();
  EXPECT_THAT(*tokenizer->Encode("a<end>"), ElementsAre('a', 256));
  EXPECT_EQ(*tokenizer->Encode("a<end>", {.parse_special_tokens = false}), BytesOf("a<end>", 0));
}

TEST(Tokenizer, AddsWhatThePostProcessorAddsOnlyWhenAsked) {
  auto tokenizer = ByteFallback();
  EXPECT_THAT(*tokenizer->Encode("a b"), ElementsAre(1, kFirstWord + 1, kFirstWord + 2));
  EXPECT_THAT(*tokenizer->Encode("a b", {.add_special_tokens = false}),
              ElementsAre(kFirstWord + 1, kFirstWord + 2));
}

TEST(Tokenizer, LeavesSpecialTokensOutOfDecodedText) {
  auto tokenizer = ByteLevel();
  EXPECT_EQ(*tokenizer->Decode({'a', 256, 257, 'b'}), "a<note>b");
  EXPECT_EQ(*tokenizer->Decode({'a', 256, 257, 'b'}, /*skip_special_tokens=*/false),
            "a<end><note>b");
}

TEST(Tokenizer, GivesNoTextForIdsThatTheVocabularyLacks) {
  EXPECT_EQ(*ByteLevel()->Decode({'a', -1, 100'000, int64_t{1} << 40, 'b'}), "ab");
}

TEST(Tokenizer, KnowsItsVocabulary) {
  auto tokenizer = ByteLevel();
  EXPECT_EQ(tokenizer->vocab_size(), 258);
  EXPECT_EQ(tokenizer->TokenToId("<end>"), 256);
  EXPECT_EQ(tokenizer->TokenToId("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer->IdToToken(257), "<note>");
  EXPECT_EQ(tokenizer->IdToToken(258), std::nullopt);
  EXPECT_EQ(tokenizer->IdToToken(-1), std::nullopt);
  ASSERT_EQ(tokenizer->added_tokens().size(), 2u);
  EXPECT_EQ(tokenizer->added_tokens()[0].content, "<end>");
  EXPECT_TRUE(tokenizer->added_tokens()[0].special);
  EXPECT_FALSE(tokenizer->added_tokens()[1].special);
}

TEST(Tokenizer, TakesTheTokensThatItsConfigurationAdds) {
  auto tokenizer = Tokenizer::Parse(ByteLevelJson(), R"({
      "eos_token": {"content": "<end>", "__type": "AddedToken"}, "pad_token": "<pad>",
      "additional_special_tokens": ["<tool>"],
      "added_tokens_decoder": {"257": {"content": "<note>", "special": true}}})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(*(*tokenizer)->Encode("<pad><tool><end>"), ElementsAre(258, 259, 256));
  EXPECT_EQ(*(*tokenizer)->Decode({257, 'a', 258}), "a");
}

TEST(Tokenizer, ReadsSpecialTokensMapWhereTheConfigurationListsNoAddedTokens) {
  auto tokenizer = Tokenizer::Parse(ByteLevelJson(), "", R"({"pad_token": "<pad>"})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->TokenToId("<pad>"), 258);
}

TEST(Tokenizer, NamesTheBrokenFile) {
  for (const char* broken : {"", "{", "[]", "{}", "\xFF", R"({"model": {"type": "Magic"}})"}) {
    auto tokenizer = Tokenizer::Parse(broken);
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument) << broken;
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("tokenizer.json: "));
    EXPECT_EQ(tokenizer.status().message().find('\n'), std::string::npos);
  }
  auto config = Tokenizer::Parse(ByteLevelJson(), "[1]");
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("tokenizer_config.json"));
}

TEST(Tokenizer, SaysHowToMakeAMissingFile) {
  auto tokenizer = Tokenizer::Load(std::filesystem::path(testing::TempDir()) / "no_such_model");
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("save_pretrained"));
}

}  // namespace
}  // namespace echelon
