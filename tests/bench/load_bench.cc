// Loading weights from a warm page cache next to memcpy of as many bytes into fresh huge pages, at
// the same number of threads, and next to a plain read into fresh small pages. `load` verifies each
// tensor's CRC-32, as a stage does; another variant does not. All variants take turns within every
// round; the second memcpy is the control.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "runtime/weights/crc32.h"
#include "runtime/weights/loader.h"
#include "runtime/weights/source.h"

namespace echelon::weights {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kTensorBytes = uint64_t{64} << 20;  // a large model's matrix
constexpr uint64_t kPieceBytes = uint64_t{16} << 20;
constexpr double kGiga = 1e9;

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(value.status().ToString());
  return *std::move(value);
}

double SecondsOf(const std::function<void()>& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Numbers from a cheap generator: no page of it is like another.
void Fill(std::byte* data, uint64_t nbytes) {
  uint64_t state = 88172645463325252;
  for (uint64_t at = 0; at + sizeof state <= nbytes; at += sizeof state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::memcpy(data + at, &state, sizeof state);
  }
}

// The bytes, in memory and in a file whose pages are in the page cache.
struct Source {
  std::string path;
  std::shared_ptr<Arena> memory;
  uint64_t nbytes;
  std::vector<Range> ranges;  // a tensor each
};

Source MakeSource(const std::string& path, uint64_t nbytes) {
  Source source{path, Must(Arena::Map(nbytes)), nbytes, {}};
  Fill(source.memory->data(), nbytes);
  for (uint64_t begin = 0; begin < nbytes; begin += kTensorBytes) {
    Range range{path, begin, std::min(kTensorBytes, nbytes - begin)};
    range.crc32 = ExtendCrc32(0, {source.memory->data() + begin, range.nbytes});
    source.ranges.push_back(range);
  }
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(source.memory->data()),
             static_cast<std::streamsize>(nbytes));
  file.close();
  if (!file) throw std::runtime_error(absl::StrCat(path, ": cannot be written"));
  return source;
}

void Check(const Source& source, const std::vector<std::byte*>& at) {
  uint64_t begin = 0;
  for (const std::byte* tensor : at) {
    const uint64_t nbytes = std::min(kTensorBytes, source.nbytes - begin);
    if (std::memcmp(tensor, source.memory->data() + begin, nbytes) != 0)
      throw std::runtime_error(
          absl::StrCat("the bytes loaded from ", begin, " on are not the file's"));
    begin += nbytes;
  }
}

double TimeLoad(const Source& source, int threads, bool verified, bool check = false) {
  std::vector<Range> ranges = source.ranges;
  if (!verified)
    for (Range& range : ranges) range.crc32.reset();
  Loaded loaded;
  const std::unique_ptr<WeightSource> files = LocalFiles();
  const double seconds =
      SecondsOf([&] { loaded = Must(Load(*files, ranges, threads, /*progress=*/nullptr)); });
  if (check) Check(source, loaded.at);
  return seconds;
}

double TimeMemcpy(const Source& source, int threads) {
  std::shared_ptr<Arena> to;
  return SecondsOf([&] {
    to = Must(Arena::Map(source.nbytes));
    std::atomic<uint64_t> next = 0;
    const auto work = [&] {
      for (uint64_t at = next.fetch_add(kPieceBytes); at < source.nbytes;
           at = next.fetch_add(kPieceBytes))
        std::memcpy(to->data() + at, source.memory->data() + at,
                    std::min(kPieceBytes, source.nbytes - at));
    };
    std::vector<std::jthread> pool;
    for (int i = 1; i < threads; ++i) pool.emplace_back(work);
    work();
  });
}

// What a loader does that thinks of nothing: one thread, memory as it comes, 4 KiB a fault.
double TimePlainRead(const Source& source) {
  void* to =
      ::mmap(nullptr, source.nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (to == MAP_FAILED) throw std::runtime_error("no memory for the plain read");
  ::madvise(to, source.nbytes, MADV_NOHUGEPAGE);
  const int descriptor = ::open(source.path.c_str(), O_RDONLY | O_CLOEXEC);
  const double seconds = SecondsOf([&] {
    for (uint64_t done = 0; done < source.nbytes;) {
      const ssize_t got = ::read(descriptor, static_cast<char*>(to) + done, source.nbytes - done);
      if (got <= 0) throw std::runtime_error(absl::StrCat(source.path, ": cannot be read"));
      done += static_cast<uint64_t>(got);
    }
  });
  ::close(descriptor);
  ::munmap(to, source.nbytes);
  return seconds;
}

// The host of a virtual machine may have taken back memory that has been free for a while, and to
// get it again costs more than the copy. Memory freed just now is what each variant gets.
void TouchMemory(uint64_t nbytes) {
  const std::shared_ptr<Arena> memory = Must(Arena::Map(nbytes));
  for (uint64_t at = 0; at < nbytes; at += 4096) memory->data()[at] = std::byte{1};
}

struct Variant {
  std::string name;
  int threads;
  std::function<double()> seconds;
  std::vector<double> gb_per_s;  // one a round
};

std::vector<Variant> Variants(const Source& source) {
  std::vector<Variant> variants;
  for (const int threads : {1, 2}) {
    variants.push_back(
        {"memcpy", threads, [&source, threads] { return TimeMemcpy(source, threads); }});
    variants.push_back({"memcpy again (control)", threads,
                        [&source, threads] { return TimeMemcpy(source, threads); }});
    variants.push_back(
        {"load", threads, [&source, threads] { return TimeLoad(source, threads, true); }});
    variants.push_back({"load, not verified", threads,
                        [&source, threads] { return TimeLoad(source, threads, false); }});
  }
  variants.push_back({"plain read", 1, [&source] { return TimePlainRead(source); }});
  return variants;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

nlohmann::ordered_json Report(const std::vector<Variant>& variants) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  std::printf("variant                 threads  median GB/s     min .. max    of memcpy\n");
  for (const Variant& variant : variants) {
    const auto like = std::find_if(variants.begin(), variants.end(), [&](const Variant& other) {
      return other.name == "memcpy" && other.threads == variant.threads;
    });
    std::vector<double> ratios;
    for (size_t i = 0; i < variant.gb_per_s.size(); ++i)
      ratios.push_back(variant.gb_per_s[i] / like->gb_per_s[i]);
    const auto [least, most] =
        std::minmax_element(variant.gb_per_s.begin(), variant.gb_per_s.end());
    std::printf("%-22s  %7d  %11.2f  %5.2f .. %-5.2f  %10.3f\n", variant.name.c_str(),
                variant.threads, Median(variant.gb_per_s), *least, *most, Median(ratios));
    rows.push_back({{"variant", variant.name},
                    {"threads", variant.threads},
                    {"rounds", variant.gb_per_s.size()},
                    {"median_GB_per_s", Median(variant.gb_per_s)},
                    {"min_GB_per_s", *least},
                    {"max_GB_per_s", *most},
                    {"of_memcpy", Median(ratios)},
                    {"by_round", ratios}});
  }
  return rows;
}

void Run(const std::string& path, uint64_t nbytes, int rounds, const std::string& json_path) {
  const Source source = MakeSource(path, nbytes);
  TimeLoad(source, 2, /*verified=*/true, /*check=*/true);  // and the page cache is warm
  std::vector<Variant> variants = Variants(source);
  for (int round = 0; round < rounds; ++round)
    for (size_t i = 0; i < variants.size(); ++i) {
      Variant& variant = variants[(i + static_cast<size_t>(round)) % variants.size()];
      TouchMemory(nbytes);
      variant.gb_per_s.push_back(static_cast<double>(nbytes) / kGiga / variant.seconds());
    }
  const nlohmann::ordered_json rows = Report(variants);
  if (!json_path.empty())
    std::ofstream(json_path) << nlohmann::ordered_json{{"bytes", nbytes}, {"rows", rows}}.dump(2)
                             << "\n";
}

}  // namespace
}  // namespace echelon::weights

int main(int argc, char** argv) {
  CLI::App app("Loading from a warm page cache next to memcpy into fresh huge pages");
  int rounds = 9;
  uint64_t megabytes = 1024;
  std::string json_path;
  const char* build = std::getenv("ECHELON_BUILD");
  const std::filesystem::path folder =
      build ? std::filesystem::path(build) / "bench" : std::filesystem::temp_directory_path();
  std::string path = folder / absl::StrCat("load_bench.", ::getpid(), ".bin");
  app.add_option("--rounds", rounds, "interleaved rounds")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--mib", megabytes, "bytes to load, in MiB")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  app.add_option("--file", path, "file to write, load and remove")->capture_default_str();
  app.add_option("--json", json_path, "also write the rows here");
  CLI11_PARSE(app, argc, argv);
  int status = 0;
  try {
    echelon::weights::Run(path, megabytes << 20, rounds, json_path);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    status = 1;
  }
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
  return status;
}
