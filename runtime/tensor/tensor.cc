#include "runtime/tensor/tensor.h"

#include <new>

#include "absl/strings/str_join.h"

namespace echelon {

Tensor Tensor::Empty(DType dtype, std::vector<int64_t> shape) {
  constexpr std::align_val_t kAlign{64};
  Tensor tensor{.dtype = dtype, .shape = std::move(shape)};
  tensor.nbytes = static_cast<size_t>(tensor.elements()) * ElementBytes(dtype);
  tensor.data = static_cast<std::byte*>(::operator new(tensor.nbytes, kAlign));
  tensor.owner =
      std::shared_ptr<void>(tensor.data, [](void* data) { ::operator delete(data, kAlign); });
  return tensor;
}

int64_t Tensor::elements() const { return ElementsOf(shape); }

int64_t ElementsOf(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  bool overflow = false, zero = false;
  for (const int64_t size : shape) {
    if (size < 0) return -1;
    zero |= size == 0;
    overflow |= __builtin_mul_overflow(count, size, &count);
  }
  return zero ? 0 : overflow ? -1 : count;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return shape.empty() ? "scalar" : absl::StrJoin(shape, "x");
}

}  // namespace echelon
