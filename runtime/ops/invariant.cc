#include "runtime/ops/invariant.h"

#include <ATen/ops/broadcast_tensors.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>

namespace echelon::ops {
namespace {

constexpr int64_t kVectors = 128;    // elements: whole vectors, whatever the dtype and processor
constexpr int64_t kPiece = 1 << 14;  // elements: below what ATen shares out to threads

// run(begin, end, lacking) computes elements [begin, end), of inputs that lack `lacking` elements
// of whole vectors.
template <typename Run>
at::Tensor RunInPieces(int64_t size, const Run& run) {
  at::Tensor out;
  for (int64_t begin = 0; begin < size; begin += kPiece) {
    const int64_t end = std::min(begin + kPiece, size), ragged = (end - begin) % kVectors;
    const at::Tensor done = run(begin, end, ragged == 0 ? 0 : kVectors - ragged);
    if (!out.defined()) out = at::empty({size}, done.options());
    out.slice(0, begin, end).copy_(done.slice(0, 0, end - begin));
  }
  return out;
}

at::Tensor Piece(const at::Tensor& flat, int64_t begin, int64_t end, int64_t lacking) {
  const at::Tensor piece = flat.slice(0, begin, end);
  return lacking == 0 ? piece : at::constant_pad_nd(piece, {0, lacking});
}

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
  return RunInPieces(size, [&](int64_t begin, int64_t end,
                               int64_t lacking) { return op(Piece(flat, begin, end, lacking)); })
      .view(x.sizes());
}

bool HasVariantComplexTail(std::string_view name) {
  return name == "aten::polar" || name == "aten::mul";
}

at::Tensor RunElementwise(const at::Tensor& x, const at::Tensor& y, const BinaryOperator& op) {
  const std::vector<at::Tensor> both = at::broadcast_tensors({x, y});
  const at::Tensor left = both[0].contiguous().view({-1}), right = both[1].contiguous().view({-1});
  if (left.numel() == 0) return op(both[0].contiguous(), both[1].contiguous());
  return RunInPieces(left.numel(),
                     [&](int64_t begin, int64_t end, int64_t lacking) {
                       return op(Piece(left, begin, end, lacking),
                                 Piece(right, begin, end, lacking));
                     })
      .view(both[0].sizes());
}

}  // namespace echelon::ops
