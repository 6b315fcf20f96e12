// Drops assertions and what nobody needs.
#ifndef ECHELON_RUNTIME_PASSES_DEAD_NODES_H_
#define ECHELON_RUNTIME_PASSES_DEAD_NODES_H_

#include "runtime/graph/graph.h"

namespace echelon::passes {

// A node stays when a later node or an output needs a result of it, or when it writes memory that
// outlives it or is read later: a stored tensor's, or that of a value which stays. Assertions go
// (ranges are checked at the door), as do writes to tensors nobody reads again. An operator that
// `schemas` does not know stays when it has no results. Values keep their ids.
void DropDeadNodes(graph::Graph* graph, const graph::SchemaLookup& schemas);

}  // namespace echelon::passes

#endif  // ECHELON_RUNTIME_PASSES_DEAD_NODES_H_
