// Between our tensors and torch's, without a copy.
#ifndef ECHELON_RUNTIME_EXEC_CONVERT_H_
#define ECHELON_RUNTIME_EXEC_CONVERT_H_

#include <ATen/core/Tensor.h>

#include <optional>

#include "runtime/tensor/tensor.h"

namespace echelon::exec {

c10::ScalarType ToTorch(DType dtype);
std::optional<DType> FromTorch(c10::ScalarType dtype);

// Shares the memory: the at::Tensor keeps tensor.owner alive.
at::Tensor ToTorch(const Tensor& tensor);

// Shares the memory when the tensor is dense (any order of strides); copies otherwise, keeping the
// order of strides, since a view in the next stage may rely on it. Precondition: a CPU tensor of a
// dtype of ours.
Tensor FromTorch(const at::Tensor& tensor);

}  // namespace echelon::exec

#endif  // ECHELON_RUNTIME_EXEC_CONVERT_H_
