// Linear layers whose constant weight oneDNN lays out once, at loading. Eager PyTorch's linear
// lays it out anew in every call, which costs most of a small batch's time.
#ifndef ECHELON_RUNTIME_EXEC_PACKED_LINEAR_H_
#define ECHELON_RUNTIME_EXEC_PACKED_LINEAR_H_

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <functional>
#include <map>
#include <vector>

#include "absl/types/span.h"

namespace echelon::exec {

struct Program;

// A thread's share of a weight's outputs.
struct LinearSlice {
  at::Tensor weight;  // dense, or as oneDNN laid it out
  int64_t begin = 0, outputs = 0;
};

// Thread-safe.
class PackedLinear {
 public:
  // weight: [N, K], f32 or bf16, of any strides; it is not needed afterwards. rows_alone: a row's
  // result does not depend on how many rows come with it. Threads: as many as torch has now.
  PackedLinear(const at::Tensor& weight, bool rows_alone);

  // x: [..., K] of the weight's dtype; bias: [N] or undefined. Gives [..., N], contiguous.
  // Throws c10::Error as torch's linear does.
  at::Tensor Run(const at::Tensor& x, const at::Tensor& bias) const;

 private:
  at::ScalarType dtype_;
  int64_t outputs_, inputs_;
  bool rows_alone_;
  std::vector<LinearSlice> slices_;  // one, but for rows_alone
};

// Each row alone, of a weight [N, K] that stays as it is, since others read it too or oneDNN cannot
// lay it out: up to twice as slow.
at::Tensor SharedLinear(const at::Tensor& weight, const at::Tensor& x, const at::Tensor& bias);

// Before oneDNN's first call in the process, which reads it: no AMX, unless the environment says
// otherwise. With AMX oneDNN sums a bf16 row in an order that depends on how many rows there are
// (16 to 31 rows of 1536 x 576 differ from 130, most other shapes likewise); without it none does.
void KeepRowsAlone();

// Whether oneDNN lays out weights of this dtype on this CPU. bf16 takes AVX-512 (bw, vl, dq) of
// x86.
bool CanPack(at::ScalarType dtype);

struct PackOptions {
  // Smaller weights are left to torch: the call itself costs more than it gains.
  int64_t least_elements = 1 << 14;
  // A row never depends on others: every linear layer whose weight is not packed is a SharedLinear.
  bool rows_alone = false;
};

// Packs each of these weights (slot of `frame` -> its bytes) that nothing in the program but
// linear, addmm and mm read, and tells `release` the bytes that are not needed any more.
void PackLinears(Program& program, const std::map<int, absl::Span<std::byte>>& weights,
                 const PackOptions& options, std::vector<c10::IValue>& frame,
                 const std::function<void(absl::Span<std::byte>)>& release);

}  // namespace echelon::exec

#endif  // ECHELON_RUNTIME_EXEC_PACKED_LINEAR_H_
