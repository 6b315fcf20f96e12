// Loads a stage's weight bytes into one block of memory, in parallel, straight into place.
#ifndef ECHELON_RUNTIME_WEIGHTS_LOADER_H_
#define ECHELON_RUNTIME_WEIGHTS_LOADER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/weights/source.h"

namespace echelon::weights {

// Anonymous memory of its own mapping, on huge pages where the kernel has them: first touch of 4
// KiB pages costs more than the copy itself. Zeroed. Unmapped at destruction.
class Arena {
 public:
  static absl::StatusOr<std::shared_ptr<Arena>> Map(uint64_t nbytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  // Gives the whole pages within back to the system; their bytes are lost.
  void Release(absl::Span<std::byte> bytes) const;
  std::byte* data() const { return data_; }
  uint64_t nbytes() const { return nbytes_; }

 private:
  Arena(void* mapping, uint64_t mapped_bytes, std::byte* data, uint64_t nbytes)
      : mapping_(mapping), mapped_bytes_(mapped_bytes), data_(data), nbytes_(nbytes) {}
  void* mapping_;
  uint64_t mapped_bytes_;
  std::byte* data_;
  uint64_t nbytes_;
};

struct Range {
  std::string path;
  uint64_t offset = 0, nbytes = 0;
  std::optional<uint32_t> crc32 = {};  // of the whole range; none: it is not verified
  std::string name = {};               // of the tensor, for people
  bool follows = false;                // lies right behind the one before: parts of one tensor
};

struct Loaded {
  std::shared_ptr<Arena> arena;
  std::vector<std::byte*> at;  // one a range, 64-byte aligned unless it follows
};

// (loaded, total) bytes; called from reading threads, at most about every 16 MiB.
using Progress = std::function<void(int64_t, int64_t)>;

// What a stage will hold beside the ranges.
struct Beside {
  uint64_t computed_bytes = 0;  // parameters made of the ranges, less what that frees
  uint64_t kv_bytes = 0;        // its KV cache, once every block is in use
};

// Reads every range once, and verifies those that state a CRC-32: kDataLoss names file and tensor.
// threads: 0 means one a usable core, at least two. Refuses, before it reads, what does not fit,
// with what comes beside it, the memory that this machine or its cgroup has left:
// kResourceExhausted names the bytes wanted and left.
absl::StatusOr<Loaded> Load(WeightSource& source, const std::vector<Range>& ranges, int threads,
                            const Progress& progress, const Beside& beside = {});

// That check alone: kResourceExhausted is "WHOSE 1.00 GiB for weights and ...; ADVICE".
absl::Status CheckMemory(absl::string_view whose, uint64_t weight_bytes, uint64_t kv_bytes,
                         absl::string_view advice);

// The least of MemAvailable and what the cgroup leaves; UINT64_MAX when neither can be read.
uint64_t AvailableMemoryBytes();

}  // namespace echelon::weights

#endif  // ECHELON_RUNTIME_WEIGHTS_LOADER_H_
