#include "runtime/serve/v2_types.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/host_port.h"

namespace echelon::serve {
namespace {

constexpr std::array<std::pair<DType, absl::string_view>, 17> kDatatypes{
    {{DType::kBool, "BOOL"},
     {DType::kU8, "UINT8"},
     {DType::kI8, "INT8"},
     {DType::kI16, "INT16"},
     {DType::kI32, "INT32"},
     {DType::kI64, "INT64"},
     {DType::kF16, "FP16"},
     {DType::kBF16, "BF16"},
     {DType::kF32, "FP32"},
     {DType::kF64, "FP64"},
     {DType::kU16, "UINT16"},
     {DType::kU32, "UINT32"},
     {DType::kU64, "UINT64"},
     {DType::kF8E4M3, "FP8_E4M3"},
     {DType::kF8E5M2, "FP8_E5M2"},
     {DType::kC64, "COMPLEX64"},
     {DType::kC128, "COMPLEX128"}}};

bool IsRowMajor(const Tensor& tensor) {
  if (tensor.strides.empty()) return true;
  int64_t expected = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

std::string OutputNames(const ModelInfo& model) {
  return absl::StrJoin(model.outputs, ", ", [](std::string* out, const TensorSpec& spec) {
    absl::StrAppend(out, "'", spec.name, "'");
  });
}

}  // namespace

absl::string_view DatatypeName(DType dtype) {
  for (const auto& [type, name] : kDatatypes)
    if (type == dtype) return name;
  return "?";
}

std::optional<DType> DatatypeFromName(absl::string_view name) {
  for (const auto& [type, text] : kDatatypes)
    if (text == name) return type;
  return std::nullopt;
}

absl::StatusOr<DType> InputDType(absl::string_view input, absl::string_view datatype) {
  const std::optional<DType> dtype = DatatypeFromName(datatype);
  if (dtype) return *dtype;
  if (datatype == "BYTES")
    return absl::InvalidArgumentError(
        absl::StrCat("input '", input, "' has datatype BYTES; models here take numbers only"));
  return absl::InvalidArgumentError(
      absl::StrCat("input '", input, "' has unknown datatype '", datatype,
                   "'; use one of BOOL, INT8..INT64, UINT8..UINT64, FP16, BF16, FP32, FP64"));
}

absl::StatusOr<size_t> InputBytes(absl::string_view input, DType dtype,
                                  const std::vector<int64_t>& shape) {
  if (shape.size() > kMaxDimensions)
    return absl::InvalidArgumentError(absl::StrCat("input '", input, "' has ", shape.size(),
                                                   " dimensions; at most ", kMaxDimensions,
                                                   " are possible"));
  const int64_t elements = ElementsOf(shape);
  int64_t bytes = 0;
  if (elements < 0 ||
      __builtin_mul_overflow(elements, static_cast<int64_t>(ElementBytes(dtype)), &bytes))
    return absl::InvalidArgumentError(
        absl::StrCat("input '", input, "' has an impossible shape ", ShapeText(shape)));
  return static_cast<size_t>(bytes);
}

Tensor RowMajor(const Tensor& tensor) {
  if (IsRowMajor(tensor)) return tensor;
  Tensor result = Tensor::Empty(tensor.dtype, tensor.shape);
  const size_t element_bytes = ElementBytes(tensor.dtype);
  const size_t dims = tensor.shape.size();
  const int64_t elements = tensor.elements();
  std::vector<int64_t> index(dims, 0);
  int64_t from = 0;
  for (int64_t to = 0; to < elements; ++to) {
    std::memcpy(result.data + to * element_bytes, tensor.data + from * element_bytes,
                element_bytes);
    for (size_t i = dims; i-- > 0;) {
      from += tensor.strides[i];
      if (++index[i] < tensor.shape[i]) break;
      from -= tensor.strides[i] * tensor.shape[i];
      index[i] = 0;
    }
  }
  return result;
}

absl::Status CheckModel(const ModelInfo& served, absl::string_view name,
                        absl::string_view version) {
  if (name != served.name)
    return absl::NotFoundError(OneLine(
        absl::StrCat("model '", name, "' is not here; this server serves '", served.name, "'")));
  if (!version.empty() && version != served.version)
    return absl::NotFoundError(
        OneLine(absl::StrCat("model '", name, "' has no version '", version, "'; version '",
                             served.version, "' is served")));
  return absl::OkStatus();
}

absl::Status CheckOutputs(const ModelInfo& served, const std::vector<std::string>& wanted) {
  std::set<absl::string_view> known, seen;
  for (const TensorSpec& spec : served.outputs) known.insert(spec.name);
  for (const std::string& name : wanted) {
    if (!known.contains(name))
      return absl::InvalidArgumentError(
          OneLine(absl::StrCat("model '", served.name, "' has no output '", name,
                               "'; its outputs are ", OutputNames(served))));
    if (!seen.insert(name).second)
      return absl::InvalidArgumentError(
          OneLine(absl::StrCat("output '", name, "' is asked for twice")));
  }
  return absl::OkStatus();
}

absl::Status NotOffered(absl::string_view tensor, absl::string_view extension) {
  return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor, "' asks for ", extension,
                                                 ", which this server does not offer"));
}

std::string OneLine(absl::string_view text) {
  constexpr size_t kMaxBytes = 2000;
  std::string line(text.substr(0, kMaxBytes));
  for (char& c : line)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

std::string ListenError(int error, const std::string& host, int port, absl::string_view flag) {
  if (error == EADDRINUSE)
    return absl::StrCat("port ", port, " is taken; choose another with ", flag, " (0: any)");
  if (error == EACCES)
    return absl::StrCat("port ", port, " needs privileges; choose one above 1023 with ", flag);
  return absl::StrCat("cannot listen on ", JoinHostPort(host, port), " (", flag,
                      "): ", strerror(error));
}

}  // namespace echelon::serve
