// Reads the JSON part of a v2 request without building a document: a tensor of a million numbers
// costs nine bytes a number. Private to runtime/serve.
#ifndef ECHELON_RUNTIME_SERVE_V2_SAX_H_
#define ECHELON_RUNTIME_SERVE_V2_SAX_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "runtime/tensor/tensor.h"

namespace echelon::serve {

enum class JsonKind : uint8_t { kNull, kBool, kInt, kUint, kFloat, kString };

struct JsonScalar {
  JsonKind kind = JsonKind::kNull;
  uint64_t bits = 0;  // bool, int64, uint64 or double
  std::string text;   // kString
};

// "data": elements in the order they stand, and how they were nested.
struct JsonData {
  std::vector<uint64_t> bits;
  std::vector<JsonKind> kinds;
  std::vector<int64_t> sizes;  // of each level of nesting; -1: not seen yet
  bool ragged = false;
};

struct JsonParameters {
  std::optional<uint64_t> binary_data_size;
  std::optional<bool> binary_data;         // of an output
  std::optional<bool> binary_data_output;  // of the request
  std::optional<uint64_t> timeout_us;
  bool shared_memory = false, classification = false;
};

struct JsonTensor {
  std::string name, datatype;
  std::vector<int64_t> shape;
  bool has_shape = false;
  std::optional<JsonData> data;
  JsonParameters parameters;
};

struct JsonRequest {
  std::string id;
  JsonParameters parameters;
  bool has_inputs = false;
  std::vector<JsonTensor> inputs, outputs;
};

// kInvalidArgument: not JSON, or not a v2 request. What the protocol does not know is skipped.
absl::StatusOr<JsonRequest> ReadJsonRequest(absl::string_view json);

// The input's "data" as a tensor; kInvalidArgument names the input and what does not fit.
absl::StatusOr<Tensor> TensorOf(const std::string& name, DType dtype,
                                const std::vector<int64_t>& shape, const JsonData& data);

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_V2_SAX_H_
