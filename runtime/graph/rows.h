// Finds the node at which rows of a batch meet. Private to batch.cc.
//
// For every value it follows where the batch is: in one dimension whose size is a multiple of the
// symbol, the rows of the batch standing apart along it. A node mixes rows when the batch dimension
// is lost, doubled or resized, when it is the dimension that a reduction, softmax, concatenation,
// sort or the like works along, when a product sums over it, when running or batch statistics are
// taken, or when the number or the index of a row is computed with.
#ifndef ECHELON_RUNTIME_GRAPH_ROWS_H_
#define ECHELON_RUNTIME_GRAPH_ROWS_H_

#include <string>

#include "runtime/graph/graph.h"

namespace echelon::graph {

// "" when no rows meet, else one clause: "node softmax (aten.softmax.int) works along the batch".
std::string WhereRowsMeet(const Graph& graph, const std::string& symbol);

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_ROWS_H_
