#include "runtime/ops/invariant.h"

#include <ATen/Parallel.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "runtime/ops/expert_rows.h"

namespace echelon::ops {
namespace {

constexpr int64_t kVectors = 128;       // elements: whole vectors, whatever the dtype and processor
constexpr int64_t kPiece = 1 << 14;     // elements: below what ATen shares out to threads
constexpr int64_t kVector = 16;         // elements of a row are summed so many at a time
constexpr int64_t kColumnsAPiece = 64;  // of a matrix: what a thread takes at a time

}  // namespace

bool HasVariantTail(std::string_view name) {
  static constexpr auto kNames = std::to_array<std::string_view>(
      {"aten::acos",  "aten::asin",  "aten::atan",    "aten::celu",        "aten::cos",
       "aten::cosh",  "aten::elu",   "aten::erf",     "aten::erfc",        "aten::exp",
       "aten::exp2",  "aten::expm1", "aten::gelu",    "aten::log",         "aten::log10",
       "aten::log1p", "aten::log2",  "aten::logit",   "aten::log_sigmoid", "aten::mish",
       "aten::pow",   "aten::rsqrt", "aten::sigmoid", "aten::silu",        "aten::sin",
       "aten::sinh",  "aten::sqrt",  "aten::tan",     "aten::tanh",        "aten::softplus"});
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

at::Tensor RunElementwise(const at::Tensor& x, const UnaryOperator& op) {
  const at::Tensor flat = x.contiguous().view({-1});
  const int64_t size = flat.size(0);
  const bool is_one_piece = size <= kPiece && size % kVectors == 0;  // none at all too
  if (is_one_piece) return op(x.contiguous());
  at::Tensor out;
  for (int64_t begin = 0; begin < size; begin += kPiece) {
    const int64_t end = std::min(begin + kPiece, size), lacking = (begin - end) % kVectors;
    at::Tensor piece = flat.slice(0, begin, end);
    if (lacking != 0) piece = at::constant_pad_nd(piece, {0, kVectors + lacking});
    const at::Tensor done = op(piece);
    if (!out.defined()) out = at::empty({size}, done.options());
    out.slice(0, begin, end).copy_(done.slice(0, 0, end - begin));
  }
  return out.view(x.sizes());
}

at::Tensor LinearRows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (x.scalar_type() != at::kFloat) {
    return at::linear(x, weight, bias.defined() ? std::optional(bias) : std::nullopt).contiguous();
  }
  TORCH_CHECK(weight.dim() == 2 && weight.scalar_type() == at::kFloat &&
                  x.size(-1) == weight.size(1) && (weight.stride(0) == 1 || weight.stride(1) == 1),
              "linear: x is ", x.sizes(), " and the weight ", weight.sizes(), " of ",
              weight.scalar_type(), " with strides ", weight.strides());
  const int64_t inputs = weight.size(1), outputs = weight.size(0);
  const int64_t lacking = (kVector - inputs % kVector) % kVector;
  at::Tensor rows = x.reshape({-1, inputs}).contiguous();
  if (lacking != 0) rows = at::constant_pad_nd(rows, {0, lacking});
  const at::Tensor out = at::empty({rows.size(0), outputs}, x.options());
  const int64_t pieces = (outputs + kColumnsAPiece - 1) / kColumnsAPiece;
  at::parallel_for(0, pieces, 1, [&](int64_t first, int64_t last) {
    Multiply({.x = rows.const_data_ptr<float>(),
              .rows = rows.size(0),
              .x_stride = rows.size(1),
              .w = weight.const_data_ptr(),
              .dtype = DType::kF32,
              .inputs = inputs,
              .outputs = outputs,
              .input_stride = weight.stride(1),
              .output_stride = weight.stride(0),
              .begin = first * kColumnsAPiece,
              .end = std::min(last * kColumnsAPiece, outputs),
              .y = out.mutable_data_ptr<float>()});
  });
  if (bias.defined()) out.add_(bias);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = outputs;
  return out.view(shape);
}

}  // namespace echelon::ops
