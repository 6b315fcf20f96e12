#include "runtime/ops/invariant.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>

namespace echelon::ops {
namespace {

constexpr int64_t kVectors = 128;    // elements: whole vectors, whatever the dtype and processor
constexpr int64_t kPiece = 1 << 14;  // elements: below what ATen shares out to threads

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

}  // namespace echelon::ops
