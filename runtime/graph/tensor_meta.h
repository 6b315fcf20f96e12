// What the schema's numbers and TensorMeta records mean. Private to the reader.
#ifndef ECHELON_RUNTIME_GRAPH_TENSOR_META_H_
#define ECHELON_RUNTIME_GRAPH_TENSOR_META_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/graph/graph.h"
#include "runtime/graph/json_reader.h"

namespace echelon::graph {

// The .pt2 schema numbers dtypes its own way; these fail on one that no DType stands for.
DType ReadDType(JsonReader& reader, const Json& number);
Layout ReadLayout(JsonReader& reader, const Json& number);
MemoryFormat ReadMemoryFormat(JsonReader& reader, const Json& number);
Device ReadDevice(JsonReader& reader, const Json& device);

// Rewrites size expressions to infix, each text once.
class DimReader {
 public:
  // {"as_int": 4} or {"as_expr": {"expr_str": "...", "hint": {"as_int": 4}}}. An expression that
  // Expr does not know is kept as it stands: only binding it fails.
  Dim Read(JsonReader& reader, const Json& size);

 private:
  std::map<std::string, std::string, std::less<>> infix_;
};

struct TensorMeta {
  DType dtype = DType::kF32;
  std::vector<Dim> shape, strides;
  Dim storage_offset;
};
// At most 16 dimensions, sizes and offset non-negative, one stride a dimension.
TensorMeta ReadTensorMeta(JsonReader& reader, DimReader& dims, const Json& meta);

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_TENSOR_META_H_
