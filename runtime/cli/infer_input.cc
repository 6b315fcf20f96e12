#include "runtime/cli/infer_input.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <optional>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/cli/npy.h"
#include "runtime/serve/grpc_codec.h"

namespace echelon {
namespace {

constexpr int64_t kDynamicSize = 4;

uint16_t ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float FromBf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

float FromF16(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.f : 1.f;
  if (exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
}

// Good for what this file makes: normal numbers, rounded to nearest.
uint16_t ToF16(float value) {
  if (value == 0) return 0;
  const uint16_t sign = value < 0 ? 0x8000 : 0;
  int exponent = 0;
  const float fraction = std::frexp(std::fabs(value), &exponent);  // in [0.5, 1)
  if (exponent > 16) return sign | 0x7c00;
  if (exponent < -13)
    return sign | static_cast<uint16_t>(std::lrint(std::ldexp(std::fabs(value), 24)));
  const long mantissa = std::lrint(std::ldexp(fraction, 11));  // 1024 to 2048; 2048 carries over
  return sign | static_cast<uint16_t>(((exponent + 14) << 10) + (mantissa - 1024));
}

template <typename T>
void Put(Tensor* tensor, int64_t index, T value) {
  std::memcpy(tensor->data + index * sizeof(T), &value, sizeof(T));
}

template <typename T>
T Get(const Tensor& tensor, int64_t index) {
  T value;
  std::memcpy(&value, tensor.data + index * sizeof(T), sizeof(T));
  return value;
}

// False: no number of this type can be made.
bool PutNumber(Tensor* tensor, int64_t index, double value) {
  switch (tensor->dtype) {
    case DType::kBool:
      return Put(tensor, index, static_cast<uint8_t>(static_cast<int64_t>(value) & 1)), true;
    case DType::kU8:
      return Put(tensor, index, static_cast<uint8_t>(static_cast<int64_t>(value))), true;
    case DType::kI8:
      return Put(tensor, index, static_cast<int8_t>(static_cast<int64_t>(value))), true;
    case DType::kU16:
      return Put(tensor, index, static_cast<uint16_t>(static_cast<int64_t>(value))), true;
    case DType::kI16:
      return Put(tensor, index, static_cast<int16_t>(static_cast<int64_t>(value))), true;
    case DType::kU32:
      return Put(tensor, index, static_cast<uint32_t>(static_cast<int64_t>(value))), true;
    case DType::kI32:
      return Put(tensor, index, static_cast<int32_t>(static_cast<int64_t>(value))), true;
    case DType::kU64:
    case DType::kI64:
      return Put(tensor, index, static_cast<int64_t>(value)), true;
    case DType::kF16:
      return Put(tensor, index, ToF16(static_cast<float>(value))), true;
    case DType::kBF16:
      return Put(tensor, index, ToBf16(static_cast<float>(value))), true;
    case DType::kF32:
      return Put(tensor, index, static_cast<float>(value)), true;
    case DType::kF64:
      return Put(tensor, index, value), true;
    default:
      return false;
  }
}

bool IsFloat(DType dtype) {
  return dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF32 ||
         dtype == DType::kF64;
}

absl::StatusOr<Tensor> Make(absl::string_view kind, DType dtype, std::vector<int64_t> shape,
                            uint64_t seed) {
  const int64_t elements = ElementsOf(shape);
  if (elements < 0 || elements > serve::kMaxTensorBytes / static_cast<int64_t>(ElementBytes(dtype)))
    return absl::InvalidArgumentError(
        absl::StrCat("shape ", ShapeText(shape), " is more than one request can carry"));
  Tensor tensor = Tensor::Empty(dtype, std::move(shape));
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal;
  for (int64_t i = 0; i < elements; ++i) {
    double value = kind == "ones" ? 1 : 0;
    if (kind == "arange") value = static_cast<double>(i);
    if (kind == "random") value = IsFloat(dtype) ? normal(generator) : generator() % 10;
    if (!PutNumber(&tensor, i, value))
      return absl::InvalidArgumentError(
          absl::StrCat("numbers of type ", std::string(Name(dtype)), " must come from a file"));
  }
  return tensor;
}

bool ParseShape(absl::string_view text, std::vector<int64_t>* shape) {
  if (text == "scalar") return true;
  for (const absl::string_view part : absl::StrSplit(text, 'x')) {
    int64_t size = -1;
    if (!absl::SimpleAtoi(part, &size) || size < 0 || shape->size() == 16) return false;
    shape->push_back(size);
  }
  return true;
}

// "random:4x128:7"; null: not of this form, so a file.
std::optional<absl::StatusOr<Tensor>> ParseMade(absl::string_view text, DType dtype) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  if (parts[0] != "random" && parts[0] != "arange" && parts[0] != "zeros" && parts[0] != "ones")
    return std::nullopt;
  std::vector<int64_t> shape;
  uint64_t seed = 0;
  if (parts.size() < 2 || parts.size() > 3 || !ParseShape(parts[1], &shape) ||
      (parts.size() == 3 && !absl::SimpleAtoi(parts[2], &seed)))
    return absl::InvalidArgumentError(
        absl::StrCat("write ", parts[0], ":SHAPE[:SEED], as in ", parts[0], ":4x128"));
  return Make(parts[0], dtype, std::move(shape), seed);
}

absl::StatusOr<NamedTensor> MakeInput(const std::string& argument,
                                      const std::vector<InputSpec>& specs) {
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(argument, absl::MaxSplits('=', 1));
  const auto& [name, text] = parts;
  const InputSpec* spec = nullptr;
  for (const InputSpec& each : specs)
    if (each.name == name) spec = &each;
  if (spec == nullptr || text.empty())
    return absl::InvalidArgumentError(absl::StrCat(
        "--input ", argument, ": ",
        text.empty() ? "write NAME=FILE.npy or NAME=random:SHAPE" : "the model has no such input",
        "; its inputs are ", absl::StrJoin(specs, ", ", [](std::string* out, const InputSpec& s) {
          absl::StrAppend(out, s.name);
        })));
  auto made = ParseMade(text, spec->dtype);
  absl::StatusOr<Tensor> tensor = made ? *std::move(made) : ReadNpy(text);
  if (!tensor.ok())
    return absl::Status(tensor.status().code(),
                        absl::StrCat("--input ", name, ": ", tensor.status().message()));
  return NamedTensor{name, *std::move(tensor)};
}

}  // namespace

absl::StatusOr<std::vector<NamedTensor>> MakeInputs(const std::vector<std::string>& arguments,
                                                    const std::vector<InputSpec>& specs) {
  std::vector<NamedTensor> inputs;
  for (const std::string& argument : arguments) {
    auto input = MakeInput(argument, specs);
    if (!input.ok()) return input.status();
    inputs.push_back(*std::move(input));
  }
  if (!arguments.empty()) return inputs;
  for (const InputSpec& spec : specs) {
    std::vector<int64_t> shape = spec.shape;
    for (int64_t& size : shape)
      if (size < 0) size = kDynamicSize;
    auto tensor = Make("random", spec.dtype, std::move(shape), inputs.size());
    if (!tensor.ok())
      return absl::Status(tensor.status().code(),
                          absl::StrCat("input ", spec.name, ": ", tensor.status().message()));
    inputs.push_back({spec.name, *std::move(tensor)});
  }
  return inputs;
}

std::string ElementText(const Tensor& tensor, int64_t index) {
  switch (tensor.dtype) {
    case DType::kBool:
      return Get<uint8_t>(tensor, index) != 0 ? "true" : "false";
    case DType::kU8:
      return absl::StrCat(Get<uint8_t>(tensor, index));
    case DType::kI8:
      return absl::StrCat(Get<int8_t>(tensor, index));
    case DType::kU16:
      return absl::StrCat(Get<uint16_t>(tensor, index));
    case DType::kI16:
      return absl::StrCat(Get<int16_t>(tensor, index));
    case DType::kU32:
      return absl::StrCat(Get<uint32_t>(tensor, index));
    case DType::kI32:
      return absl::StrCat(Get<int32_t>(tensor, index));
    case DType::kU64:
      return absl::StrCat(Get<uint64_t>(tensor, index));
    case DType::kI64:
      return absl::StrCat(Get<int64_t>(tensor, index));
    case DType::kF16:
      return absl::StrCat(FromF16(Get<uint16_t>(tensor, index)));
    case DType::kBF16:
      return absl::StrCat(FromBf16(Get<uint16_t>(tensor, index)));
    case DType::kF32:
      return absl::StrCat(Get<float>(tensor, index));
    case DType::kF64:
      return absl::StrCat(Get<double>(tensor, index));
    case DType::kC64:
      return absl::StrCat(Get<float>(tensor, 2 * index), "+", Get<float>(tensor, 2 * index + 1),
                          "i");
    case DType::kC128:
      return absl::StrCat(Get<double>(tensor, 2 * index), "+", Get<double>(tensor, 2 * index + 1),
                          "i");
    default:
      return absl::StrCat("0x", absl::Hex(Get<uint8_t>(tensor, index)));
  }
}

}  // namespace echelon
