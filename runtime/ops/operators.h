// The operators that an exported text model is made of beside ATen's:
//
//   echelon::attention(Tensor q, Tensor k, Tensor v, Tensor? sinks, Tensor? alibi_slopes,
//                      int layer, float scale, int window, float softcap) -> Tensor
//     q [1, H, T, D], k [1, K, T, D], v [1, K, T, E], f32 or bf16, H a multiple of K
//     -> [1, T, H, E], contiguous, of q's dtype. The step in progress says whose the T packed
//     tokens are. Keys and values go into its cache first; then each token sees those of its own
//     sequence up to itself (window 0: all; else the last `window`).
//     score = dot * scale; softcap 0: none, else tanh(score / softcap) * softcap;
//     plus alibi_slopes[h] * (key position - query position). Softmax in f32; sinks[h] is one more
//     score in its denominator.
//
//   echelon::experts(Tensor x, Tensor index, Tensor weight, Tensor gate_up, Tensor? gate_up_bias,
//                    Tensor down, Tensor? down_bias, bool transposed, str activation,
//                    bool interleaved, float alpha, float limit) -> Tensor
//     x [T, C], index i64 [T, k], weight [T, k]; gate_up [n, 2I, C], down [n, C, I], transposed:
//     [n, C, 2I], [n, I, C]; biases [n, 2I], [n, C] -> [T, C]: the sum over the k experts, in the
//     order of index's columns, of weight * down(gate(gate_up(x))).
//     Gates (HF transformers' names): silu, gelu, gelu_pytorch_tanh, relu: act(gate) * up;
//     clamped_swiglu: (up + 1) * gate * sigmoid(alpha * gate), both clamped by limit.
//     interleaved: gate and up are the even and odd outputs, else the first and second half.
//
// A token's result is bitwise the same whatever comes with it in the step, however its prompt was
// cut into chunks, and whichever blocks it was given.
#ifndef ECHELON_RUNTIME_OPS_OPERATORS_H_
#define ECHELON_RUNTIME_OPS_OPERATORS_H_

#include "runtime/kv/kv_cache.h"
#include "runtime/step/step.h"

namespace echelon::ops {

// Makes torch's dispatcher know the operators, for CPU and Meta. Idempotent, thread-safe; call it
// before operators are looked up.
void RegisterOperators();

// What an operator cannot be told by the graph. The cache's blocks hold what the step's sequences
// say they do, and the step has passed step::Check for that cache.
struct StepContext {
  const step::Step* step = nullptr;
  kv::KvCache* cache = nullptr;  // needed by echelon::attention
};

// While it lives, operators called from this thread are part of this step. `context` must outlive
// it, unchanged; c10::Error where the step does not fit the cache. Without one echelon::attention
// throws c10::Error, as it does for what does not fit.
class Running {
 public:
  explicit Running(const StepContext* context);
  ~Running();
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  const StepContext* const outer_;
};

}  // namespace echelon::ops

#endif  // ECHELON_RUNTIME_OPS_OPERATORS_H_
