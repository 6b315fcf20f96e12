#include "runtime/weights/loader.h"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <mutex>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/weights/crc32.h"

namespace echelon::weights {
namespace {

constexpr uint64_t kAlignBytes = 64;  // a cache line, and what vector loads like best
constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kHugePageBytes = 2 << 20;
constexpr uint64_t kPieceBytes =
    16 << 20;  // one read: large enough for the disk, small enough to share out

uint64_t RoundUp(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

std::string Gibibytes(uint64_t bytes) { return absl::StrFormat("%.2f GiB", bytes / 1073741824.0); }

int UsableCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return CPU_COUNT(&set);
}

uint64_t ReadNumber(const std::string& path, uint64_t otherwise) {
  std::ifstream file(path);
  uint64_t number = 0;
  return file >> number ? number : otherwise;
}

// From inside a container its own cgroup is the root of the mount.
struct Cgroup {
  const char *limit, *used, *stat, *cache_key, *shared_key;
};
constexpr Cgroup kCgroup2{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                          "/sys/fs/cgroup/memory.stat", "file", "shmem"};
constexpr Cgroup kCgroup1{"/sys/fs/cgroup/memory/memory.limit_in_bytes",
                          "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                          "/sys/fs/cgroup/memory/memory.stat", "total_cache", "total_shmem"};

// Page cache counts as used memory but gives way; but for what lies in tmpfs and memfds, which it
// counts in.
uint64_t PageCacheBytes(const Cgroup& cgroup) {
  std::ifstream stat(cgroup.stat);
  std::string key;
  uint64_t cache_bytes = 0, shared_bytes = 0;
  for (uint64_t number = 0; stat >> key >> number;) {
    if (key == cgroup.cache_key) cache_bytes = number;
    if (key == cgroup.shared_key) shared_bytes = number;
  }
  return cache_bytes - std::min(cache_bytes, shared_bytes);
}

struct Piece {
  const Range* range;
  uint64_t begin, nbytes;  // within the range
  std::byte* to;
  uint32_t crc32 = 0;  // of what was read, where the range states one
};

std::vector<Piece> Pieces(const std::vector<Range>& ranges, const std::vector<std::byte*>& at) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < ranges.size(); ++i)
    for (uint64_t begin = 0; begin < ranges[i].nbytes; begin += kPieceBytes)
      pieces.push_back(
          {&ranges[i], begin, std::min(kPieceBytes, ranges[i].nbytes - begin), at[i] + begin});
  return pieces;
}

absl::Status Read(WeightSource& source, Piece* piece) {
  const Range& range = *piece->range;
  const absl::Span<std::byte> to(piece->to, piece->nbytes);
  if (!range.crc32) return source.Read(range.path, range.offset + piece->begin, to);
  return source.ReadSummed(range.path, range.offset + piece->begin, to, &piece->crc32);
}

// A range's pieces stand in order.
absl::Status Verify(const std::vector<Piece>& pieces) {
  uint32_t sum = 0;
  for (const Piece& piece : pieces) {
    const Range& range = *piece.range;
    if (!range.crc32) continue;
    sum = piece.begin == 0 ? piece.crc32 : JoinCrc32(sum, piece.crc32, piece.nbytes);
    const bool is_last = piece.begin + piece.nbytes == range.nbytes;
    if (is_last && sum != *range.crc32)
      return absl::DataLossError(absl::StrFormat(
          "%s: tensor \"%s\" is damaged: its CRC-32 is %08x, the archive says %08x; copy the file "
          "again",
          range.path, absl::Utf8SafeCHexEscape(range.name), sum, *range.crc32));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<Arena>> Arena::Map(uint64_t nbytes) {
  if (nbytes == 0) return std::shared_ptr<Arena>(new Arena(nullptr, 0, nullptr, 0));
  const uint64_t mapped_bytes = RoundUp(nbytes, kHugePageBytes) + kHugePageBytes;
  void* mapping = ::mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED)
    return absl::ResourceExhaustedError(absl::StrCat("no address space for ", Gibibytes(nbytes),
                                                     " of weights: ", std::strerror(errno)));
  auto* data =
      reinterpret_cast<std::byte*>(RoundUp(reinterpret_cast<uint64_t>(mapping), kHugePageBytes));
  // Whole huge pages only: the tail on small pages keeps resident memory to the bytes used.
  ::madvise(data, nbytes / kHugePageBytes * kHugePageBytes, MADV_HUGEPAGE);
  return std::shared_ptr<Arena>(new Arena(mapping, mapped_bytes, data, nbytes));
}

Arena::~Arena() {
  if (mapping_) ::munmap(mapping_, mapped_bytes_);
}

void Arena::Release(absl::Span<std::byte> bytes) const {
  const auto begin = RoundUp(reinterpret_cast<uint64_t>(bytes.data()), kPageBytes);
  const auto end =
      reinterpret_cast<uint64_t>(bytes.data() + bytes.size()) / kPageBytes * kPageBytes;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

uint64_t AvailableMemoryBytes() {
  uint64_t available = UINT64_MAX;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string key; meminfo >> key;) {
    uint64_t kib = 0;
    if (key == "MemAvailable:" && meminfo >> kib) available = kib * 1024;
    meminfo.ignore(256, '\n');
  }
  for (const Cgroup& cgroup : {kCgroup2, kCgroup1}) {
    const uint64_t limit = ReadNumber(cgroup.limit, UINT64_MAX), used = ReadNumber(cgroup.used, 0);
    if (limit > (uint64_t{1} << 60)) continue;  // "max", or v1's way to say so
    const uint64_t kept = used - std::min(used, PageCacheBytes(cgroup));
    available = std::min(available, limit - std::min(limit, kept));
  }
  return available;
}

absl::Status CheckMemory(absl::string_view whose, uint64_t weight_bytes, uint64_t kv_bytes,
                         absl::string_view advice) {
  const uint64_t available = AvailableMemoryBytes();
  if (weight_bytes <= available && kv_bytes <= available - weight_bytes) return absl::OkStatus();
  const std::string kv =
      kv_bytes == 0 ? "" : absl::StrCat(" and ", Gibibytes(kv_bytes), " for KV cache");
  return absl::ResourceExhaustedError(
      absl::StrCat(whose, " ", Gibibytes(weight_bytes), " for weights", kv, ", and ",
                   Gibibytes(available), " of memory is left here; ", advice));
}

absl::StatusOr<Loaded> Load(WeightSource& source, const std::vector<Range>& ranges, int threads,
                            const Progress& progress, const Beside& beside) {
  Loaded loaded;
  uint64_t total = 0, block = 0;
  std::vector<uint64_t> starts;
  for (const Range& range : ranges) {
    if (!range.follows) block = RoundUp(block, kAlignBytes);
    starts.push_back(block);
    total += range.nbytes;
    block += range.nbytes;
  }
  const absl::Status fits = CheckMemory(
      "the stage needs", block + beside.computed_bytes, beside.kv_bytes,
      beside.kv_bytes == 0 ? "use more stages or --stage-memory"
                           : "use more stages, a smaller --kv-memory or --stage-memory");
  if (!fits.ok()) return fits;
  absl::StatusOr<std::shared_ptr<Arena>> arena = Arena::Map(block);
  if (!arena.ok()) return arena.status();
  loaded.arena = *arena;
  for (const uint64_t start : starts) loaded.at.push_back(loaded.arena->data() + start);

  std::vector<Piece> pieces = Pieces(ranges, loaded.at);
  std::atomic<size_t> next = 0;
  std::atomic<uint64_t> done = 0;
  std::mutex mutex;
  absl::Status status;
  const auto work = [&] {
    for (size_t i = next++; i < pieces.size(); i = next++) {
      Piece& piece = pieces[i];
      const absl::Status read = Read(source, &piece);
      if (!read.ok()) {
        const std::lock_guard lock(mutex);
        status.Update(read);
        next = pieces.size();
        return;
      }
      const uint64_t sum = done += piece.nbytes;
      if (progress) progress(static_cast<int64_t>(sum), static_cast<int64_t>(total));
    }
  };
  const size_t workers =
      std::min<size_t>(threads > 0 ? threads : std::max(2, UsableCores()), pieces.size());
  std::vector<std::jthread> pool;
  for (size_t i = 1; i < workers; ++i) pool.emplace_back(work);
  work();
  pool.clear();
  if (status.ok()) status = Verify(pieces);
  if (!status.ok()) return status;
  return loaded;
}

}  // namespace echelon::weights
