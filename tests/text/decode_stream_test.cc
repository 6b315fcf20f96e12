#include "runtime/text/decode_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/text/tiny.h"

namespace echelon {
namespace {

using ::testing::ElementsAre;

// One piece a token, then what the end gives.
std::vector<std::string> Pieces(std::shared_ptr<const Tokenizer> tokenizer,
                                const std::vector<int64_t>& ids) {
  DecodeStream stream(std::move(tokenizer));
  std::vector<std::string> pieces;
  for (int64_t id : ids) {
    pieces.push_back(stream.Append({id}).value());
  }
  pieces.push_back(stream.Flush().value());
  return pieces;
}

std::string Joined(const std::vector<std::string>& pieces) {
  std::string text;
  for (const std::string& piece : pieces) {
    text += piece;
  }
  return text;
}

TEST(DecodeStream, WaitsForTheLastByteOfACharacter) {
  EXPECT_THAT(Pieces(ByteLevel(), BytesOf("a世b", 0)), ElementsAre("a", "", "", "世", "b", ""));
}

TEST(DecodeStream, LeavesOutACharacterThatIsCutShortAtTheEnd) {
  EXPECT_EQ(Joined(Pieces(ByteLevel(), BytesOf("ok \xF0\x9F\x91", 0))), "ok ");
  EXPECT_EQ(Joined(Pieces(ByteFallback(), BytesOf("\xE4\xBD\xA0\xE4\xBD", kFirstByte))), "你");
}

TEST(DecodeStream, ShowsBytesThatCanMakeNoCharacterAsDecodeDoes) {
  EXPECT_EQ(Joined(Pieces(ByteLevel(), BytesOf("a\xFFz\xC0\x80!", 0))), "a\uFFFDz\uFFFD\uFFFD!");
  EXPECT_EQ(Joined(Pieces(ByteLevel(), BytesOf("a\xFF", 0))), "a\uFFFD");
}

TEST(DecodeStream, ShowsAReplacementCharacterThatTheModelWrote) {
  EXPECT_EQ(Joined(Pieces(ByteLevel(), BytesOf("a\uFFFD", 0))), "a\uFFFD");
}

// They may be all that a model writes, so a window that waits for a character is cut, too.
TEST(DecodeStream, ShowsManyBytesThatCanMakeNoCharacter) {
  for (const std::string byte : {"\x80", "\xF0", "\xE2\x80", "\uFFFD"}) {
    std::string bytes = "a";
    for (int i = 0; i < 100; ++i) bytes += byte;
    const std::vector<int64_t> ids = BytesOf(bytes + "\xE4\xB8\x96", 0);
    EXPECT_EQ(Joined(Pieces(ByteLevel(), ids)), *ByteLevel()->Decode(ids)) << byte;
  }
}

TEST(DecodeStream, LosesTheFirstSpaceOfTheTextAndNoOther) {
  const int64_t space = kFirstWord, a = kFirstWord + 1, b = kFirstWord + 2;
  EXPECT_THAT(Pieces(ByteFallback(), {1, a, b, space, a}),
              ElementsAre("", "a", " b", " ", " a", ""));
  EXPECT_THAT(Pieces(ByteFallback(), {space, a, b}), ElementsAre("", " a", " b", ""));
}

TEST(DecodeStream, HoldsARunOfByteTokensUntilItsEnd) {
  std::vector<int64_t> ids = BytesOf("你", kFirstByte);
  ids.push_back(kFirstWord + 3);
  EXPECT_THAT(Pieces(ByteFallback(), ids), ElementsAre("", "", "", "你a", ""));
  // A byte that fits nowhere turns its whole run: nothing of it may have been shown.
  ids = BytesOf("A\xFF", kFirstByte);
  ids.push_back(kFirstWord + 3);
  EXPECT_EQ(Joined(Pieces(ByteFallback(), ids)), "\uFFFD\uFFFDa");
}

TEST(DecodeStream, BeginsAgainAfterItsEnd) {
  DecodeStream stream(ByteFallback());
  EXPECT_EQ(*stream.Append({kFirstWord + 1}), "a");
  EXPECT_EQ(*stream.Flush(), "");
  EXPECT_EQ(*stream.Append({kFirstWord + 1}), "a");
}

// Whatever the tokens, and however they are cut into pieces.
TEST(DecodeStream, PiecesJoinToTheWholeDecoded) {
  std::mt19937 random(7);
  for (const auto& tokenizer : {ByteLevel(), ByteFallback()}) {
    const int64_t size = tokenizer->vocab_size();
    for (int round = 0; round < 300; ++round) {
      std::vector<int64_t> ids;
      for (int i = 0; i < 60; ++i) {
        // Words and text in UTF-8 among bytes at random.
        switch (random() % 5) {
          case 0:
            ids.push_back(random() % size);
            break;
          case 1:
            ids.push_back(size - 1 - random() % 5);
            break;
          case 2:
            ids.insert(ids.end(), random() % 40, random() % size);
            break;
          default:
            for (int64_t id :
                 BytesOf(round % 2 ? "世é" : "👩‍🚀", size > 260 ? kFirstByte : 0)) {
              ids.push_back(id);
            }
        }
      }
      ids.push_back(size > 260 ? kFirstWord + 3 : 'a');
      DecodeStream stream(tokenizer);
      std::string joined;
      for (size_t at = 0; at < ids.size();) {
        const size_t count = std::min<size_t>(1 + random() % 3, ids.size() - at);
        joined += stream.Append(absl::MakeConstSpan(ids).subspan(at, count)).value();
        at += count;
      }
      joined += stream.Flush().value();
      ASSERT_EQ(joined, tokenizer->Decode(ids).value()) << "round " << round;
    }
  }
}

}  // namespace
}  // namespace echelon
