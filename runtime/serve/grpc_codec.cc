#include "runtime/serve/grpc_codec.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/serve/v2_types.h"

namespace echelon::serve {
namespace {

absl::Status WrongCount(absl::string_view name, const std::vector<int64_t>& shape, size_t wanted,
                        size_t got, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' of shape ", ShapeText(shape),
                                                 " needs ", wanted, " ", what, ", got ", got));
}

// Copies one typed field, narrowing with a check that no value is lost.
template <typename To, typename From>
absl::StatusOr<Tensor> Copy(absl::string_view name, DType dtype, std::vector<int64_t> shape,
                            const google::protobuf::RepeatedField<From>& values) {
  const int64_t elements = ElementsOf(shape);
  if (values.size() != elements)
    return WrongCount(name, shape, elements, values.size(), "elements");
  Tensor tensor = Tensor::Empty(dtype, std::move(shape));
  To* out = reinterpret_cast<To*>(tensor.data);
  for (const From value : values) {
    if constexpr (sizeof(To) < sizeof(From)) {
      if (value < std::numeric_limits<To>::min() || value > std::numeric_limits<To>::max())
        return absl::InvalidArgumentError(absl::StrCat(
            "tensor '", name, "' holds ", value, ", which does not fit ", DatatypeName(dtype)));
    }
    *out++ = static_cast<To>(value);
  }
  return tensor;
}

absl::StatusOr<Tensor> FromTyped(absl::string_view name, DType dtype, std::vector<int64_t> shape,
                                 const inference::InferTensorContents& contents) {
  switch (dtype) {
    case DType::kBool:
      return Copy<bool>(name, dtype, std::move(shape), contents.bool_contents());
    case DType::kI8:
      return Copy<int8_t>(name, dtype, std::move(shape), contents.int_contents());
    case DType::kI16:
      return Copy<int16_t>(name, dtype, std::move(shape), contents.int_contents());
    case DType::kI32:
      return Copy<int32_t>(name, dtype, std::move(shape), contents.int_contents());
    case DType::kI64:
      return Copy<int64_t>(name, dtype, std::move(shape), contents.int64_contents());
    case DType::kU8:
      return Copy<uint8_t>(name, dtype, std::move(shape), contents.uint_contents());
    case DType::kU16:
      return Copy<uint16_t>(name, dtype, std::move(shape), contents.uint_contents());
    case DType::kU32:
      return Copy<uint32_t>(name, dtype, std::move(shape), contents.uint_contents());
    case DType::kU64:
      return Copy<uint64_t>(name, dtype, std::move(shape), contents.uint64_contents());
    case DType::kF32:
      return Copy<float>(name, dtype, std::move(shape), contents.fp32_contents());
    case DType::kF64:
      return Copy<double>(name, dtype, std::move(shape), contents.fp64_contents());
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor '", name, "' of datatype ", DatatypeName(dtype), " must come as raw contents"));
  }
}

// A tensor that aliases `bytes`, which `owner` keeps alive.
Tensor Alias(DType dtype, std::vector<int64_t> shape, std::shared_ptr<void> owner,
             const std::string& bytes) {
  Tensor tensor{.dtype = dtype, .shape = std::move(shape)};
  tensor.owner = std::move(owner);
  tensor.data = reinterpret_cast<std::byte*>(const_cast<char*>(bytes.data()));
  tensor.nbytes = bytes.size();
  return tensor;
}

template <typename Parameters>
absl::Status CheckParameters(absl::string_view name, const Parameters& parameters) {
  if (parameters.contains("shared_memory_region")) return NotOffered(name, "shared memory");
  if (parameters.contains("classification")) return NotOffered(name, "classification");
  return absl::OkStatus();
}

absl::StatusOr<Tensor> DecodeInput(const std::shared_ptr<inference::ModelInferRequest>& message,
                                   int index) {
  const auto& input = message->inputs(index);
  if (auto status = CheckParameters(input.name(), input.parameters()); !status.ok()) return status;
  const auto dtype = InputDType(input.name(), input.datatype());
  if (!dtype.ok()) return dtype.status();
  std::vector<int64_t> shape(input.shape().begin(), input.shape().end());
  const auto bytes = InputBytes(input.name(), *dtype, shape);
  if (!bytes.ok()) return bytes.status();
  if (message->raw_input_contents().empty())
    return FromTyped(input.name(), *dtype, std::move(shape), input.contents());
  const std::string& raw = message->raw_input_contents(index);
  if (raw.size() != *bytes) return WrongCount(input.name(), shape, *bytes, raw.size(), "bytes");
  return Alias(*dtype, std::move(shape), message, raw);
}

inference::DataType ConfigType(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return inference::TYPE_BOOL;
    case DType::kU8:
      return inference::TYPE_UINT8;
    case DType::kU16:
      return inference::TYPE_UINT16;
    case DType::kU32:
      return inference::TYPE_UINT32;
    case DType::kU64:
      return inference::TYPE_UINT64;
    case DType::kI8:
      return inference::TYPE_INT8;
    case DType::kI16:
      return inference::TYPE_INT16;
    case DType::kI32:
      return inference::TYPE_INT32;
    case DType::kI64:
      return inference::TYPE_INT64;
    case DType::kF16:
      return inference::TYPE_FP16;
    case DType::kF32:
      return inference::TYPE_FP32;
    case DType::kF64:
      return inference::TYPE_FP64;
    case DType::kBF16:
      return inference::TYPE_BF16;
    default:
      return inference::TYPE_INVALID;
  }
}

}  // namespace

absl::StatusOr<InferRequest> DecodeRequest(std::shared_ptr<inference::ModelInferRequest> message) {
  InferRequest request{.id = message->id()};
  const int inputs = message->inputs_size(), raws = message->raw_input_contents_size();
  if (raws != 0 && raws != inputs)
    return absl::InvalidArgumentError(
        absl::StrCat("the request has ", inputs, " inputs but ", raws, " raw contents"));
  for (int i = 0; i < inputs; ++i) {
    const auto& input = message->inputs(i);
    if (raws != 0 && input.has_contents())
      return absl::InvalidArgumentError(OneLine(absl::StrCat(
          "input '", input.name(), "' has typed contents though the request has raw contents")));
    auto tensor = DecodeInput(message, i);
    if (!tensor.ok())
      return absl::Status(tensor.status().code(), OneLine(tensor.status().message()));
    request.inputs.push_back({input.name(), *std::move(tensor)});
  }
  for (const auto& output : message->outputs()) {
    if (auto status = CheckParameters(output.name(), output.parameters()); !status.ok())
      return absl::Status(status.code(), OneLine(status.message()));
    request.outputs.push_back(output.name());
  }
  return request;
}

absl::StatusOr<absl::Duration> DecodeTimeout(const inference::ModelInferRequest& message) {
  const auto found = message.parameters().find("timeout");
  if (found == message.parameters().end()) return absl::InfiniteDuration();
  const auto& value = found->second;
  int64_t timeout_us = -1;
  if (value.has_int64_param()) timeout_us = value.int64_param();
  if (value.has_uint64_param())
    timeout_us = static_cast<int64_t>(
        std::min<uint64_t>(value.uint64_param(), std::numeric_limits<int64_t>::max()));
  if (timeout_us < 0)
    return absl::InvalidArgumentError("parameter 'timeout' must be a number of microseconds");
  return timeout_us == 0 ? absl::InfiniteDuration() : absl::Microseconds(timeout_us);
}

absl::Status CheckMessageSize(absl::string_view what, const std::vector<NamedTensor>& tensors) {
  int64_t bytes = 0;
  for (const NamedTensor& tensor : tensors) bytes += static_cast<int64_t>(tensor.tensor.nbytes);
  if (bytes <= kMaxTensorBytes) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrCat(what, " ", bytes, " bytes and a gRPC message holds ", kMaxTensorBytes,
                   "; send fewer rows at once, ask for fewer outputs, or use HTTP"));
}

absl::Status EncodeResponse(const ModelInfo& model, const std::string& id,
                            const std::vector<NamedTensor>& outputs,
                            inference::ModelInferResponse* message) {
  if (auto status = CheckMessageSize("the answer has", outputs); !status.ok()) return status;
  message->set_model_name(model.name);
  message->set_model_version(model.version);
  message->set_id(id);
  for (const NamedTensor& output : outputs) {
    const Tensor tensor = RowMajor(output.tensor);
    auto* out = message->add_outputs();
    out->set_name(output.name);
    out->set_datatype(std::string(DatatypeName(tensor.dtype)));
    out->mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
    message->add_raw_output_contents(reinterpret_cast<const char*>(tensor.data), tensor.nbytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<NamedTensor>> DecodeResponse(
    const inference::ModelInferResponse& message) {
  std::vector<NamedTensor> outputs;
  const int raws = message.raw_output_contents_size();
  if (raws != 0 && raws != message.outputs_size())
    return absl::InvalidArgumentError(absl::StrCat("the answer has ", message.outputs_size(),
                                                   " outputs but ", raws, " raw contents"));
  for (int i = 0; i < message.outputs_size(); ++i) {
    const auto& output = message.outputs(i);
    const std::optional<DType> dtype = DatatypeFromName(output.datatype());
    if (!dtype)
      return absl::InvalidArgumentError(OneLine(absl::StrCat(
          "output '", output.name(), "' has datatype '", output.datatype(), "', not a number")));
    std::vector<int64_t> shape(output.shape().begin(), output.shape().end());
    const auto bytes = InputBytes(output.name(), *dtype, shape);
    if (!bytes.ok()) return bytes.status();
    if (raws == 0) {
      auto tensor = FromTyped(output.name(), *dtype, std::move(shape), output.contents());
      if (!tensor.ok()) return tensor.status();
      outputs.push_back({output.name(), *std::move(tensor)});
      continue;
    }
    const std::string& raw = message.raw_output_contents(i);
    if (raw.size() != *bytes) return WrongCount(output.name(), shape, *bytes, raw.size(), "bytes");
    Tensor tensor = Tensor::Empty(*dtype, std::move(shape));
    std::copy_n(reinterpret_cast<const std::byte*>(raw.data()), raw.size(), tensor.data);
    outputs.push_back({output.name(), std::move(tensor)});
  }
  return outputs;
}

void EncodeInput(const NamedTensor& input, inference::ModelInferRequest* message) {
  const Tensor tensor = RowMajor(input.tensor);
  auto* out = message->add_inputs();
  out->set_name(input.name);
  out->set_datatype(std::string(DatatypeName(tensor.dtype)));
  out->mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
  message->add_raw_input_contents(reinterpret_cast<const char*>(tensor.data), tensor.nbytes);
}

void EncodeMetadata(const ModelInfo& model, inference::ModelMetadataResponse* message) {
  message->set_name(model.name);
  message->add_versions(model.version);
  message->set_platform(model.platform);
  const auto encode = [](const TensorSpec& spec, auto* out) {
    out->set_name(spec.name);
    out->set_datatype(std::string(DatatypeName(spec.dtype)));
    out->mutable_shape()->Add(spec.shape.begin(), spec.shape.end());
  };
  for (const TensorSpec& spec : model.inputs) encode(spec, message->add_inputs());
  for (const TensorSpec& spec : model.outputs) encode(spec, message->add_outputs());
}

void EncodeConfig(const ModelInfo& model, inference::ModelConfig* message) {
  message->set_name(model.name);
  message->set_platform(model.platform);
  message->set_backend(std::string(kServerName));
  const auto encode = [](const TensorSpec& spec, auto* out) {
    out->set_name(spec.name);
    out->set_data_type(ConfigType(spec.dtype));
    out->mutable_dims()->Add(spec.shape.begin(), spec.shape.end());
  };
  for (const TensorSpec& spec : model.inputs) encode(spec, message->add_input());
  for (const TensorSpec& spec : model.outputs) encode(spec, message->add_output());
}

}  // namespace echelon::serve
