#include "runtime/graph/zip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/graph/testing.h"

namespace echelon::graph {
namespace {

using ::testing::HasSubstr;
using testing::MakeZip;

std::string ErrorOf(const std::string& bytes) {
  const auto zip = Zip::Open(*FromMemory(bytes, "m.pt2"));
  return zip.ok() ? "ok" : std::string(zip.status().message());
}

TEST(Zip, ListsStoredEntriesAndWhereTheirDataLie) {
  for (const bool zip64 : {false, true}) {
    const std::string bytes = MakeZip({{"a/x", "hello"}, {"a/y", ""}, {"a/z", "world!"}}, zip64);
    const auto zip = Zip::Open(*FromMemory(bytes, "m.pt2"));
    ASSERT_TRUE(zip.ok()) << zip.status();
    ASSERT_EQ(zip->entries().size(), 3u);
    EXPECT_EQ(bytes.substr(zip->Find("a/x")->offset, zip->Find("a/x")->nbytes), "hello");
    EXPECT_EQ(bytes.substr(zip->Find("a/z")->offset, zip->Find("a/z")->nbytes), "world!");
    EXPECT_EQ(zip->Find("a/y")->nbytes, 0u);
    EXPECT_EQ(zip->Find("a/w"), nullptr);
  }
}

TEST(Zip, RefusesEveryTruncation) {
  const std::string bytes = MakeZip({{"a/x", "hello"}, {"a/y", "world"}}, true);
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THAT(ErrorOf(bytes.substr(0, length)), HasSubstr("m.pt2: ")) << length;
  }
}

TEST(Zip, RefusesAForeignFile) {
  EXPECT_EQ(ErrorOf(std::string(1000, 'x')),
            "m.pt2: not a .pt2 archive, or a truncated one: no zip directory at its end");
  EXPECT_THAT(ErrorOf(""), HasSubstr("no zip directory"));
}

TEST(Zip, RefusesTwoEntriesOfOneName) {
  EXPECT_THAT(ErrorOf(MakeZip({{"a", "1"}, {"a", "2"}})), HasSubstr("two entries are named 'a'"));
}

// One byte of the directory's first record at a time.
std::string Spoiled(size_t at, char value) {
  std::string bytes = MakeZip({{"first", "hello"}, {"second", "world"}});
  bytes[bytes.find("PK\1\2") + at] = value;
  return ErrorOf(bytes);
}

TEST(Zip, RefusesWhatItCannotReadAndNamesTheEntry) {
  EXPECT_EQ(Spoiled(8, 1), "m.pt2: entry 'first' is encrypted");
  EXPECT_EQ(Spoiled(10, 8),
            "m.pt2: entry 'first' is compressed; save the model again with torch.export.save");
  EXPECT_THAT(Spoiled(20, 99), HasSubstr("'first' states two sizes"));
  EXPECT_THAT(Spoiled(42, 3), HasSubstr("'first' has no header where the directory says"));
  EXPECT_THAT(Spoiled(45, 3), HasSubstr("'first' lies outside the file"));
  EXPECT_THAT(Spoiled(0, 'X'), HasSubstr("its directory ends early"));
}

TEST(Zip, RefusesOverlapAndEntriesBeyondTheFile) {
  std::string bytes = MakeZip({{"first", "hello"}, {"second", "world"}});
  const size_t record = bytes.find("PK\1\2");
  bytes[record + 20] = bytes[record + 24] = 9;  // sizes reach into the second's header
  EXPECT_THAT(ErrorOf(bytes), HasSubstr("'first' and 'second' overlap"));
  bytes[record + 22] = bytes[record + 26] = 1;
  EXPECT_THAT(ErrorOf(bytes), HasSubstr("lies outside the file"));
}

TEST(Zip, EscapesNamesInErrors) {
  EXPECT_THAT(ErrorOf(MakeZip({{"a\nb", "1"}, {"a\nb", "2"}})), HasSubstr("'a\\nb'"));
}

TEST(ByteSource, RefusesRangesPastTheEnd) {
  char buffer[8];
  const auto source = FromMemory("abcd", "m");
  EXPECT_TRUE(source->Read(1, 3, buffer).ok());
  EXPECT_FALSE(source->Read(2, 3, buffer).ok());
  EXPECT_FALSE(source->Read(UINT64_MAX, 2, buffer).ok());
  EXPECT_THAT(std::string(OpenFile("no/such/file").status().message()),
              HasSubstr("cannot open no/such/file: No such file"));
}

}  // namespace
}  // namespace echelon::graph
