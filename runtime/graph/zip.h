// The directory of a zip archive whose entries are stored as they are (no compression), as
// torch.export.save writes. Zip64 is read; everything in the file is untrusted.
#ifndef ECHELON_RUNTIME_GRAPH_ZIP_H_
#define ECHELON_RUNTIME_GRAPH_ZIP_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "runtime/graph/byte_source.h"

namespace echelon::graph {

struct ZipEntry {
  std::string name;
  uint64_t offset = 0;  // of the entry's data in the file, after its local header
  uint64_t nbytes = 0;
  uint32_t crc32 = 0;  // as the directory states it; verified by who reads the data
};

class Zip {
 public:
  // Refuses, naming the file and the entry: no or a damaged directory, entries out of the file,
  // overlapping, named twice, compressed or encrypted, several disks. What it lists lies within the
  // file and does not overlap.
  static absl::StatusOr<Zip> Open(const ByteSource& source);

  const std::vector<ZipEntry>& entries() const {
    return entries_;
  }                                                     // in the order of the directory
  const ZipEntry* Find(const std::string& name) const;  // null: no such entry

 private:
  std::vector<ZipEntry> entries_;
  absl::flat_hash_map<std::string, size_t> by_name_;
};

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_ZIP_H_
