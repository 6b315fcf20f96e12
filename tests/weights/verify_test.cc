#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "runtime/weights/crc32.h"
#include "runtime/weights/guarded_copy.h"
#include "runtime/weights/loader.h"

namespace echelon::weights {
namespace {

using ::testing::HasSubstr;

absl::Span<const std::byte> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string Noise(size_t nbytes) {
  std::string bytes(nbytes, '\0');
  uint32_t state = 1;
  for (char& byte : bytes) byte = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return bytes;
}

TEST(Crc32, IsTheOneOfZip) {
  EXPECT_EQ(ExtendCrc32(0, Bytes("123456789")), 0xcbf43926);
  EXPECT_EQ(ExtendCrc32(0, {}), 0u);
}

TEST(Crc32, ExtendsAndJoinsToTheSumOfTheWhole) {
  const std::string bytes = Noise(100'003);
  const uint32_t whole = ExtendCrc32(0, Bytes(bytes));
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{4096}, size_t{77'777}, bytes.size()}) {
    const std::string head = bytes.substr(0, cut), tail = bytes.substr(cut);
    const uint32_t first = ExtendCrc32(0, Bytes(head));
    EXPECT_EQ(ExtendCrc32(first, Bytes(tail)), whole) << cut;
    EXPECT_EQ(JoinCrc32(first, ExtendCrc32(0, Bytes(tail)), tail.size()), whole) << cut;
  }
}

TEST(Crc32, CopiesWhatItSums) {
  const std::string bytes = Noise(300'000);
  for (const size_t begin : {0, 1, 31})  // not aligned either
    for (const size_t nbytes : {0, 1, 127, 128, 129, 255, 256, 4096, 65'537, 299'969}) {
      std::string to(nbytes + 1, '?');
      const absl::Span<std::byte> span(reinterpret_cast<std::byte*>(to.data()), nbytes);
      const auto from = Bytes(bytes).subspan(begin, nbytes);
      EXPECT_EQ(CopyExtendCrc32(0x1234567, span, from.data()), ExtendCrc32(0x1234567, from))
          << nbytes << " bytes from " << begin;
      EXPECT_EQ(to, bytes.substr(begin, nbytes) + "?");
    }
}

// Two tensors, the first of several pieces, taken from the page cache, and a small one, read.
class VerifyTest : public ::testing::Test {
 protected:
  static constexpr size_t kLargeBytes = (37 << 20) + 5, kSmallBytes = 1000, kOffset = 64;

  void SetUp() override {
    path_ = ::testing::TempDir() + ::testing::UnitTest::GetInstance()->current_test_info()->name() +
            ".verify.bin";
    bytes_ = Noise(kOffset + kLargeBytes + kSmallBytes);
    large_ = {path_, kOffset, kLargeBytes, SumOf(kOffset, kLargeBytes), "layer.weight"};
    small_ = {path_, kOffset + kLargeBytes, kSmallBytes, SumOf(kOffset + kLargeBytes, kSmallBytes),
              "layer.bias"};
  }
  void TearDown() override { std::remove(path_.c_str()); }

  uint32_t SumOf(size_t offset, size_t nbytes) const {
    return ExtendCrc32(0, Bytes(bytes_.substr(offset, nbytes)));
  }

  absl::Status LoadBoth(int threads = 3) {
    std::ofstream(path_, std::ios::binary)
        .write(bytes_.data(), static_cast<std::streamsize>(bytes_.size()));
    const std::unique_ptr<WeightSource> source = LocalFiles();
    return Load(*source, {large_, small_}, threads, nullptr).status();
  }

  std::string path_, bytes_;
  Range large_, small_;
};

TEST_F(VerifyTest, WhatIsAsTheArchiveSaysLoads) {
  EXPECT_TRUE(LoadBoth(1).ok());
  EXPECT_TRUE(LoadBoth(3).ok());
}

TEST_F(VerifyTest, AFlippedBitAnywhereIsDamageOfThatTensor) {
  for (const size_t at : {size_t{0}, size_t{16 << 20}, kLargeBytes / 2, kLargeBytes - 1}) {
    bytes_[kOffset + at] ^= 1;
    const absl::Status status = LoadBoth();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(status.message(),
              absl::StrFormat("%s: tensor \"layer.weight\" is damaged: its CRC-32 is %08x, the "
                              "archive says %08x; copy the file again",
                              path_, SumOf(kOffset, kLargeBytes), *large_.crc32));
    bytes_[kOffset + at] ^= 1;
  }
  bytes_.back() ^= 1;
  EXPECT_THAT(LoadBoth().message(), HasSubstr("tensor \"layer.bias\" is damaged"));
}

TEST_F(VerifyTest, ARangeWithoutASumIsTakenAsItIs) {
  bytes_[kOffset] ^= 1;
  large_.crc32.reset();
  EXPECT_TRUE(LoadBoth().ok());
}

// The sanitizers' runtimes take bus errors themselves: TSan those within a memcpy too.
#if defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true, kCatchesBusErrors = false;
#elif defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true, kCatchesBusErrors = true;
#else
constexpr bool kSanitized = false, kCatchesBusErrors = true;
#endif

TEST(GuardedCopy, OfAFileCutShortIsFalseAndNoSignal) {
  if (!kCatchesBusErrors) GTEST_SKIP();
  const std::string path = ::testing::TempDir() + "guarded_copy.bin";
  const size_t page_bytes = static_cast<size_t>(::sysconf(_SC_PAGESIZE)), nbytes = 4 * page_bytes;
  const std::string bytes = Noise(nbytes);
  std::FILE* const file = std::fopen(path.c_str(), "w+b");
  ASSERT_EQ(std::fwrite(bytes.data(), 1, nbytes, file), nbytes);
  ASSERT_EQ(std::fflush(file), 0);
  void* const map = ::mmap(nullptr, nbytes, PROT_READ, MAP_SHARED, ::fileno(file), 0);
  ASSERT_NE(map, MAP_FAILED);
  const auto* const from = static_cast<const std::byte*>(map);
  std::string to(nbytes, '\0');
  const absl::Span<std::byte> span(reinterpret_cast<std::byte*>(to.data()), nbytes);
  uint32_t crc32 = 0;
  EXPECT_TRUE(GuardedCopy(span, from, nullptr));
  EXPECT_EQ(to, bytes);
  EXPECT_TRUE(GuardedCopy(span, from, &crc32));
  EXPECT_EQ(crc32, ExtendCrc32(0, span));
  ASSERT_EQ(::ftruncate(::fileno(file), static_cast<off_t>(page_bytes)), 0);
  for (uint32_t* const sum : {static_cast<uint32_t*>(nullptr), &crc32, &crc32})
    EXPECT_FALSE(GuardedCopy(span, from, sum));
  EXPECT_EQ(crc32, ExtendCrc32(0, span));
  EXPECT_TRUE(GuardedCopy(span.first(page_bytes), from, nullptr));
  ::munmap(map, nbytes);
  std::fclose(file);
  std::remove(path.c_str());
}

TEST(GuardedCopyDeathTest, LeavesOtherBusErrorsAsTheyWere) {
  if (kSanitized) GTEST_SKIP();
  const std::byte byte{1};
  std::byte copy{0};
  ASSERT_TRUE(GuardedCopy({&copy, 1}, &byte, nullptr));
  EXPECT_EXIT(::raise(SIGBUS), ::testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace echelon::weights
