// The door: what a caller gives against what the graph takes.
#ifndef ECHELON_RUNTIME_GRAPH_SIGNATURE_H_
#define ECHELON_RUNTIME_GRAPH_SIGNATURE_H_

#include <vector>

#include "absl/status/status.h"
#include "runtime/graph/expr.h"
#include "runtime/graph/graph.h"
#include "runtime/tensor/tensor.h"

namespace echelon::graph {

// Checks names (unknown, missing, twice), dtypes, ranks and every dimension, in any order of
// `inputs`, and gives each symbol that the inputs fix its value. A symbolic dimension binds a plain
// symbol; of a linear expression in one symbol ("2*s0") the symbol is solved for; all others must
// agree; each symbol must lie in its range. An integer input (a size passed as an argument) is an
// i64 scalar tensor. InvalidArgument or OutOfRange names the input, the dimension, what came and
// what is allowed. `symbols` may be null.
absl::Status BindInputs(const Graph& graph, const std::vector<NamedTensor>& inputs,
                        SymbolValues* symbols);

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_SIGNATURE_H_
