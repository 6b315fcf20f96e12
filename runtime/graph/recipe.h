// How a parameter is made from the tensors of a checkpoint: data movement and casts, nothing else.
// The exporter derives it, a rank reads the parameter through it by byte ranges.
#ifndef ECHELON_RUNTIME_GRAPH_RECIPE_H_
#define ECHELON_RUNTIME_GRAPH_RECIPE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/graph/json_reader.h"
#include "runtime/tensor/dtype.h"

namespace echelon::graph {

struct Recipe {
  enum Op { kTensor, kCat, kStack, kSlice, kTranspose, kReshape, kCast } op = kTensor;
  std::string tensor;             // kTensor: its name in the checkpoint
  int64_t dim = 0, other = 0;     // kCat, kStack, kSlice; kTranspose swaps dim and other
  int64_t start = 0, length = 0;  // kSlice, in elements of dim
  std::vector<int64_t> shape;     // kReshape
  DType dtype = DType::kF32;      // kCast
  std::vector<Recipe> of;         // one, or what is joined
};

// At most 64 levels and a million parts. Errors are the reader's.
Recipe ReadRecipe(JsonReader& reader, const Json& json);

// "cat(0, a, slice(b, 0, 4:8))": equal texts are equal recipes.
std::string ToText(const Recipe& recipe);

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_RECIPE_H_
