// What both forms of the Open Inference Protocol v2 share: datatype names, tensors as bytes, the
// model asked for.
#ifndef ECHELON_RUNTIME_SERVE_V2_TYPES_H_
#define ECHELON_RUNTIME_SERVE_V2_TYPES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/serve/backend.h"
#include "runtime/tensor/tensor.h"

namespace echelon::serve {

inline constexpr absl::string_view kServerName = "echelon";
inline constexpr size_t kMaxDimensions = 16;

// "FP32", "BF16", "INT64", "BOOL"... Types that the standard does not have go by FP8_E4M3,
// FP8_E5M2, COMPLEX64 and COMPLEX128, as raw bytes only.
absl::string_view DatatypeName(DType dtype);
std::optional<DType> DatatypeFromName(absl::string_view name);

// The type that a datatype names; kInvalidArgument names the input (BYTES is refused: a model's
// inputs are numbers).
absl::StatusOr<DType> InputDType(absl::string_view input, absl::string_view datatype);

// Bytes that `dtype` and `shape` take; kInvalidArgument names the input when a size is negative,
// there are more than kMaxDimensions, or the product overflows.
absl::StatusOr<size_t> InputBytes(absl::string_view input, DType dtype,
                                  const std::vector<int64_t>& shape);

// The same values in row-major order: `tensor` itself where it already is, else a copy. What a
// tensor's bytes mean on the wire.
Tensor RowMajor(const Tensor& tensor);

// kNotFound, naming the model served, when another name or version is asked for. An empty version
// is the one served.
absl::Status CheckModel(const ModelInfo& served, absl::string_view name, absl::string_view version);

// kInvalidArgument naming the first of `wanted` that is no output of the model, or is there twice.
absl::Status CheckOutputs(const ModelInfo& served, const std::vector<std::string>& wanted);

// kInvalidArgument: a tensor asks for an extension that is not there.
absl::Status NotOffered(absl::string_view tensor, absl::string_view extension);

// An error's text as one printable line of at most 2,000 bytes.
std::string OneLine(absl::string_view text);

// "port 8001 is taken; choose another with --grpc-port (0: any)", or what else `error` (an errno)
// says about listening on host:port.
std::string ListenError(int error, const std::string& host, int port, absl::string_view flag);

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_V2_TYPES_H_
