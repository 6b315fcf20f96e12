// Element types, as every part of the runtime names them. The numbers go over the wire: never
// change one.
#ifndef ECHELON_RUNTIME_TENSOR_DTYPE_H_
#define ECHELON_RUNTIME_TENSOR_DTYPE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace echelon {

enum class DType : uint8_t {
  kBool = 1,
  kU8 = 2,
  kI8 = 3,
  kI16 = 4,
  kI32 = 5,
  kI64 = 6,
  kF16 = 7,
  kBF16 = 8,
  kF32 = 9,
  kF64 = 10,
  kU16 = 11,
  kU32 = 12,
  kU64 = 13,
  kF8E4M3 = 14,
  kF8E5M2 = 15,
  kC64 = 16,
  kC128 = 17,
};

// Bytes of one element; 0 for a number that is no DType (as an untrusted one may be).
size_t ElementBytes(DType dtype);

// "f32", "bf16", "i64", "bool"...: what people type and what the printer shows; "?" for no DType.
std::string_view Name(DType dtype);
std::optional<DType> DTypeFromName(std::string_view name);

}  // namespace echelon

#endif  // ECHELON_RUNTIME_TENSOR_DTYPE_H_
