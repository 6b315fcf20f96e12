#include "runtime/serve/v2_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "runtime/serve/v2_sax.h"
#include "runtime/serve/v2_types.h"
#include "runtime/version.h"

namespace echelon::serve {
namespace {

using nlohmann::json;

std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::Status CheckParameters(const JsonTensor& tensor) {
  if (tensor.parameters.shared_memory) return NotOffered(tensor.name, "shared memory");
  if (tensor.parameters.classification) return NotOffered(tensor.name, "classification");
  return absl::OkStatus();
}

// `binary`: what is left of the binary data; this input's part is taken from its front.
absl::StatusOr<NamedTensor> DecodeInput(JsonTensor& input, absl::string_view* binary) {
  if (input.name.empty()) return absl::InvalidArgumentError("an input has no name");
  if (absl::Status status = CheckParameters(input); !status.ok()) return status;
  if (!input.has_shape)
    return absl::InvalidArgumentError(absl::StrCat("input '", input.name, "' has no shape"));
  const auto dtype = InputDType(input.name, input.datatype);
  if (!dtype.ok()) return dtype.status();
  const auto bytes = InputBytes(input.name, *dtype, input.shape);
  if (!bytes.ok()) return bytes.status();
  const auto& binary_bytes = input.parameters.binary_data_size;
  if (!binary_bytes && !input.data)
    return absl::InvalidArgumentError(absl::StrCat("input '", input.name, "' has no data"));
  if (!binary_bytes) {
    auto tensor = TensorOf(input.name, *dtype, input.shape, *input.data);
    if (!tensor.ok()) return tensor.status();
    input.data.reset();
    return NamedTensor{input.name, *std::move(tensor)};
  }
  if (input.data)
    return absl::InvalidArgumentError(
        absl::StrCat("input '", input.name, "' has both data and binary_data_size"));
  if (*binary_bytes != *bytes)
    return absl::InvalidArgumentError(
        absl::StrCat("input '", input.name, "' of shape ", ShapeText(input.shape), " needs ",
                     *bytes, " bytes, its binary_data_size is ", *binary_bytes));
  if (*binary_bytes > binary->size())
    return absl::InvalidArgumentError(absl::StrCat("input '", input.name, "' needs ", *bytes,
                                                   " bytes of binary data, ", binary->size(),
                                                   " are left in the body"));
  Tensor tensor = Tensor::Empty(*dtype, input.shape);
  std::memcpy(tensor.data, binary->data(), *bytes);
  binary->remove_prefix(*bytes);
  return NamedTensor{input.name, std::move(tensor)};
}

template <typename T>
void AppendNumber(T value, std::string* out) {
  if constexpr (std::is_same_v<T, bool>) {
    out->append(value ? "true" : "false");
  } else {
    if constexpr (std::is_floating_point_v<T>) {
      if (!std::isfinite(value)) {
        out->append(std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
        return;
      }
    }
    char text[32];
    out->append(text, std::to_chars(text, text + sizeof(text), value).ptr);
  }
}

template <typename T>
void AppendAll(const Tensor& tensor, std::string* out) {
  const T* values = reinterpret_cast<const T*>(tensor.data);
  const int64_t elements = tensor.elements();
  for (int64_t i = 0; i < elements; ++i) {
    if (i > 0) out->push_back(',');
    AppendNumber(values[i], out);
  }
}

// False: JSON has no form for this type.
bool AppendData(const Tensor& tensor, std::string* out) {
  switch (tensor.dtype) {
    case DType::kBool:
      return AppendAll<bool>(tensor, out), true;
    case DType::kU8:
      return AppendAll<uint8_t>(tensor, out), true;
    case DType::kU16:
      return AppendAll<uint16_t>(tensor, out), true;
    case DType::kU32:
      return AppendAll<uint32_t>(tensor, out), true;
    case DType::kU64:
      return AppendAll<uint64_t>(tensor, out), true;
    case DType::kI8:
      return AppendAll<int8_t>(tensor, out), true;
    case DType::kI16:
      return AppendAll<int16_t>(tensor, out), true;
    case DType::kI32:
      return AppendAll<int32_t>(tensor, out), true;
    case DType::kI64:
      return AppendAll<int64_t>(tensor, out), true;
    case DType::kF32:
      return AppendAll<float>(tensor, out), true;
    case DType::kF64:
      return AppendAll<double>(tensor, out), true;
    default:
      return false;
  }
}

bool WantsBinary(const V2Request& request, const std::string& output) {
  const auto own = request.binary_output.find(output);
  return own != request.binary_output.end() ? own->second : request.binary_outputs;
}

json TensorsJson(const std::vector<TensorSpec>& specs) {
  json list = json::array();
  for (const TensorSpec& spec : specs)
    list.push_back({{"name", spec.name},
                    {"datatype", std::string(DatatypeName(spec.dtype))},
                    {"shape", spec.shape}});
  return list;
}

json ConfigTensors(const std::vector<TensorSpec>& specs) {
  json list = json::array();
  for (const TensorSpec& spec : specs)
    list.push_back({{"name", spec.name},
                    {"data_type", absl::StrCat("TYPE_", DatatypeName(spec.dtype))},
                    {"dims", spec.shape}});
  return list;
}

}  // namespace

absl::StatusOr<V2Request> DecodeV2Request(absl::string_view body,
                                          std::optional<size_t> json_bytes) {
  if (json_bytes && *json_bytes > body.size())
    return absl::InvalidArgumentError(absl::StrCat("Inference-Header-Content-Length is ",
                                                   *json_bytes, ", the body has only ", body.size(),
                                                   " bytes"));
  if (json_bytes == 0)
    return absl::InvalidArgumentError(
        "Inference-Header-Content-Length is 0, a request without JSON, which this server does not"
        " take; name the inputs in JSON before the binary data");
  auto parsed = ReadJsonRequest(body.substr(0, json_bytes.value_or(body.size())));
  if (!parsed.ok()) return parsed.status();
  if (!parsed->has_inputs) return absl::InvalidArgumentError("the request has no 'inputs'");
  V2Request result;
  result.request.id = std::move(parsed->id);
  result.binary_outputs = parsed->parameters.binary_data_output.value_or(false);
  if (const auto timeout_us = parsed->parameters.timeout_us; timeout_us.value_or(0) > 0)
    result.timeout =
        absl::Microseconds(static_cast<int64_t>(std::min<uint64_t>(*timeout_us, 1ull << 62)));
  absl::string_view binary = body.substr(json_bytes.value_or(body.size()));
  for (JsonTensor& input : parsed->inputs) {
    auto tensor = DecodeInput(input, &binary);
    if (!tensor.ok())
      return absl::Status(tensor.status().code(), OneLine(tensor.status().message()));
    result.request.inputs.push_back(*std::move(tensor));
  }
  if (!binary.empty())
    return absl::InvalidArgumentError(
        absl::StrCat(binary.size(), " bytes of binary data belong to no input"));
  for (JsonTensor& output : parsed->outputs) {
    if (const absl::Status status = CheckParameters(output); !status.ok())
      return absl::Status(status.code(), OneLine(status.message()));
    if (output.parameters.binary_data)
      result.binary_output[output.name] = *output.parameters.binary_data;
    result.request.outputs.push_back(std::move(output.name));
  }
  return result;
}

absl::StatusOr<V2Body> EncodeV2Response(const ModelInfo& model, const V2Request& request,
                                        const std::vector<NamedTensor>& outputs) {
  std::string head = absl::StrCat("{\"model_name\":", Dump(model.name),
                                  ",\"model_version\":", Dump(model.version));
  if (!request.request.id.empty()) absl::StrAppend(&head, ",\"id\":", Dump(request.request.id));
  head += ",\"outputs\":[";
  std::vector<Tensor> binary;
  size_t binary_bytes = 0, json_elements = 0;
  for (const NamedTensor& output : outputs) {
    const Tensor tensor = RowMajor(output.tensor);
    if (head.back() == '}') head += ',';
    absl::StrAppend(&head, "{\"name\":", Dump(output.name), ",\"datatype\":\"",
                    DatatypeName(tensor.dtype), "\",\"shape\":[", absl::StrJoin(tensor.shape, ","),
                    "]");
    if (WantsBinary(request, output.name)) {
      absl::StrAppend(&head, ",\"parameters\":{\"binary_data_size\":", tensor.nbytes, "}}");
      binary_bytes += tensor.nbytes;
      binary.push_back(tensor);
      continue;
    }
    json_elements += static_cast<size_t>(tensor.elements());
    head += ",\"data\":[";
    if (json_elements > kMaxJsonElements || !AppendData(tensor, &head))
      return absl::InvalidArgumentError(OneLine(absl::StrCat(
          "output '", output.name, "' (", DatatypeName(tensor.dtype), " ", ShapeText(tensor.shape),
          ") cannot be sent as JSON; ask for it with \"binary_data\": true")));
    head += "]}";
  }
  head += "]}";
  V2Body body;
  if (!binary.empty()) body.json_bytes = head.size();
  head.reserve(head.size() + binary_bytes);
  for (const Tensor& tensor : binary)
    head.append(reinterpret_cast<const char*>(tensor.data), tensor.nbytes);
  body.bytes = std::move(head);
  return body;
}

std::string ServerMetadataJson() {
  return Dump({{"name", std::string(kServerName)},
               {"version", kVersion},
               {"extensions", {"binary_tensor_data", "model_configuration"}}});
}

std::string ModelMetadataJson(const ModelInfo& model) {
  return Dump({{"name", model.name},
               {"versions", json::array({model.version})},
               {"platform", model.platform},
               {"inputs", TensorsJson(model.inputs)},
               {"outputs", TensorsJson(model.outputs)}});
}

std::string ModelConfigJson(const ModelInfo& model) {
  return Dump({{"name", model.name},
               {"platform", model.platform},
               {"backend", std::string(kServerName)},
               {"max_batch_size", 0},
               {"input", ConfigTensors(model.inputs)},
               {"output", ConfigTensors(model.outputs)}});
}

std::string RepositoryIndexJson(const ModelInfo& model, const absl::Status& ready) {
  json entry = {{"name", model.name},
                {"version", model.version},
                {"state", ready.ok() ? "READY" : "UNAVAILABLE"}};
  if (!ready.ok()) entry["reason"] = OneLine(ready.message());
  return Dump(json::array({entry}));
}

}  // namespace echelon::serve
