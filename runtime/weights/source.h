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
  virtual uint64_t bytes_read() const = 0;
};

std::unique_ptr<WeightSource> LocalFiles();

}  // namespace echelon::weights

#endif  // ECHELON_RUNTIME_WEIGHTS_SOURCE_H_
