// A .pt2 archive: which entries it must hold and the JSON documents among them. Private to the
// reader.
#ifndef ECHELON_RUNTIME_GRAPH_ARCHIVE_H_
#define ECHELON_RUNTIME_GRAPH_ARCHIVE_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "runtime/graph/byte_source.h"
#include "runtime/graph/json_reader.h"
#include "runtime/graph/zip.h"

namespace echelon::graph {

class Archive {
 public:
  // Refuses what is no .pt2, an older format, a big-endian one, one with several models or with
  // none.
  static absl::StatusOr<Archive> Open(const ByteSource& source);

  const ByteSource& source() const { return *source_; }
  const Zip& zip() const { return zip_; }
  const std::string& root() const { return root_; }    // folder all entries lie in
  const std::string& model() const { return model_; }  // "model" of models/model.json

  // Text of an entry under the root, parsed; at most 512 MiB.
  absl::StatusOr<Json> Document(const std::string& path) const;
  bool Has(const std::string& path) const;

 private:
  Archive(const ByteSource& source, Zip zip) : source_(&source), zip_(std::move(zip)) {}

  const ByteSource* source_;
  Zip zip_;
  std::string root_, model_;
};

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_ARCHIVE_H_
