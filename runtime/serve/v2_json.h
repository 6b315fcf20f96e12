// The v2 protocol's JSON over HTTP, with the binary tensor extension. Pure: bytes in, values out.
// Requests are untrusted: memory stays within a small multiple of the body's bytes, and nesting is
// bounded.
#ifndef ECHELON_RUNTIME_SERVE_V2_JSON_H_
#define ECHELON_RUNTIME_SERVE_V2_JSON_H_

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "runtime/serve/backend.h"

namespace echelon::serve {

inline constexpr size_t kMaxJsonBytes = 64
                                        << 20;  // of the JSON part; binary data is not bounded here
inline constexpr size_t kMaxJsonElements = 16u << 20;  // of an answer's tensors written as JSON
inline constexpr size_t kMaxJsonDepth = 64;

struct V2Request {
  InferRequest request;                               // inputs, outputs, id
  absl::Duration timeout = absl::InfiniteDuration();  // parameter "timeout" (microseconds)
  bool binary_outputs = false;                        // parameter "binary_data_output"
  std::map<std::string, bool> binary_output;          // an output's own "binary_data"
};

// `body`: JSON of `json_bytes` bytes (all of it when null), then the inputs' binary data in their
// order. JSON data may be flat or nested as the shape says; FP16, BF16 and types beyond the
// standard come as binary data only. kInvalidArgument: one line that names the input and what is
// wrong.
absl::StatusOr<V2Request> DecodeV2Request(absl::string_view body, std::optional<size_t> json_bytes);

struct V2Body {
  std::string bytes;
  std::optional<size_t> json_bytes;  // set when binary data follows the JSON
};

// JSON data is flat, in row-major order; what is not finite stands there as NaN, Infinity and
// -Infinity, as Python's json reads and writes it. kInvalidArgument: an output that JSON cannot
// hold was not asked for as binary.
absl::StatusOr<V2Body> EncodeV2Response(const ModelInfo& model, const V2Request& request,
                                        const std::vector<NamedTensor>& outputs);

std::string ServerMetadataJson();
std::string ModelMetadataJson(const ModelInfo& model);
std::string ModelConfigJson(const ModelInfo& model);
std::string RepositoryIndexJson(const ModelInfo& model, const absl::Status& ready);

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_V2_JSON_H_
