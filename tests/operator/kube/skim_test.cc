#include "operator/kube/skim.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"

namespace echelon::op {
namespace {

using nlohmann::json;
using testing::ElementsAre;

const Parts kWithout{{"", "status"}, {"spec", "template"}};

TEST(Skim, IsTheParsersTreeWhereNothingIsUnwanted) {
  for (const char* text :
       {"null", "true", "-3", "7", "2.5", R"("a\u00e9")", "[]", "{}", "[1,[2,{\"a\":[]}],{}]",
        R"({"a":{"b":[{"c":null},[],[[1]]],"d":""},"a2":-0.5e3,"":{"":[""]}})",
        R"({"twice":1,"twice":{"is":"the last"}})"}) {
    EXPECT_EQ(Skim(text, {}), json::parse(text)) << text;
  }
}

TEST(Skim, PassesOverNamedPartsAndNothingElseThatIsCalledSo) {
  const char text[] = R"({"status":{"a":[{"b":1}]},"spec":{"template":[1,{"x":[]}],"n":1,
      "status":2,"deep":{"template":3,"status":4}},"template":5,"other":{"template":6},
      "more":[{"status":7,"spec":{"template":8}}]})";
  EXPECT_EQ(Skim(text, kWithout),
            json::parse(R"({"spec":{"n":1,"status":2,"deep":{"template":3,"status":4}},
      "template":5,"other":{"template":6},"more":[{"status":7,"spec":{"template":8}}]})"));
}

TEST(Skim, PassesOverScalarsToo) {
  EXPECT_EQ(Skim(R"({"status":null,"spec":{"template":"x","n":1}})", kWithout),
            json::parse(R"({"spec":{"n":1}})"));
}

TEST(Skim, KnowsTheObjectOfAWatchEvent) {
  EXPECT_EQ(Skim(R"({"type":"ADDED","status":1,"object":{"status":2,"spec":{"template":3}}})",
                 kWithout, ObjectAt::kMember),
            json::parse(R"({"type":"ADDED","status":1,"object":{"spec":{}}})"));
}

TEST(Skim, GivesItemsAwayOneByOne) {
  std::vector<std::string> items;
  const json rest =
      Skim(R"({"items":[{"n":1,"status":{}},{"spec":{"template":[{}],"items":[{"a":1}]}}],
          "other":[{"n":2}],"metadata":{"items":[{"n":3}]}})",
           kWithout, ObjectAt::kItems, [&](const json& item) { items.push_back(item.dump()); });
  EXPECT_THAT(items, ElementsAre(R"({"n":1})", R"({"spec":{"items":[{"a":1}]}})"));
  EXPECT_EQ(rest, json::parse(R"({"items":[],"other":[{"n":2}],"metadata":{"items":[{"n":3}]}})"));
}

TEST(Skim, DiscardsWhatIsNoJson) {
  for (const char* text :
       {"", "{", "[1,", "{\"a\":}", "nul", "{} {}", "\"\xff\"", "{\"status\":{]}"})
    EXPECT_TRUE(Skim(text, kWithout).is_discarded()) << text;
}

TEST(Skim, NeedsNoStackForWhatIsDeep) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_EQ(Skim("{\"status\":" + deep + "}", kWithout), json::object());
  EXPECT_TRUE(Skim(deep, kWithout).is_array());
}

}  // namespace
}  // namespace echelon::op
