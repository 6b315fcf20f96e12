// Where weight bytes come from. A rank asks only for the ranges its stage needs; what it read is
// counted.
#ifndef ECHELON_RUNTIME_WEIGHTS_SOURCE_H_
#define ECHELON_RUNTIME_WEIGHTS_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace echelon::weights {

// The seam to storage: local files today, remote objects later. Thread-safe.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Fills `to` from `offset` of `path`. The error names the file and the byte where it ended or
  // failed.
  virtual absl::Status Read(const std::string& path, uint64_t offset, absl::Span<std::byte> to) = 0;
  // As Read, and puts the CRC-32 of what `to` then holds into *crc32. Cheap where it is taken while
  // the bytes are still in the processor's cache.
  virtual absl::Status ReadSummed(const std::string& path, uint64_t offset,
                                  absl::Span<std::byte> to, uint32_t* crc32);
  virtual uint64_t bytes_read() const = 0;
};

std::unique_ptr<WeightSource> LocalFiles();

}  // namespace echelon::weights

#endif  // ECHELON_RUNTIME_WEIGHTS_SOURCE_H_
