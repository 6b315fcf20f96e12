#include "runtime/ops/experts.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/ops/expert_rows.h"
#include "runtime/ops/lanes.h"

namespace echelon::ops {
namespace {

constexpr int64_t kColumnsAPiece = 64;  // of a matrix: what a thread takes at a time

float At(const void* from, DType dtype, int64_t index) {
  return dtype == DType::kBF16 ? ToFloat(static_cast<const uint16_t*>(from)[index])
                               : static_cast<const float*>(from)[index];
}

float Round(float value, DType dtype) {
  return dtype == DType::kBF16 ? ToFloat(ToBf16(value)) : value;
}

// The (token, slot) pairs by expert; an expert's pairs are rows that follow each other.
struct Routing {
  std::vector<int64_t> pairs;          // token * chosen + slot, a row each
  std::vector<int64_t> row_of;         // the row of each pair
  std::vector<int64_t> experts, ends;  // with rows; the row behind each one's last
};

Routing Route(const Experts& call) {
  Routing routing;
  const int64_t pairs = call.tokens * call.chosen;
  std::vector<int64_t> next(call.experts + 1, 0);
  for (int64_t pair = 0; pair < pairs; ++pair) ++next[call.index[pair] + 1];
  for (int64_t expert = 0; expert < call.experts; ++expert) {
    const bool is_used = next[expert + 1] > 0;
    next[expert + 1] += next[expert];
    if (!is_used) continue;
    routing.experts.push_back(expert);
    routing.ends.push_back(next[expert + 1]);
  }
  routing.pairs.resize(pairs);
  routing.row_of.resize(pairs);
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int64_t row = next[call.index[pair]]++;
    routing.pairs[row] = pair;
    routing.row_of[pair] = row;
  }
  return routing;
}

// All rows through their expert's matrix, and its bias. x: [rows][inputs rounded up to vectors].
std::vector<float> Linear(const Experts& call, const ExpertMatrices& matrices,
                          const Routing& routing, const std::vector<float>& x,
                          const ParallelFor& parallel_for) {
  std::vector<float> y(routing.pairs.size() * matrices.outputs);
  const int64_t element_bytes = call.dtype == DType::kBF16 ? 2 : 4;
  const int64_t pieces = (matrices.outputs + kColumnsAPiece - 1) / kColumnsAPiece;
  const int64_t x_stride = StrideOf(matrices.inputs);
  const auto piece = [&](int64_t which) {
    const int64_t i = which / pieces, expert = routing.experts[i];
    const int64_t first = i == 0 ? 0 : routing.ends[i - 1], rows = routing.ends[i] - first;
    const int64_t begin = which % pieces * kColumnsAPiece;
    const int64_t end = std::min(begin + kColumnsAPiece, matrices.outputs);
    float* to = y.data() + first * matrices.outputs;
    Multiply({.x = x.data() + first * x_stride,
              .rows = rows,
              .x_stride = x_stride,
              .w = static_cast<const std::byte*>(matrices.data) +
                   expert * matrices.expert_stride * element_bytes,
              .dtype = call.dtype,
              .inputs = matrices.inputs,
              .outputs = matrices.outputs,
              .input_stride = matrices.input_stride,
              .output_stride = matrices.output_stride,
              .begin = begin,
              .end = end,
              .y = to});
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t n = begin; n < end; ++n) {
        float& value = to[row * matrices.outputs + n];
        value = Round(value, call.dtype);
        if (matrices.bias != nullptr)
          value = Round(value + At(matrices.bias, call.dtype, expert * matrices.outputs + n),
                        call.dtype);
      }
  };
  parallel_for(static_cast<int64_t>(routing.experts.size()) * pieces,
               [&](int64_t begin, int64_t end) {
                 for (int64_t which = begin; which < end; ++which) piece(which);
               });
  return y;
}

float Act(Activation activation, float x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return 0.5F * x * (1 + std::erf(x * 0.70710678118654752440F));
    case Activation::kGeluTanh:
      return 0.5F * x * (1 + std::tanh(0.79788456080286535588F * (x + 0.044715F * x * x * x)));
    default:
      return std::isnan(x) ? x : std::max(x, 0.0F);
  }
}

float Gate(const Experts& call, float gate, float up) {
  const auto round = [&](float value) { return Round(value, call.dtype); };
  if (call.activation != Activation::kClampedSwiglu)
    return round(round(Act(call.activation, gate)) * up);
  gate = gate > call.limit ? call.limit : gate;
  up = up > call.limit ? call.limit : (up < -call.limit ? -call.limit : up);
  const float sigmoid = round(1 / (1 + std::exp(-round(gate * call.alpha))));
  return round(round(up + 1) * round(gate * sigmoid));
}

// [rows][2I] -> [rows][I rounded up to vectors]
std::vector<float> Gated(const Experts& call, const std::vector<float>& h, int64_t rows,
                         const ParallelFor& parallel_for) {
  const int64_t inner = call.gate_up.outputs / 2, stride = StrideOf(inner);
  std::vector<float> gated(rows * stride);
  parallel_for(rows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* from = h.data() + row * 2 * inner;
      for (int64_t i = 0; i < inner; ++i)
        gated[row * stride + i] = call.interleaved ? Gate(call, from[2 * i], from[2 * i + 1])
                                                   : Gate(call, from[i], from[inner + i]);
    }
  });
  return gated;
}

std::vector<float> Gather(const Experts& call, const Routing& routing) {
  const int64_t inputs = call.gate_up.inputs, stride = StrideOf(inputs);
  std::vector<float> x(routing.pairs.size() * stride);
  for (size_t row = 0; row < routing.pairs.size(); ++row) {
    const int64_t token = routing.pairs[row] / call.chosen;
    for (int64_t k = 0; k < inputs; ++k)
      x[row * stride + k] = At(call.x, call.dtype, token * inputs + k);
  }
  return x;
}

}  // namespace

std::optional<Activation> ActivationFromName(std::string_view name) {
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_pytorch_tanh") return Activation::kGeluTanh;
  if (name == "relu") return Activation::kRelu;
  if (name == "clamped_swiglu") return Activation::kClampedSwiglu;
  return std::nullopt;
}

void RunExperts(const Experts& call, const ParallelFor& parallel_for) {
  const Routing routing = Route(call);
  const auto rows = static_cast<int64_t>(routing.pairs.size());
  const std::vector<float> h =
      Linear(call, call.gate_up, routing, Gather(call, routing), parallel_for);
  const std::vector<float> y =
      Linear(call, call.down, routing, Gated(call, h, rows, parallel_for), parallel_for);
  const int64_t width = call.down.outputs;
  parallel_for(call.tokens, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token)
      for (int64_t n = 0; n < width; ++n) {
        float sum = 0;
        for (int64_t slot = 0; slot < call.chosen; ++slot) {
          const int64_t pair = token * call.chosen + slot;
          sum += Round(y[routing.row_of[pair] * width + n] * call.weight[pair], call.dtype);
        }
        if (call.dtype == DType::kBF16) {
          static_cast<uint16_t*>(call.out)[token * width + n] = ToBf16(sum);
        } else {
          static_cast<float*>(call.out)[token * width + n] = sum;
        }
      }
  });
}

}  // namespace echelon::ops
