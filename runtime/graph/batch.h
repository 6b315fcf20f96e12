// Whether a batch may be split into micro-batches, and along which symbol.
#ifndef ECHELON_RUNTIME_GRAPH_BATCH_H_
#define ECHELON_RUNTIME_GRAPH_BATCH_H_

#include <string>
#include <vector>

#include "runtime/graph/graph.h"

namespace echelon::graph {

struct BatchInfo {
  std::string symbol;  // "" when no input has a symbolic dimension 0
  std::vector<bool>
      inputs;  // one each: dimension 0 is just the symbol, so rows can be cut out of it
  std::vector<bool> outputs;  // likewise, so rows can be put together
  bool chunkable = false;     // rows of every output depend on the same rows of the inputs alone
  std::string why;  // when not chunkable: what stands against it, naming the input, output or node
};

// The symbol is dimension 0 of the first input that has a symbolic one. chunkable errs on the side
// of no: every output carries the symbol in dimension 0, no input carries it elsewhere, nothing is
// written to memory that outlives the run, and no node that an output needs is known to mix rows
// (see rows.h). Inputs that do not carry it go to all chunks.
BatchInfo BatchSymbol(const Graph& graph, const SchemaLookup& schemas);

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_BATCH_H_
