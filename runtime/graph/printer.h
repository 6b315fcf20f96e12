// Graphs as readable code, stable from run to run.
#ifndef ECHELON_RUNTIME_GRAPH_PRINTER_H_
#define ECHELON_RUNTIME_GRAPH_PRINTER_H_

#include <string>
#include <vector>

#include "runtime/graph/graph.h"

namespace echelon::graph {

// Nodes [begin, end) as a forward function of `receives` that returns `sends`:
//
//     def forward(self, x):                                          # x: f32[s0, 128]
//         linear = aten.linear(x, self.net1.weight, self.net1.bias)  # f32[s0, 128]
//         return linear
//
// Stored tensors read as attributes of self; arguments are named from the first that the operator's
// schema could have moved (keyword arguments); comments give the results' dtypes and shapes.
std::string PrintCode(const Graph& graph, int begin, int end, const std::vector<ValueId>& receives,
                      const std::vector<ValueId>& sends);

// The whole graph: PrintCode from its inputs to its outputs, after a line for each symbol's range.
std::string PrintGraph(const Graph& graph);

std::string TypeText(const Value& value);  // "f32[s0, 128]", "int", "none"
std::string ItemText(const Graph& graph, const Item& item);

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_PRINTER_H_
