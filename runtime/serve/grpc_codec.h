// Protocol messages <-> tensors. Pure: no server, no clock, no lock. Used by the service and by
// `echelon infer`.
#ifndef ECHELON_RUNTIME_SERVE_GRPC_CODEC_H_
#define ECHELON_RUNTIME_SERVE_GRPC_CODEC_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/inference.pb.h"
#include "runtime/serve/backend.h"

namespace echelon::serve {

// Inputs, wanted outputs and id. Raw inputs alias the message, which they keep alive: nothing is
// copied. kInvalidArgument names the input: unknown datatype, impossible shape, bytes or elements
// that do not fit the shape, raw and typed contents mixed, a parameter that asks for shared memory
// or classification.
absl::StatusOr<InferRequest> DecodeRequest(std::shared_ptr<inference::ModelInferRequest> message);

// The "timeout" parameter (microseconds), as a duration; infinite without one. kInvalidArgument
// when it is not a positive number.
absl::StatusOr<absl::Duration> DecodeTimeout(const inference::ModelInferRequest& message);

// What one gRPC message can hold: protobuf counts bytes in an int, and gRPC ends the process where
// a message is larger. Names and shapes have the last MiB.
inline constexpr int64_t kMaxTensorBytes = (int64_t{2} << 30) - (int64_t{1} << 20);

// kOutOfRange when these take more than kMaxTensorBytes; `what`: "the answer has".
absl::Status CheckMessageSize(absl::string_view what, const std::vector<NamedTensor>& tensors);

// Raw contents, as the reference server answers. kOutOfRange: see CheckMessageSize.
absl::Status EncodeResponse(const ModelInfo& model, const std::string& id,
                            const std::vector<NamedTensor>& outputs,
                            inference::ModelInferResponse* message);

// The client's side: raw or typed contents; kInvalidArgument names the output that does not fit its
// shape.
absl::StatusOr<std::vector<NamedTensor>> DecodeResponse(
    const inference::ModelInferResponse& message);
// Appends one input with raw contents.
void EncodeInput(const NamedTensor& input, inference::ModelInferRequest* message);

void EncodeMetadata(const ModelInfo& model, inference::ModelMetadataResponse* message);
void EncodeConfig(const ModelInfo& model, inference::ModelConfig* message);

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_GRPC_CODEC_H_
