// Byte ranges of something that has a length: a file, or a span of memory (as in tests and
// fuzzers).
#ifndef ECHELON_RUNTIME_GRAPH_BYTE_SOURCE_H_
#define ECHELON_RUNTIME_GRAPH_BYTE_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace echelon::graph {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual const std::string& name() const = 0;  // what error messages call it: the path
  virtual uint64_t size() const = 0;            // bytes
  // Fills `to` with bytes [offset, offset + nbytes); a range that ends past size() is an error.
  virtual absl::Status Read(uint64_t offset, uint64_t nbytes, char* to) const = 0;
};

// Opens a regular file for reading.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenFile(const std::string& path);

// Does not own `bytes`.
std::unique_ptr<ByteSource> FromMemory(std::string_view bytes, std::string name);

// A name from an untrusted file, fit for one line of an error message: quoted, escaped, shortened.
std::string Quoted(std::string_view name);

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_BYTE_SOURCE_H_
