#include "runtime/tensor/dtype.h"

#include <array>

namespace echelon {
namespace {

struct Row {
  DType dtype;
  size_t bytes;
  std::string_view name;
};

constexpr std::array<Row, 17> kRows{{{DType::kBool, 1, "bool"},
                                     {DType::kU8, 1, "u8"},
                                     {DType::kI8, 1, "i8"},
                                     {DType::kI16, 2, "i16"},
                                     {DType::kI32, 4, "i32"},
                                     {DType::kI64, 8, "i64"},
                                     {DType::kF16, 2, "f16"},
                                     {DType::kBF16, 2, "bf16"},
                                     {DType::kF32, 4, "f32"},
                                     {DType::kF64, 8, "f64"},
                                     {DType::kU16, 2, "u16"},
                                     {DType::kU32, 4, "u32"},
                                     {DType::kU64, 8, "u64"},
                                     {DType::kF8E4M3, 1, "f8e4m3"},
                                     {DType::kF8E5M2, 1, "f8e5m2"},
                                     {DType::kC64, 8, "c64"},
                                     {DType::kC128, 16, "c128"}}};

// Rows stand in the order of their numbers, from 1.
const Row* Find(DType dtype) {
  const size_t index = static_cast<size_t>(dtype) - 1;
  return index < kRows.size() ? &kRows[index] : nullptr;
}

}  // namespace

size_t ElementBytes(DType dtype) {
  const Row* row = Find(dtype);
  return row ? row->bytes : 0;
}

std::string_view Name(DType dtype) {
  const Row* row = Find(dtype);
  return row ? row->name : "?";
}

std::optional<DType> DTypeFromName(std::string_view name) {
  for (const Row& row : kRows)
    if (row.name == name) return row.dtype;
  return std::nullopt;
}

}  // namespace echelon
