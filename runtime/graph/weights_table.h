// Which record of the archive holds which parameter, buffer or constant. Private to the reader.
#ifndef ECHELON_RUNTIME_GRAPH_WEIGHTS_TABLE_H_
#define ECHELON_RUNTIME_GRAPH_WEIGHTS_TABLE_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "runtime/graph/archive.h"
#include "runtime/graph/graph.h"

namespace echelon::graph {

class WeightsTable {
 public:
  static absl::StatusOr<WeightsTable> Read(const Archive& archive);

  // The tensor as stored, its kind set by the caller; checks that its elements lie within its
  // record. An empty record (saved from fake tensors) is an error unless allow_empty.
  absl::StatusOr<Stored> Find(const std::string& name, bool allow_empty) const;

 private:
  struct Entry {
    Stored stored;
    bool pickled = false;
    bool has_record = false;
  };
  absl::Status Add(const Archive& archive, const std::string& folder, const std::string& config);

  std::string file_;
  absl::flat_hash_map<std::string, Entry> entries_;
};

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_WEIGHTS_TABLE_H_
