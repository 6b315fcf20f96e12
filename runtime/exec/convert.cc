#include "runtime/exec/convert.h"

#include <ATen/ops/clone.h>
#include <ATen/ops/from_blob.h>

#include <array>

namespace echelon::exec {
namespace {

constexpr std::array<std::pair<DType, c10::ScalarType>, 17> kPairs{
    {{DType::kBool, c10::ScalarType::Bool},
     {DType::kU8, c10::ScalarType::Byte},
     {DType::kI8, c10::ScalarType::Char},
     {DType::kI16, c10::ScalarType::Short},
     {DType::kI32, c10::ScalarType::Int},
     {DType::kI64, c10::ScalarType::Long},
     {DType::kF16, c10::ScalarType::Half},
     {DType::kBF16, c10::ScalarType::BFloat16},
     {DType::kF32, c10::ScalarType::Float},
     {DType::kF64, c10::ScalarType::Double},
     {DType::kU16, c10::ScalarType::UInt16},
     {DType::kU32, c10::ScalarType::UInt32},
     {DType::kU64, c10::ScalarType::UInt64},
     {DType::kF8E4M3, c10::ScalarType::Float8_e4m3fn},
     {DType::kF8E5M2, c10::ScalarType::Float8_e5m2},
     {DType::kC64, c10::ScalarType::ComplexFloat},
     {DType::kC128, c10::ScalarType::ComplexDouble}}};

}  // namespace

c10::ScalarType ToTorch(DType dtype) {
  for (const auto& [ours, torch] : kPairs)
    if (ours == dtype) return torch;
  return c10::ScalarType::Undefined;
}

std::optional<DType> FromTorch(c10::ScalarType dtype) {
  for (const auto& [ours, torch] : kPairs)
    if (torch == dtype) return ours;
  return std::nullopt;
}

at::Tensor ToTorch(const Tensor& tensor) {
  const auto options = at::TensorOptions().dtype(ToTorch(tensor.dtype));
  auto keep = [owner = tensor.owner](void*) {};
  if (tensor.strides.empty()) return at::from_blob(tensor.data, tensor.shape, keep, options);
  return at::from_blob(tensor.data, tensor.shape, tensor.strides, keep, options);
}

Tensor FromTorch(const at::Tensor& given) {
  // clone(Preserve) of a dense tensor keeps its strides; of another it makes a dense one of the
  // same order.
  const at::Tensor dense =
      given.is_non_overlapping_and_dense() && !given.is_conj() && !given.is_neg()
          ? given
          : given.resolve_conj().resolve_neg().clone(at::MemoryFormat::Preserve);
  Tensor tensor{.dtype = *FromTorch(dense.scalar_type()), .shape = dense.sizes().vec()};
  if (!dense.is_contiguous()) tensor.strides = dense.strides().vec();
  tensor.data = static_cast<std::byte*>(dense.data_ptr());
  tensor.nbytes = dense.nbytes();
  tensor.owner = std::make_shared<at::Tensor>(dense);
  return tensor;
}

}  // namespace echelon::exec
