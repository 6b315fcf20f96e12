#include "operator/kube/list_page.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "operator/kube/watch_lines.h"

namespace echelon::op {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(ReadPage, GivesItemsOneByOneWithoutWhatNobodyWants) {
  const std::string text = R"({"kind":"PodList","items":[
      {"metadata":{"name":"a","namespace":"n","managedFields":[{"x":{"y":1}}]},"spec":{"deep":{"er":[{"s":{}}]}}},
      {"metadata":{"name":"b"}}],
      "metadata":{"resourceVersion":"12","continue":"next","deep":{"er":{}}}})";
  std::vector<json> items;
  const auto end = ReadPage(text, {{"metadata", "managedFields"}},
                            [&](json item) { items.push_back(std::move(item)); });
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->version, "12");
  EXPECT_EQ(end->token, "next");
  EXPECT_EQ(end->items, 2);
  EXPECT_THAT(
      items,
      ElementsAre(
          json::parse(
              R"({"metadata":{"name":"a","namespace":"n"},"spec":{"deep":{"er":[{"s":{}}]}}})"),
          json::parse(R"({"metadata":{"name":"b"}})")));
  EXPECT_EQ(KeyOf(items[0]), "n/a");
  EXPECT_EQ(KeyOf(items[1]), "b");
}

TEST(ReadPage, RefusesWhatIsNoList) {
  for (const char* text : {"", "[]", "7", "{", R"({"items":[]})", "<html>",
                           "{\"items\":[{\"a\":\"\xff\"}],\"metadata\":{}}"}) {
    EXPECT_FALSE(ReadPage(text, {}, [](const json&) {}).ok()) << text;
  }
  EXPECT_TRUE(ReadPage(R"({"items":null,"metadata":{"resourceVersion":"1"}})", {}, [](const json&) {
              }).ok());
}

TEST(ReadWatchLine, RefusesWhatIsNoEvent) {
  for (const char* text : {"", "[]", "{}", R"({"type":"ADDED"})", R"({"type":7,"object":{}})",
                           R"({"type":"ADDED","object":[]})"}) {
    EXPECT_FALSE(ReadWatchLine(text, {}).ok()) << text;
  }
}

class WatchLinesTest : public testing::Test {
 protected:
  std::vector<std::string> seen_;
  WatchLines lines_{[this](std::string_view line) { seen_.emplace_back(line); }, 20};
};

TEST_F(WatchLinesTest, LinesComeWholeHoweverTheBytesAreCut) {
  ASSERT_TRUE(lines_.OnBytes("ab").ok());  // before the headers
  ASSERT_TRUE(lines_.OnHeaders(200, {}).ok());
  for (const char* part : {"c\n", "d", "e", "\nf\ng\n", "h"})
    ASSERT_TRUE(lines_.OnBytes(part).ok());
  EXPECT_THAT(seen_, ElementsAre("abc", "de", "f", "g"));
  EXPECT_TRUE(lines_.Refusal().ok());
}

TEST_F(WatchLinesTest, ALineOverTheLimitIsAnError) {
  ASSERT_TRUE(lines_.OnHeaders(200, {}).ok());
  ASSERT_TRUE(lines_.OnBytes("0123456789").ok());
  EXPECT_TRUE(absl::IsResourceExhausted(lines_.OnBytes("01234567890")));
}

TEST_F(WatchLinesTest, ARefusalIsNoLine) {
  ASSERT_TRUE(lines_.OnBytes(R"({"reason":)").ok());
  ASSERT_TRUE(lines_.OnHeaders(403, {}).ok());
  ASSERT_TRUE(lines_.OnBytes(R"("Forbidden","message":"no"})").ok());
  EXPECT_THAT(seen_, testing::IsEmpty());
  EXPECT_TRUE(absl::IsPermissionDenied(lines_.Refusal()));
  EXPECT_THAT(std::string(lines_.Refusal().message()), HasSubstr("403 Forbidden: no"));
}

}  // namespace
}  // namespace echelon::op
