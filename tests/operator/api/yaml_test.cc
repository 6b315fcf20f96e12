#include "operator/api/yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace echelon::op {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::string One(const std::string& text) {
  const auto documents = ParseYaml(text);
  if (!documents.ok()) return std::string(documents.status().message());
  return documents->size() == 1 ? documents->at(0).dump() : "no single document";
}

TEST(Yaml, TypesPlainScalarsAsVersion12Does) {
  const std::pair<const char*, const char*> cases[] = {
      {"yes", "\"yes\""},
      {"on", "\"on\""},
      {"True", "true"},
      {"~", "null"},
      {"12", "12"},
      {"-12", "-12"},
      {"+12", "12"},
      {"012", "12"},
      {"0o17", "15"},
      {"0x1F", "31"},
      {"1.5", "1.5"},
      {".5", "0.5"},
      {"1e3", "1000.0"},
      {"'12'", "\"12\""},
      {"\"true\"", "\"true\""},
      {"!!str 12", "\"12\""},
      {"1.2.3", "\"1.2.3\""},
      {"24Gi", "\"24Gi\""},
      {"-", "[null]"},
      {"8080:80", "\"8080:80\""},
      {"9223372036854775807", "9223372036854775807"},
      {"e3", "\"e3\""},
      {"+", "\"+\""}};
  for (const auto& [yaml, expected] : cases)
    EXPECT_EQ(One(std::string("a: \n  ") + yaml), std::string("{\"a\":") + expected + "}") << yaml;
}

TEST(Yaml, ReadsSeveralDocumentsAndLeavesOutEmptyOnes) {
  const auto documents = ParseYaml("---\na: 1\n---\n# nothing\n---\nb: [1, {c: d}]\n");
  ASSERT_TRUE(documents.ok()) << documents.status();
  ASSERT_EQ(documents->size(), 2);
  EXPECT_EQ(documents->at(1).dump(), R"({"b":[1,{"c":"d"}]})");
}

TEST(Yaml, ReadsJsonToo) { EXPECT_EQ(One(R"({"a": [1, "b", null]})"), R"({"a":[1,"b",null]})"); }

TEST(Yaml, FollowsAliases) {
  EXPECT_EQ(One("a: &x {b: 1}\nc: *x"), R"({"a":{"b":1},"c":{"b":1}})");
}

TEST(Yaml, SaysWhereItCannotBeRead) {
  EXPECT_THAT(One("a: 1\nb: [1"), HasSubstr("line 2"));
  EXPECT_EQ(One("a: 1\na: 2"), "line 2, column 1: field 'a' is there twice");
  EXPECT_THAT(One("a: .inf"), HasSubstr("write a finite number"));
  EXPECT_THAT(One("a: &x {b: 1}\nc: {<<: *x}"), HasSubstr("merge keys"));
  EXPECT_THAT(One("a: !!binary aGk="), HasSubstr("tag"));
  EXPECT_THAT(One("? [a]\n: 1"), HasSubstr("must be a word"));
}

TEST(Yaml, IsBounded) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string before = " *a" + std::to_string(i - 1) + ",", name = "a" + std::to_string(i);
    bomb += name + ": &" + name + " [";
    for (int k = 0; k < 10; ++k) bomb += before;
    bomb += "]\n";
  }
  EXPECT_THAT(One(bomb), HasSubstr("more than 100000 values"));
  EXPECT_THAT(One("a: &a [*a]"), HasSubstr("an alias of what it is part of"));
  EXPECT_THAT(One(std::string(65, '[') + std::string(65, ']')), HasSubstr("more than 64 levels"));
  EXPECT_EQ(One(","), "line 1, column 1: this is no beginning of a document");
  EXPECT_FALSE(ParseYaml(std::string(100'000, '[')).ok());
}

}  // namespace
}  // namespace echelon::op
