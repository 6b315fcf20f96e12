#include "runtime/graph/tensor_meta.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/graph/expr.h"

namespace echelon::graph {
namespace {

constexpr size_t kMaxDims = 16;
constexpr int64_t kStrided = 7;

std::vector<Dim> ReadDims(JsonReader& reader, DimReader& dims, const Json& meta, const char* key) {
  const Json& sizes = reader.Array(meta, key);
  if (sizes.size() > kMaxDims) {
    reader.Fail(absl::StrCat("a tensor of ", sizes.size(), " dimensions; at most ", kMaxDims));
    return {};
  }
  std::vector<Dim> read;
  for (const Json& size : sizes) read.push_back(dims.Read(reader, size));
  return read;
}

}  // namespace

DType ReadDType(JsonReader& reader, const Json& number) {
  static const auto* const table = new std::map<int64_t, DType>{
      {1, DType::kU8},   {2, DType::kI8},      {3, DType::kI16},    {4, DType::kI32},
      {5, DType::kI64},  {6, DType::kF16},     {7, DType::kF32},    {8, DType::kF64},
      {10, DType::kC64}, {11, DType::kC128},   {12, DType::kBool},  {13, DType::kBF16},
      {28, DType::kU16}, {29, DType::kF8E4M3}, {30, DType::kF8E5M2}};
  const int64_t code = reader.AsInt(number, "dtype");
  const auto found = table->find(code);
  if (found != table->end()) return found->second;
  reader.Fail(absl::StrCat("dtype number ", code, " is not supported"));
  return DType::kF32;
}

Layout ReadLayout(JsonReader& reader, const Json& number) {
  const int64_t code = reader.AsInt(number, "layout");
  if (code != kStrided) reader.Fail(absl::StrCat("layout ", code, " is not strided"));
  return {};
}

MemoryFormat ReadMemoryFormat(JsonReader& reader, const Json& number) {
  const int64_t code = reader.AsInt(number, "memory format");
  if (code < 1 || code > 4) reader.Fail(absl::StrCat("memory format ", code, " is not known"));
  return static_cast<MemoryFormat>(code - 1);  // in the schema's order
}

Device ReadDevice(JsonReader& reader, const Json& device) {
  std::string text = reader.String(device, "type");
  if (const Json* index = reader.Find(device, "index")) {
    absl::StrAppend(&text, ":", reader.AsInt(*index, "index"));
  }
  return {std::move(text)};
}

Dim DimReader::Read(JsonReader& reader, const Json& size) {
  const auto [tag, value] = reader.AsUnion(size, "size");
  if (tag == "as_int") return {reader.AsInt(value, tag), ""};
  if (tag != "as_expr") {
    reader.Fail(absl::StrCat("size of unknown kind ", tag));
    return {};
  }
  const std::string& text = reader.String(value, "expr_str");
  auto found = infix_.find(text);
  if (found == infix_.end()) {
    const absl::StatusOr<Expr> expr = Expr::Parse(text);
    found = infix_.emplace(text, expr.ok() ? expr->ToString() : text).first;
  }
  Dim dim{0, found->second};
  if (const Json* hint = reader.Find(value, "hint")) {
    if (const Json* number = reader.Find(*hint, "as_int")) dim.hint = reader.AsInt(*number, "hint");
  }
  if (dim.expr.empty()) reader.Fail("an empty size expression");
  return dim;
}

TensorMeta ReadTensorMeta(JsonReader& reader, DimReader& dims, const Json& meta) {
  TensorMeta read;
  read.dtype = ReadDType(reader, reader.At(meta, "dtype"));
  ReadLayout(reader, reader.At(meta, "layout"));
  read.shape = ReadDims(reader, dims, meta, "sizes");
  read.strides = ReadDims(reader, dims, meta, "strides");
  read.storage_offset = dims.Read(reader, reader.At(meta, "storage_offset"));
  if (!reader.ok()) return read;
  if (read.strides.size() != read.shape.size()) reader.Fail("as many strides as sizes are needed");
  for (const Dim& size : read.shape) {
    if (size.hint < 0) reader.Fail(absl::StrCat("a negative size, ", size.hint));
  }
  if (read.storage_offset.hint < 0) reader.Fail("a negative storage offset");
  return read;
}

}  // namespace echelon::graph
