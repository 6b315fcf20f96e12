#include "runtime/serve/v2_sax.h"

#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/serve/v2_json.h"
#include "runtime/serve/v2_types.h"

namespace echelon::serve {
namespace {

using nlohmann::json;

constexpr size_t kMaxTensors = 4096;

class Handler : public nlohmann::json_sax<json> {
 public:
  bool null() override { return Scalar({JsonKind::kNull, 0, {}}); }
  bool boolean(bool value) override { return Scalar({JsonKind::kBool, value, {}}); }
  bool number_integer(int64_t value) override {
    return Scalar({JsonKind::kInt, static_cast<uint64_t>(value), {}});
  }
  bool number_unsigned(uint64_t value) override { return Scalar({JsonKind::kUint, value, {}}); }
  bool number_float(double value, const std::string&) override {
    return Scalar({JsonKind::kFloat, std::bit_cast<uint64_t>(value), {}});
  }
  bool string(std::string& value) override {
    return Scalar({JsonKind::kString, 0, std::move(value)});
  }
  bool binary(json::binary_t&) override { return Fail("binary values are not JSON"); }
  bool start_object(size_t) override { return Push(ObjectHere()); }
  bool end_object() override { return Pop(); }
  bool start_array(size_t) override { return Push(ArrayHere()); }
  bool end_array() override { return Pop(); }
  bool key(std::string& value) override {
    key_ = std::move(value);
    return true;
  }
  bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("the request is not JSON (at byte ", at, ")"));
  }

  const std::string& error() const { return error_; }
  JsonRequest& request() { return request_; }

 private:
  enum class Where {
    kTop,
    kInputs,
    kInput,
    kOutputs,
    kOutput,
    kShape,
    kData,
    kParameters,
    kSkip,
    kWrong,
  };

  bool Fail(std::string text) {
    if (error_.empty()) error_ = std::move(text);
    return false;
  }

  Where Here() const { return stack_.back(); }

  Where ObjectHere() {
    if (stack_.empty()) return Where::kTop;
    switch (Here()) {
      case Where::kTop:
        if (key_ == "parameters") return Begin(&request_.parameters);
        return key_ == "inputs" || key_ == "outputs" || key_ == "id" ? Where::kWrong : Where::kSkip;
      case Where::kInputs:
        request_.inputs.emplace_back();
        return Where::kInput;
      case Where::kOutputs:
        request_.outputs.emplace_back();
        return Where::kOutput;
      case Where::kInput:
      case Where::kOutput:
        if (key_ == "parameters") return Begin(&Current().parameters);
        return Known() ? Where::kWrong : Where::kSkip;
      case Where::kShape:
      case Where::kData:
        return Where::kWrong;
      default:
        return Where::kSkip;
    }
  }

  Where ArrayHere() {
    if (stack_.empty()) return Where::kWrong;
    switch (Here()) {
      case Where::kTop:
        if (key_ == "inputs") request_.has_inputs = true;
        return key_ == "inputs"                       ? Where::kInputs
               : key_ == "outputs"                    ? Where::kOutputs
               : key_ == "id" || key_ == "parameters" ? Where::kWrong
                                                      : Where::kSkip;
      case Where::kInput:
        if (key_ == "shape") {
          Current().has_shape = true;
          Current().shape.clear();
          return Where::kShape;
        }
        if (key_ == "data") {
          Current().data.emplace();
          counts_.clear();
          leaf_depth_ = 0;
          return BeginLevel();
        }
        [[fallthrough]];
      case Where::kOutput:
        return Known() ? Where::kWrong : Where::kSkip;
      case Where::kData:
        ++counts_.back();
        return BeginLevel();
      case Where::kInputs:
      case Where::kOutputs:
      case Where::kShape:
        return Where::kWrong;
      default:
        return Where::kSkip;
    }
  }

  bool Known() const {
    if (Here() == Where::kOutput) return key_ == "name" || key_ == "parameters";
    return key_ == "name" || key_ == "datatype" || key_ == "shape" || key_ == "data" ||
           key_ == "parameters";
  }

  Where Begin(JsonParameters* parameters) {
    parameters_ = parameters;
    return Where::kParameters;
  }

  Where BeginLevel() {
    counts_.push_back(0);
    JsonData& data = *Current().data;
    if (counts_.size() > data.sizes.size()) data.sizes.push_back(-1);
    if (leaf_depth_ != 0 && counts_.size() > leaf_depth_) data.ragged = true;
    return Where::kData;
  }

  void EndLevel() {
    JsonData& data = *Current().data;
    int64_t& size = data.sizes[counts_.size() - 1];
    if (size >= 0 && size != counts_.back()) data.ragged = true;
    size = counts_.back();
    counts_.pop_back();
  }

  bool Push(Where where) {
    if (where == Where::kWrong)
      return Fail(absl::StrCat("the request's '", key_,
                               "' is not of the form that the protocol"
                               " wants"));
    if (stack_.size() >= kMaxJsonDepth)
      return Fail(absl::StrCat("the request nests deeper than ", kMaxJsonDepth, " levels"));
    if (where == Where::kData && counts_.size() > kMaxDimensions)
      return Fail(absl::StrCat("input '", Current().name, "' nests deeper than ", kMaxDimensions,
                               " dimensions"));
    if (request_.inputs.size() > kMaxTensors || request_.outputs.size() > kMaxTensors)
      return Fail(absl::StrCat("the request has more than ", kMaxTensors, " tensors"));
    stack_.push_back(where);
    return true;
  }

  bool Pop() {
    if (Here() == Where::kData) EndLevel();
    stack_.pop_back();
    return true;
  }

  // The input or output being read.
  JsonTensor& Current() {
    for (size_t i = stack_.size(); i-- > 0;)
      if (stack_[i] == Where::kOutputs) return request_.outputs.back();
    return request_.inputs.back();
  }

  bool Scalar(JsonScalar value) {
    if (stack_.empty()) return Fail("the request must be a JSON object");
    switch (Here()) {
      case Where::kTop:
        return TopScalar(std::move(value));
      case Where::kInput:
      case Where::kOutput:
        return TensorScalar(std::move(value));
      case Where::kShape: {
        const bool fits = value.kind == JsonKind::kUint &&
                          value.bits <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
        if (!fits || Current().shape.size() > kMaxDimensions)
          return Fail(absl::StrCat("input '", Current().name,
                                   "' has a shape that is not a list of up to ", kMaxDimensions,
                                   " sizes"));
        Current().shape.push_back(static_cast<int64_t>(value.bits));
        return true;
      }
      case Where::kData:
        return DataScalar(value);
      case Where::kParameters:
        return Parameter(value);
      case Where::kInputs:
      case Where::kOutputs:
        return Fail("inputs and outputs must be lists of objects");
      default:
        return true;
    }
  }

  bool TopScalar(JsonScalar value) {
    if (key_ == "id") {
      if (value.kind != JsonKind::kString) return Fail("the request's 'id' must be a string");
      request_.id = std::move(value.text);
    } else if (key_ == "inputs" || (key_ == "outputs" && value.kind != JsonKind::kNull)) {
      return Fail(absl::StrCat("the request's '", key_, "' must be a list"));
    }
    return true;
  }

  bool TensorScalar(JsonScalar value) {
    if (!Known()) return true;
    JsonTensor& tensor = Current();
    if (key_ == "name" || key_ == "datatype") {
      if (value.kind != JsonKind::kString)
        return Fail(absl::StrCat("a tensor's '", key_, "' must be a string"));
      (key_ == "name" ? tensor.name : tensor.datatype) = std::move(value.text);
    } else if (key_ == "shape" || key_ == "data") {
      return Fail(absl::StrCat("input '", tensor.name, "': '", key_, "' must be a list"));
    }
    return true;
  }

  bool DataScalar(const JsonScalar& value) {
    JsonData& data = *Current().data;
    if (value.kind == JsonKind::kNull || value.kind == JsonKind::kString)
      return Fail(absl::StrCat("input '", Current().name, "' has a ",
                               value.kind == JsonKind::kNull ? "null" : "string",
                               " in its data; models here take numbers only"));
    if (leaf_depth_ == 0) leaf_depth_ = counts_.size();
    if (leaf_depth_ != counts_.size() || data.sizes.size() > leaf_depth_) data.ragged = true;
    ++counts_.back();
    data.bits.push_back(value.bits);
    data.kinds.push_back(value.kind);
    return true;
  }

  bool Parameter(const JsonScalar& value) {
    JsonParameters& out = *parameters_;
    const bool number = value.kind == JsonKind::kUint;
    const bool flag = value.kind == JsonKind::kBool;
    const auto wrong = [&](absl::string_view wanted) {
      return Fail(absl::StrCat("parameter '", key_, "' must be ", wanted));
    };
    if (key_ == "binary_data_size") {
      if (!number) return wrong("a number of bytes");
      out.binary_data_size = value.bits;
    } else if (key_ == "timeout") {
      if (!number) return wrong("a number of microseconds");
      out.timeout_us = value.bits;
    } else if (key_ == "binary_data") {
      if (!flag) return wrong("true or false");
      out.binary_data = value.bits != 0;
    } else if (key_ == "binary_data_output") {
      if (!flag) return wrong("true or false");
      out.binary_data_output = value.bits != 0;
    } else if (key_ == "shared_memory_region") {
      out.shared_memory = true;
    } else if (key_ == "classification") {
      out.classification = true;
    }
    return true;
  }

  JsonRequest request_;
  std::vector<Where> stack_;
  std::string key_, error_;
  JsonParameters* parameters_ = nullptr;
  std::vector<int64_t> counts_;  // elements so far in each open level of "data"
  size_t leaf_depth_ = 0;        // at which level its numbers stand; 0: none seen
};

std::string ValueText(JsonKind kind, uint64_t bits) {
  switch (kind) {
    case JsonKind::kBool:
      return bits != 0 ? "true" : "false";
    case JsonKind::kInt:
      return absl::StrCat(static_cast<int64_t>(bits));
    case JsonKind::kFloat:
      return absl::StrCat(std::bit_cast<double>(bits));
    default:
      return absl::StrCat(bits);
  }
}

// False: the value does not fit T.
template <typename T>
bool Convert(JsonKind kind, uint64_t bits, T* out) {
  if constexpr (std::is_same_v<T, bool>) {
    *out = bits != 0;
    return kind == JsonKind::kBool || (kind == JsonKind::kUint && bits <= 1);
  } else if constexpr (std::is_integral_v<T>) {
    *out = static_cast<T>(bits);
    if (kind == JsonKind::kInt) return std::in_range<T>(static_cast<int64_t>(bits));
    return kind == JsonKind::kUint && std::in_range<T>(bits);
  } else {
    double value = 0;
    if (kind == JsonKind::kFloat)
      value = std::bit_cast<double>(bits);
    else if (kind == JsonKind::kInt)
      value = static_cast<double>(static_cast<int64_t>(bits));
    else if (kind == JsonKind::kUint)
      value = static_cast<double>(bits);
    else
      return false;
    *out = static_cast<T>(value);
    return std::isfinite(*out);
  }
}

template <typename T>
absl::Status Fill(const std::string& name, const JsonData& data, Tensor* tensor) {
  T* out = reinterpret_cast<T*>(tensor->data);
  for (size_t i = 0; i < data.bits.size(); ++i)
    if (!Convert(data.kinds[i], data.bits[i], &out[i]))
      return absl::InvalidArgumentError(
          absl::StrCat("input '", name, "' has ", ValueText(data.kinds[i], data.bits[i]),
                       " at element ", i, ", which is no ", DatatypeName(tensor->dtype)));
  return absl::OkStatus();
}

absl::Status FillAny(const std::string& name, const JsonData& data, Tensor* tensor) {
  switch (tensor->dtype) {
    case DType::kBool:
      return Fill<bool>(name, data, tensor);
    case DType::kU8:
      return Fill<uint8_t>(name, data, tensor);
    case DType::kU16:
      return Fill<uint16_t>(name, data, tensor);
    case DType::kU32:
      return Fill<uint32_t>(name, data, tensor);
    case DType::kU64:
      return Fill<uint64_t>(name, data, tensor);
    case DType::kI8:
      return Fill<int8_t>(name, data, tensor);
    case DType::kI16:
      return Fill<int16_t>(name, data, tensor);
    case DType::kI32:
      return Fill<int32_t>(name, data, tensor);
    case DType::kI64:
      return Fill<int64_t>(name, data, tensor);
    case DType::kF32:
      return Fill<float>(name, data, tensor);
    case DType::kF64:
      return Fill<double>(name, data, tensor);
    default:
      return absl::InvalidArgumentError(absl::StrCat("input '", name, "' of datatype ",
                                                     DatatypeName(tensor->dtype),
                                                     " must come as binary data"));
  }
}

}  // namespace

absl::StatusOr<JsonRequest> ReadJsonRequest(absl::string_view text) {
  if (text.size() > kMaxJsonBytes)
    return absl::InvalidArgumentError(absl::StrCat("the request's JSON takes ", text.size(),
                                                   " bytes, more than ", kMaxJsonBytes,
                                                   "; send large tensors as binary data"));
  Handler handler;
  if (!json::sax_parse(text.data(), text.data() + text.size(), &handler))
    return absl::InvalidArgumentError(OneLine(handler.error()));
  return std::move(handler.request());
}

absl::StatusOr<Tensor> TensorOf(const std::string& name, DType dtype,
                                const std::vector<int64_t>& shape, const JsonData& data) {
  const int64_t elements = ElementsOf(shape);
  if (data.ragged)
    return absl::InvalidArgumentError(
        absl::StrCat("input '", name, "' has data whose nested lists differ in length"));
  if (static_cast<int64_t>(data.bits.size()) != elements)
    return absl::InvalidArgumentError(absl::StrCat("input '", name, "' of shape ", ShapeText(shape),
                                                   " needs ", elements, " elements, got ",
                                                   data.bits.size()));
  if (data.sizes.size() > 1 && elements > 0 && data.sizes != shape)
    return absl::InvalidArgumentError(absl::StrCat("input '", name, "' has data nested as ",
                                                   ShapeText(data.sizes), ", its shape is ",
                                                   ShapeText(shape)));
  Tensor tensor = Tensor::Empty(dtype, shape);
  if (auto status = FillAny(name, data, &tensor); !status.ok()) return status;
  return tensor;
}

}  // namespace echelon::serve
