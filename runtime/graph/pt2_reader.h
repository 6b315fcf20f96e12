// Reads what torch.export.save wrote (schema major 8): the graph and where its weights lie, not the
// weights themselves. The file is untrusted: whatever it holds, the answer is a graph that is
// consistent or one line naming the fault.
#ifndef ECHELON_RUNTIME_GRAPH_PT2_READER_H_
#define ECHELON_RUNTIME_GRAPH_PT2_READER_H_

#include <string>

#include "absl/status/statusor.h"
#include "runtime/graph/byte_source.h"
#include "runtime/graph/graph.h"

namespace echelon::graph {

struct ReadOptions {
  bool allow_empty_weights =
      false;  // records without values (exported from fake tensors): Stored::nbytes is then 0
};

// A graph that is returned holds: every ValueRef is defined before its use (inputs and stored
// values before all nodes); shapes have at most 16 dimensions, none negative; stored tensors lie
// within their records and the file and have the dtype and shape that the graph states; names of
// values, nodes, inputs and outputs are unique. Writes to buffers that the export turned into
// outputs are nodes again (aten.copy_, at the end: a pass moves them up). Outputs that are None or
// text are left out.
absl::StatusOr<Graph> ReadPt2(const std::string& path, const ReadOptions& options = {});
absl::StatusOr<Graph> ReadPt2(const ByteSource& source, const ReadOptions& options = {});

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_PT2_READER_H_
