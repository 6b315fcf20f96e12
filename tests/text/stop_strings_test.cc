#include "runtime/text/stop_strings.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace echelon {
namespace {

// What is shown, piece by piece, and [i] where string i was met: "a|b[0]".
std::string Told(std::vector<std::string> stops, const std::vector<std::string_view>& pieces) {
  StopStrings strings(std::move(stops));
  std::string told;
  for (std::string_view piece : pieces) {
    StopStrings::Piece out = strings.Append(piece);
    told += (told.empty() ? "" : "|") + out.text;
    if (out.stop) {
      told += "[" + std::to_string(*out.stop) + "]";
    }
  }
  return told + "|" + strings.Flush();
}

TEST(StopStrings, LetEverythingPassWhenThereAreNone) {
  EXPECT_EQ(Told({}, {"ab", "c"}), "ab|c|");
  EXPECT_EQ(Told({""}, {"ab"}), "ab|");
}

TEST(StopStrings, EndTheTextBeforeTheMatch) {
  EXPECT_EQ(Told({"END"}, {"some END more", "and more"}), "some [0]||");
}

TEST(StopStrings, AreMetAcrossPieces) {
  EXPECT_EQ(Told({"</s>"}, {"a<", "/", "s", ">b"}), "a|||[0]|");
}

TEST(StopStrings, HoldBackOnlyWhatCouldStillBecomeOne) {
  EXPECT_EQ(Told({"abcd"}, {"xab", "ab", "cx"}), "x|ab|abcx|");
  EXPECT_EQ(Told({"\n\n"}, {"a\n", "b\n"}), "a|\nb|\n");
}

TEST(StopStrings, GiveBackAtTheEndWhatBecameNone) {
  EXPECT_EQ(Told({"END"}, {"the EN"}), "the |EN");
}

TEST(StopStrings, MeetTheOneThatEndsFirstAndThenTheLongest) {
  EXPECT_EQ(Told({"abcd", "bc"}, {"xabcd"}), "xa[1]|");
  EXPECT_EQ(Told({"c", "bc"}, {"xabcd"}), "xa[1]|");
}

TEST(StopStrings, FindTheSameHoweverTheTextIsCut) {
  const std::string text = "aababcabcabd";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    for (size_t more = cut; more <= text.size(); ++more) {
      StopStrings strings({"abcabd", "zz"});
      const std::string_view view = text;
      std::string shown = strings.Append(view.substr(0, cut)).text;
      shown += strings.Append(view.substr(cut, more - cut)).text;
      shown += strings.Append(view.substr(more)).text;
      EXPECT_EQ(shown, "aababc") << cut << " " << more;
    }
  }
}

}  // namespace
}  // namespace echelon
