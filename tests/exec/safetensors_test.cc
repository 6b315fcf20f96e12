#include "runtime/weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace echelon::weights {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr uint64_t kData = 100;  // where data begins

std::string Fault(const std::string& header, uint64_t data_bytes = 24) {
  const auto tensors = ParseSafetensorsHeader("w.safetensors", header, kData, kData + data_bytes);
  if (tensors.ok()) return "none";
  EXPECT_EQ(tensors.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tensors.status().message()), StartsWith("w.safetensors: "));
  EXPECT_FALSE(absl::StrContains(tensors.status().message(), "\n"));
  return std::string(tensors.status().message());
}

// {"a": {...}} with one thing spoilt.
std::string Entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return absl::StrCat(R"({"a":{"dtype":)", dtype, R"(,"shape":)", shape, R"(,"data_offsets":)",
                      offsets, "}}");
}

TEST(SafetensorsHeader, GivesWhereTensorsLie) {
  const auto tensors = ParseSafetensorsHeader(
      "w",
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},
               "a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"e":{"dtype":"I8","shape":[0,7],"data_offsets":[26,26]}})",
      kData, kData + 26);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  const SafeTensor &a = tensors->at("a"), &b = tensors->at("b");
  EXPECT_EQ(a.dtype, DType::kF32);
  EXPECT_THAT(a.shape, ElementsAre(2, 3));
  EXPECT_EQ(a.offset, kData);
  EXPECT_EQ(a.nbytes, 24u);
  EXPECT_EQ(b.offset, kData + 24);
  EXPECT_EQ(tensors->size(), 3u);
}

TEST(SafetensorsHeader, RefusesWhatIsNoHeader) {
  EXPECT_THAT(Fault(""), HasSubstr("no JSON object"));
  EXPECT_THAT(Fault("[]"), HasSubstr("no JSON object"));
  EXPECT_THAT(Fault("{\"a\":"), HasSubstr("no JSON object"));
  EXPECT_THAT(Fault(std::string(100000, '[')), HasSubstr("nested too deep"));
  EXPECT_THAT(Fault(R"({"a":1})"), HasSubstr("tensor a: lacks dtype, shape or data_offsets"));
  EXPECT_THAT(Fault(R"({"a":{"dtype":"F32","shape":[6]}})"), HasSubstr("tensor a: lacks"));
}

TEST(SafetensorsHeader, RefusesDTypesAndShapesThatAreNone) {
  EXPECT_THAT(Fault(Entry("\"F7\"", "[6]", "[0,24]")),
              HasSubstr("tensor a: dtype \"F7\" is not known"));
  EXPECT_THAT(Fault(Entry("5", "[6]", "[0,24]")), HasSubstr("dtype 5 is not known"));
  EXPECT_THAT(Fault(Entry("\"F32\"", "[-6]", "[0,24]")), HasSubstr("shape is no list of sizes"));
  EXPECT_THAT(Fault(Entry("\"F32\"", "[6.0]", "[0,24]")), HasSubstr("shape is no list of sizes"));
  EXPECT_THAT(Fault(Entry("\"F32\"", "6", "[0,24]")), HasSubstr("shape is no list of sizes"));
  EXPECT_THAT(Fault(Entry("\"F32\"", "[9223372036854775808]", "[0,24]")),
              HasSubstr("shape is no list of sizes"));
}

TEST(SafetensorsHeader, RefusesSizesThatOverflow) {
  EXPECT_THAT(Fault(Entry("\"F32\"", "[4611686018427387904,4]", "[0,0]")),
              HasSubstr("does not fit its 0 bytes"));
  EXPECT_THAT(Fault(Entry("\"F32\"", "[4611686018427387906]", "[0,8]")),
              HasSubstr("does not fit its 8 bytes"));
}

TEST(SafetensorsHeader, RefusesOffsetsThatLie) {
  EXPECT_THAT(Fault(Entry("\"F32\"", "[6]", "[0]")), HasSubstr("no pair of numbers"));
  EXPECT_THAT(Fault(Entry("\"F32\"", "[6]", "[-1,24]")), HasSubstr("no pair of numbers"));
  EXPECT_THAT(Fault(Entry("\"F32\"", "[6]", "[24,0]")),
              HasSubstr("lie outside the file's 24 bytes of data"));
  EXPECT_THAT(Fault(Entry("\"F32\"", "[7]", "[0,28]")), HasSubstr("bytes 0 to 28 lie outside"));
  EXPECT_THAT(Fault(Entry("\"F32\"", "[5]", "[0,24]")),
              HasSubstr("shape 5 of f32 does not fit its 24 bytes"));
}

TEST(SafetensorsHeader, RefusesOverlapsGapsAndTwins) {
  const std::string a = R"("a":{"dtype":"I8","shape":[12],"data_offsets":[0,12]})";
  const auto with = [&](const std::string& b) { return "{" + a + "," + b + "}"; };
  EXPECT_EQ(Fault(with(R"("b":{"dtype":"I8","shape":[12],"data_offsets":[12,24]})")), "none");
  EXPECT_THAT(Fault(with(R"("b":{"dtype":"I8","shape":[13],"data_offsets":[11,24]})")),
              HasSubstr("tensor b overlaps"));
  EXPECT_THAT(Fault(with(R"("b":{"dtype":"I8","shape":[11],"data_offsets":[13,24]})")),
              HasSubstr("tensor b leaves a gap after"));
  EXPECT_THAT(Fault(with(R"("a":{"dtype":"I8","shape":[12],"data_offsets":[12,24]})")),
              HasSubstr("names a twice"));
  EXPECT_THAT(Fault("{" + a + "}"), HasSubstr("12 bytes of its data belong to no tensor"));
}

class SafetensorsFile : public ::testing::Test {
 protected:
  ~SafetensorsFile() override { std::filesystem::remove(path_); }

  std::string FaultOf(uint64_t header_bytes, const std::string& rest) {
    std::ofstream(path_, std::ios::binary)
        << std::string(reinterpret_cast<const char*>(&header_bytes), sizeof header_bytes) << rest;
    const auto tensors = ReadSafetensorsHeader(path_);
    return tensors.ok() ? "none" : std::string(tensors.status().message());
  }

  // Tests run beside each other, each in a process of its own.
  const std::string path_ = ::testing::TempDir() +
                            ::testing::UnitTest::GetInstance()->current_test_info()->name() +
                            "faulty.safetensors";
};

TEST_F(SafetensorsFile, IsReadFromDisk) { EXPECT_EQ(FaultOf(2, "{}"), "none"); }

TEST_F(SafetensorsFile, IsRefusedWhereItClaimsTooMuch) {
  EXPECT_THAT(FaultOf(3, "{}"), HasSubstr("claims a header of 3 bytes"));
  EXPECT_THAT(FaultOf(UINT64_MAX, "{}"),
              HasSubstr("claims a header of 18446744073709551615 bytes"));
  EXPECT_THAT(FaultOf(200'000'000, "{}"), HasSubstr("claims a header of 200000000 bytes"));
}

TEST_F(SafetensorsFile, IsRefusedWhenItIsTooShortOrMissing) {
  std::ofstream(path_, std::ios::binary) << "abc";
  EXPECT_THAT(std::string(ReadSafetensorsHeader(path_).status().message()), HasSubstr("too short"));
  EXPECT_TRUE(absl::IsNotFound(ReadSafetensorsHeader("/no/such/file").status()));
}

}  // namespace
}  // namespace echelon::weights
