// ATen's operators that give a row other bits in other company, and how to run them so that they
// do not (tests/ops/invariance_test.cc tells which these are).
#ifndef ECHELON_RUNTIME_OPS_INVARIANT_H_
#define ECHELON_RUNTIME_OPS_INVARIANT_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <string_view>

namespace echelon::ops {

using UnaryOperator = std::function<at::Tensor(const at::Tensor&)>;

// Whether the operator ("aten::silu") takes one tensor, element by element, and computes the last
// few elements of what a thread is given otherwise (by the C library) than those before them (by
// vectors): an element's bits then depend on how many there are.
bool HasVariantTail(std::string_view name);

// op(x) for such an operator: by pieces that one thread takes and that fill whole vectors.
// The result is contiguous.
at::Tensor RunElementwise(const at::Tensor& x, const UnaryOperator& op);

using BinaryOperator = std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>;

// Whether the operator ("aten::polar", "aten::mul") takes two tensors, element by element, and
// computes the last few elements of a complex result otherwise.
bool HasVariantComplexTail(std::string_view name);

// op(x, y) for such an operator, likewise; they are broadcast.
at::Tensor RunElementwise(const at::Tensor& x, const at::Tensor& y, const BinaryOperator& op);

}  // namespace echelon::ops

#endif  // ECHELON_RUNTIME_OPS_INVARIANT_H_
