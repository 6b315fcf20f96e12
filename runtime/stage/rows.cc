#include "runtime/stage/rows.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace echelon::stage {
namespace {

// Copies a strided tensor element by element in row-major order; `to` moves on.
void CopyStrided(const Tensor& from, size_t dimension, const std::byte* at, size_t element_bytes,
                 std::byte** to) {
  if (dimension == from.shape.size()) {
    std::memcpy(*to, at, element_bytes);
    *to += element_bytes;
    return;
  }
  for (int64_t i = 0; i < from.shape[dimension]; ++i)
    CopyStrided(from, dimension + 1,
                at + i * from.strides[dimension] * static_cast<int64_t>(element_bytes),
                element_bytes, to);
}

int64_t RowBytes(const Tensor& tensor) {
  return tensor.shape[0] == 0 ? 0 : static_cast<int64_t>(tensor.nbytes) / tensor.shape[0];
}

}  // namespace

Tensor RowMajor(Tensor tensor) {
  if (tensor.strides.empty()) return tensor;
  Tensor copy = Tensor::Empty(tensor.dtype, tensor.shape);
  std::byte* to = copy.data;
  CopyStrided(tensor, 0, tensor.data, ElementBytes(tensor.dtype), &to);
  return copy;
}

Tensor Copy(const Tensor& tensor) {
  Tensor copy = Tensor::Empty(tensor.dtype, tensor.shape);
  copy.strides = tensor.strides;
  if (tensor.nbytes > 0) std::memcpy(copy.data, tensor.data, tensor.nbytes);
  return copy;
}

Tensor Aligned(Tensor tensor) {
  constexpr uintptr_t kAlign = 64;
  return reinterpret_cast<uintptr_t>(tensor.data) % kAlign == 0 ? std::move(tensor) : Copy(tensor);
}

Tensor Rows(const Tensor& tensor, int64_t first, int64_t count) {
  const int64_t row_bytes = RowBytes(tensor);
  Tensor rows = tensor;
  rows.shape[0] = count;
  rows.data += first * row_bytes;
  rows.nbytes = static_cast<size_t>(count * row_bytes);
  return rows;
}

absl::Status PutRows(const Tensor& given, int64_t first, int64_t rows, Tensor* whole) {
  if (first == 0 && !given.shape.empty() && given.shape[0] == rows) {
    *whole = RowMajor(given);
    return absl::OkStatus();
  }
  const Tensor part = RowMajor(given);
  if (part.shape.empty() || first + part.shape[0] > rows)
    return absl::InternalError(absl::StrCat("a micro-batch's result of shape ",
                                            ShapeText(part.shape), " does not fit row ", first,
                                            " of ", rows));
  std::vector<int64_t> shape = part.shape;
  shape[0] = rows;
  if (!whole->owner) *whole = Tensor::Empty(part.dtype, shape);
  if (whole->shape != shape || whole->dtype != part.dtype)
    return absl::InternalError(absl::StrCat("micro-batches disagree: ", ShapeText(part.shape),
                                            " does not fit ", ShapeText(whole->shape)));
  if (part.nbytes > 0) std::memcpy(whole->data + first * RowBytes(part), part.data, part.nbytes);
  return absl::OkStatus();
}

}  // namespace echelon::stage
