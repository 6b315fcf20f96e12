#include "runtime/weights/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "absl/strings/str_cat.h"

namespace echelon::weights {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string FileOf(const std::string& name, size_t nbytes) {
  // Tests run beside each other, each in a process of its own.
  std::string path =
      ::testing::TempDir() + ::testing::UnitTest::GetInstance()->current_test_info()->name() + name;
  std::string bytes(nbytes, ' ');
  for (size_t i = 0; i < nbytes; ++i) bytes[i] = static_cast<char>(i * 7 + i / 251);
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

// Fails, or counts, in place of a disk.
class FakeSource final : public WeightSource {
 public:
  explicit FakeSource(uint64_t fails_from) : fails_from_(fails_from) {}
  absl::Status Read(const std::string&, uint64_t offset, absl::Span<std::byte> to) override {
    ++reads;
    if (offset >= fails_from_) return absl::DataLossError("the disk is gone");
    std::memset(to.data(), 1, to.size());
    bytes_ += to.size();
    return absl::OkStatus();
  }
  uint64_t bytes_read() const override { return bytes_; }

  std::atomic<int> reads = 0;

 private:
  const uint64_t fails_from_;
  std::atomic<uint64_t> bytes_ = 0;
};

TEST(Load, PutsEveryRangeInPlaceOnce) {
  constexpr size_t kBytes = 40 << 20;  // several pieces
  const std::string path = FileOf("ranges", kBytes);
  const auto source = LocalFiles();
  std::mutex mutex;
  int64_t most = 0, total = 0;
  const std::vector<Range> ranges{
      {path, 3, kBytes - 5}, {path, 0, 1}, {path, 100, 0}, {path, 7, 1000}};
  const auto loaded = Load(*source, ranges, 3, [&](int64_t done, int64_t all) {
    const std::lock_guard lock(mutex);
    most = std::max(most, done);
    total = all;
  });
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  std::ifstream file(path, std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  for (size_t i = 0; i < ranges.size(); ++i) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(loaded->at[i]) % 64, 0u);
    EXPECT_EQ(std::memcmp(loaded->at[i], bytes.data() + ranges[i].offset, ranges[i].nbytes), 0)
        << i;
  }
  EXPECT_EQ(source->bytes_read(), kBytes - 5 + 1 + 1000);
  EXPECT_EQ(most, total);
  EXPECT_EQ(static_cast<uint64_t>(total), source->bytes_read());
  std::filesystem::remove(path);
}

TEST(Load, NamesTheFileAndTheByteWhereItEnds) {
  const std::string path = FileOf("short", 1000);
  const auto source = LocalFiles();
  const auto loaded = Load(*source, {{path, 600, 800}}, 1, nullptr);
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(loaded.status().message(),
            absl::StrCat(path, ": truncated, ends at byte 1000 where weights up to byte ",
                         "1400 are expected; copy the file again"));
  std::filesystem::remove(path);
}

TEST(Load, NamesAFileThatIsNotThere) {
  const auto source = LocalFiles();
  const auto loaded = Load(*source, {{"/no/such/file", 0, 1}}, 1, nullptr);
  EXPECT_TRUE(absl::IsNotFound(loaded.status()));
  EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("/no/such/file: cannot be opened"));
}

TEST(Load, RefusesWhatFitsNoMemoryBeforeItReads) {
  FakeSource source(UINT64_MAX);
  const auto loaded = Load(source, {{"f", 0, uint64_t{1} << 50}}, 1, nullptr);
  EXPECT_TRUE(absl::IsResourceExhausted(loaded.status()));
  EXPECT_THAT(std::string(loaded.status().message()),
              AllOf(HasSubstr("needs 1048576.00 GiB"), HasSubstr("is left here"),
                    HasSubstr("use more stages")));
  const auto with = [&](const Beside& beside) {
    const auto refused = Load(source, {{"f", 0, 1 << 30}}, 1, nullptr, beside);
    EXPECT_TRUE(absl::IsResourceExhausted(refused.status()));
    return std::string(refused.status().message());
  };
  EXPECT_THAT(with({.computed_bytes = uint64_t{1} << 50}),
              HasSubstr("the stage needs 1048577.00 GiB for weights, and "));
  EXPECT_THAT(with({.kv_bytes = uint64_t{1} << 50}),
              AllOf(HasSubstr("1.00 GiB for weights and 1048576.00 GiB for KV cache, and "),
                    HasSubstr("a smaller --kv-memory")));
  EXPECT_EQ(source.reads, 0);
  EXPECT_GT(AvailableMemoryBytes(), uint64_t{1} << 20);
}

TEST(Load, StopsAtTheFirstFault) {
  FakeSource source(16 << 20);
  const auto loaded = Load(source, {{"f", 0, uint64_t{1} << 30}}, 1, nullptr);
  EXPECT_EQ(loaded.status().message(), "the disk is gone");
  EXPECT_EQ(source.reads, 2);
}

TEST(Load, OfNothingIsNothing) {
  FakeSource source(0);
  const auto loaded = Load(source, {}, 0, nullptr);
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded->arena->nbytes(), 0u);
}

}  // namespace
}  // namespace echelon::weights
