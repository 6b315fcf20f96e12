// echelon::experts without torch.
#ifndef ECHELON_RUNTIME_OPS_EXPERTS_H_
#define ECHELON_RUNTIME_OPS_EXPERTS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "runtime/tensor/dtype.h"

namespace echelon::ops {

enum class Activation { kSilu, kGelu, kGeluTanh, kRelu, kClampedSwiglu };
std::optional<Activation> ActivationFromName(std::string_view name);

// One matrix an expert, y = x W + b: element (k, n) of expert e is at
// data[e * expert_stride + k * input_stride + n * output_stride], and one of the two strides is 1.
struct ExpertMatrices {
  const void* data = nullptr;
  int64_t expert_stride = 0, input_stride = 0, output_stride = 0;
  int64_t inputs = 0, outputs = 0;
  const void* bias = nullptr;  // [experts, outputs], dense, or null
};

struct Experts {
  DType dtype = DType::kF32;  // of x, matrices, biases and out: kF32 or kBF16
  int64_t tokens = 0, experts = 0, chosen = 0;
  const void* x = nullptr;         // [tokens, gate_up.inputs]
  const int64_t* index = nullptr;  // [tokens, chosen], in 0..experts
  const float* weight = nullptr;   // [tokens, chosen]
  ExpertMatrices gate_up, down;
  Activation activation = Activation::kSilu;
  bool interleaved = false;
  float alpha = 0, limit = 0;
  void* out = nullptr;  // [tokens, down.outputs]
};

// Calls work(begin, end) for even shares of [0, size), at once if it likes.
using ParallelFor =
    std::function<void(int64_t size, const std::function<void(int64_t, int64_t)>& work)>;

// Sums in f32 in an order that depends on the sizes alone, and rounds where eager PyTorch does:
// after a linear, its bias, each step of the gate and the weight.
void RunExperts(const Experts& call, const ParallelFor& parallel_for);

}  // namespace echelon::ops

#endif  // ECHELON_RUNTIME_OPS_EXPERTS_H_
