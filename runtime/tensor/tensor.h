// A dense tensor in host memory with shared ownership: what links carry, front doors take and
// stages exchange. No torch here; runtime/exec wraps it as at::Tensor without a copy, and back.
#ifndef ECHELON_RUNTIME_TENSOR_TENSOR_H_
#define ECHELON_RUNTIME_TENSOR_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/tensor/dtype.h"

namespace echelon {

struct Tensor {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // elements
  std::vector<int64_t>
      strides;  // elements; empty means row-major. Always dense: a permutation of row-major
  std::shared_ptr<void> owner;  // keeps data alive
  std::byte* data = nullptr;
  size_t nbytes = 0;  // elements x ElementBytes(dtype)

  // Uninitialised row-major memory, 64-byte aligned. Precondition: shape is non-negative and its
  // bytes fit memory.
  static Tensor Empty(DType dtype, std::vector<int64_t> shape);

  int64_t elements() const;
};

// Elements of a shape; -1 when a size is negative or the product overflows int64.
int64_t ElementsOf(const std::vector<int64_t>& shape);

std::string ShapeText(const std::vector<int64_t>& shape);  // "4x128"; "scalar" for no dimensions

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

}  // namespace echelon

#endif  // ECHELON_RUNTIME_TENSOR_TENSOR_H_
