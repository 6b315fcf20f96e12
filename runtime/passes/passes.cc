#include "runtime/passes/passes.h"

#include "runtime/passes/dead_nodes.h"
#include "runtime/passes/place_writes.h"

namespace echelon::passes {

void RunAll(graph::Graph* graph, const graph::SchemaLookup& schemas) {
  PlaceWrites(graph, schemas);
  DropDeadNodes(graph, schemas);
}

}  // namespace echelon::passes
