#include "runtime/weights/safetensors.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/tensor/tensor.h"

namespace echelon::weights {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr int kMaxDepth = 8;                       // a header is three deep

const std::map<std::string, DType>& DTypes() {
  static const auto* table = new std::map<std::string, DType>{
      {"BOOL", DType::kBool}, {"U8", DType::kU8},          {"I8", DType::kI8},
      {"I16", DType::kI16},   {"I32", DType::kI32},        {"I64", DType::kI64},
      {"F16", DType::kF16},   {"BF16", DType::kBF16},      {"F32", DType::kF32},
      {"F64", DType::kF64},   {"U16", DType::kU16},        {"U32", DType::kU32},
      {"U64", DType::kU64},   {"F8_E4M3", DType::kF8E4M3}, {"F8_E5M2", DType::kF8E5M2}};
  return *table;
}

absl::StatusOr<SafeTensor> ParseEntry(const std::string& where, const Json& entry,
                                      uint64_t data_offset, uint64_t file_bytes) {
  const auto invalid = [&](auto... parts) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": ", parts...));
  };
  const auto is_count = [](const Json& n) {
    return n.is_number_unsigned() && n.get<uint64_t>() <= INT64_MAX;
  };
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets"))
    return invalid("lacks dtype, shape or data_offsets");
  const Json &dtype = entry["dtype"], &shape = entry["shape"], &offsets = entry["data_offsets"];
  if (!dtype.is_string() || !DTypes().contains(dtype))
    return invalid("dtype ", dtype.dump(), " is not known");
  if (!shape.is_array() || !std::all_of(shape.begin(), shape.end(), is_count))
    return invalid("shape is no list of sizes");
  if (!offsets.is_array() || offsets.size() != 2 || !is_count(offsets[0]) || !is_count(offsets[1]))
    return invalid("data_offsets is no pair of numbers");
  SafeTensor tensor{.dtype = DTypes().at(dtype), .shape = shape};
  const uint64_t begin = offsets[0], end = offsets[1], data_bytes = file_bytes - data_offset;
  if (begin > end || end > data_bytes)
    return invalid("bytes ", begin, " to ", end, " lie outside the file's ", data_bytes,
                   " bytes of data");
  const int64_t elements = ElementsOf(tensor.shape);
  uint64_t wanted = 0;
  if (elements < 0 ||
      __builtin_mul_overflow(static_cast<uint64_t>(elements), ElementBytes(tensor.dtype),
                             &wanted) ||
      wanted != end - begin)
    return invalid("shape ", ShapeText(tensor.shape), " of ", std::string(Name(tensor.dtype)),
                   " does not fit its ", end - begin, " bytes");
  tensor.offset = data_offset + begin;
  tensor.nbytes = end - begin;
  return tensor;
}

}  // namespace

// nlohmann keeps the last of two equal keys; a file that has them is broken, so the parse itself
// must see it.
absl::StatusOr<Json> ParseObject(const std::string& what, const std::string& text) {
  std::vector<std::set<std::string>> keys;
  std::string problem;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) problem = "is nested too deep";
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second)
      problem =
          absl::StrCat("names ", absl::Utf8SafeCHexEscape(parsed.get<std::string>()), " twice");
    return true;
  };
  Json json = Json::parse(text, watch, /*allow_exceptions=*/false);
  if (problem.empty() && !json.is_object()) problem = "is no JSON object";
  if (!problem.empty()) return absl::InvalidArgumentError(absl::StrCat(what, " ", problem));
  return json;
}

absl::StatusOr<std::map<std::string, SafeTensor>> ParseSafetensorsHeader(const std::string& path,
                                                                         const std::string& json,
                                                                         uint64_t data_offset,
                                                                         uint64_t file_bytes) {
  if (data_offset > file_bytes)
    return absl::InvalidArgumentError(absl::StrCat(path, ": truncated in its header"));
  const absl::StatusOr<Json> entries =
      ParseObject(absl::StrCat(path, ": the safetensors header"), json);
  if (!entries.ok()) return entries.status();
  std::map<std::string, SafeTensor> tensors;
  std::vector<std::tuple<uint64_t, uint64_t, std::string>> spans;
  for (const auto& [name, entry] : entries->items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<SafeTensor> tensor =
        ParseEntry(absl::StrCat(path, ": tensor ", absl::Utf8SafeCHexEscape(name)), entry,
                   data_offset, file_bytes);
    if (!tensor.ok()) return tensor.status();
    spans.emplace_back(tensor->offset, tensor->nbytes, name);
    tensors.emplace(name, *std::move(tensor));
  }
  std::sort(spans.begin(), spans.end());
  uint64_t end = data_offset;
  for (const auto& [offset, nbytes, name] : spans) {
    if (offset != end)
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": tensor ", absl::Utf8SafeCHexEscape(name),
          offset < end ? " overlaps" : " leaves a gap after", " the tensor before it"));
    end = offset + nbytes;
  }
  if (end != file_bytes)
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", file_bytes - end, " bytes of its data belong to no tensor"));
  return tensors;
}

absl::StatusOr<std::map<std::string, SafeTensor>> ReadSafetensorsHeader(const std::string& path) {
  std::error_code error;
  const uint64_t file_bytes = std::filesystem::file_size(path, error);
  if (error)
    return absl::NotFoundError(absl::StrCat(path, ": cannot be opened: ", error.message()));
  const std::unique_ptr<WeightSource> file = LocalFiles();
  uint64_t header_bytes = 0;
  if (file_bytes < sizeof header_bytes)
    return absl::InvalidArgumentError(absl::StrCat(path, ": too short to be a safetensors file"));
  absl::Status read =
      file->Read(path, 0, {reinterpret_cast<std::byte*>(&header_bytes), sizeof header_bytes});
  if (!read.ok()) return read;
  if (header_bytes > kMaxHeaderBytes || header_bytes > file_bytes - sizeof header_bytes)
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": claims a header of ", header_bytes,
                     " bytes; the file is no safetensors or truncated"));
  std::string json(header_bytes, ' ');
  read = file->Read(path, sizeof header_bytes,
                    {reinterpret_cast<std::byte*>(json.data()), json.size()});
  if (!read.ok()) return read;
  return ParseSafetensorsHeader(path, json, sizeof header_bytes + header_bytes, file_bytes);
}

}  // namespace echelon::weights
