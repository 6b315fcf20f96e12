// Moves the trailing copies into buffers up to where the buffer is last read, so that stages can be
// cut after them.
#ifndef ECHELON_RUNTIME_PASSES_PLACE_WRITES_H_
#define ECHELON_RUNTIME_PASSES_PLACE_WRITES_H_

#include "runtime/graph/graph.h"

namespace echelon::passes {

// Export leaves `buffer.copy_(new)` at the end of the graph. Each such node moves up to right after
// the later of: the definition of `new`, the last node that reads or writes the buffer's memory or
// writes `new`'s. Results do not change.
void PlaceWrites(graph::Graph* graph, const graph::SchemaLookup& schemas);

}  // namespace echelon::passes

#endif  // ECHELON_RUNTIME_PASSES_PLACE_WRITES_H_
