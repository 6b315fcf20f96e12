// What every graph goes through before it is planned. The same passes in the same order on every
// rank.
#ifndef ECHELON_RUNTIME_PASSES_PASSES_H_
#define ECHELON_RUNTIME_PASSES_PASSES_H_

#include "runtime/graph/graph.h"

namespace echelon::passes {

// PlaceWrites, then DropDeadNodes.
void RunAll(graph::Graph* graph, const graph::SchemaLookup& schemas);

}  // namespace echelon::passes

#endif  // ECHELON_RUNTIME_PASSES_PASSES_H_
