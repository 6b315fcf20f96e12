// Names of a program's outputs, from the pytree specification that torch.export writes. Private to
// the reader.
#ifndef ECHELON_RUNTIME_GRAPH_TREESPEC_H_
#define ECHELON_RUNTIME_GRAPH_TREESPEC_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/graph/json_reader.h"

namespace echelon::graph {

// One name a leaf, in flattening order, each unique: "output" for a single tensor, "output_0" for
// an element of a tuple or list, a dictionary's keys and a class's field names as they are, nested
// ones joined with ".". namedtuples: {"name": {"field_names": [...]}}; one that is not there is
// numbered as a tuple.
absl::StatusOr<std::vector<std::string>> OutputNames(std::string_view out_spec,
                                                     const Json& namedtuples,
                                                     const std::string& where);

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_TREESPEC_H_
