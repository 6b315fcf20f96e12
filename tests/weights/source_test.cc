#include "runtime/weights/source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace echelon::weights {
namespace {

using ::testing::HasSubstr;

constexpr size_t kFileBytes = (9 << 20) + 123;

// Large enough that ranges are taken from the page cache, and of no whole number of pages.
class SourceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // Tests run beside each other, each in a process of its own.
    path_ = ::testing::TempDir() + ::testing::UnitTest::GetInstance()->current_test_info()->name() +
            ".bin";
    uint32_t state = 1;
    for (char& byte : bytes_)
      byte = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
    Write(bytes_);
  }
  void TearDown() override { std::remove(path_.c_str()); }

  void Write(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  absl::StatusOr<std::string> Read(size_t offset, size_t nbytes) {
    std::string to(nbytes, '\0');
    const absl::Status status =
        source_->Read(path_, offset, {reinterpret_cast<std::byte*>(to.data()), nbytes});
    if (!status.ok()) return status;
    return to;
  }

  std::string path_;
  std::string bytes_ = std::string(kFileBytes, '\0');
  const std::unique_ptr<WeightSource> source_ = LocalFiles();
};

TEST_F(SourceTest, ReadsRangesThatBeginAndEndAnywhere) {
  for (const size_t offset :
       {size_t{0}, size_t{1}, size_t{64}, size_t{4095}, size_t{4096}, size_t{123'457}}) {
    for (const size_t nbytes : {size_t{1}, size_t{4096}, size_t{1 << 20}, size_t{(2 << 20) - 1},
                                size_t{2 << 20}, size_t{(6 << 20) + 77}, kFileBytes - offset}) {
      const auto read = Read(offset, nbytes);
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_TRUE(*read == bytes_.substr(offset, nbytes)) << offset << " + " << nbytes;
    }
  }
}

TEST_F(SourceTest, CountsWhatItReads) {
  ASSERT_TRUE(Read(7, 5 << 20).ok());
  ASSERT_TRUE(Read(7, 100).ok());
  EXPECT_EQ(source_->bytes_read(), (5 << 20) + 100);
}

TEST_F(SourceTest, NamesTheByteAtWhichATruncatedFileEnds) {
  for (const size_t beyond : {size_t{1}, size_t{4096}, size_t{3 << 20}}) {
    const auto read = Read(3 << 20, kFileBytes - (3 << 20) + beyond);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(read.status().message(), HasSubstr(".bin: truncated, ends at byte 9437307"));
  }
}

TEST_F(SourceTest, AFileCutShortAfterItWasOpenedIsAnErrorAndNoSignal) {
  ASSERT_TRUE(Read(0, 2 << 20).ok());
  Write(bytes_.substr(0, 4 << 20));
  EXPECT_THAT(Read(0, kFileBytes).status().message(), HasSubstr("truncated, ends at byte 4194304"));
}

}  // namespace
}  // namespace echelon::weights
