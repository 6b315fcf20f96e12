#include "runtime/ops/operators.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <optional>

#include "runtime/ops/attention.h"
#include "runtime/ops/experts.h"

namespace echelon::ops {
namespace {

thread_local const StepContext* current = nullptr;

DType DTypeOf(const at::Tensor& tensor, const char* what) {
  TORCH_CHECK(tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16, what,
              " is ", tensor.scalar_type(),
              "; echelon's operators compute in float32 and bfloat16");
  return tensor.scalar_type() == at::kFloat ? DType::kF32 : DType::kBF16;
}

at::Tensor DenseRows(const at::Tensor& tensor) {
  return tensor.stride(-1) == 1 || tensor.size(-1) == 1 ? tensor : tensor.contiguous();
}

at::Tensor Floats(const std::optional<at::Tensor>& tensor, int64_t heads, const char* what) {
  if (!tensor.has_value()) return {};
  TORCH_CHECK(tensor->dim() == 1 && tensor->size(0) == heads, "attention: ", what, " is ",
              tensor->sizes(), " for ", heads, " heads");
  return tensor->to(at::kFloat).contiguous();
}

// The step's metadata has passed step::Check, but the cache may be another: nothing is written
// before this holds.
void CheckBlocks(const step::Step& step, const kv::Options& cache) {
  for (const step::Sequence& sequence : step.sequences) {
    const int64_t end = int64_t{sequence.start} + sequence.count;
    const auto held = static_cast<int64_t>(sequence.blocks.size()) * cache.block_tokens;
    TORCH_CHECK(sequence.start >= 0 && sequence.count > 0 && held >= end, "attention: sequence ",
                sequence.id, " has blocks for ", held, " of its ", end, " tokens");
    for (const int32_t block : sequence.blocks)
      TORCH_CHECK(block >= 0 && block < cache.blocks, "attention: block ", block, " of sequence ",
                  sequence.id, " is none of the cache's ", cache.blocks);
  }
}

// The graph may give another number of tokens than the step has.
void CheckTokens(const step::Step& step, int64_t tokens) {
  int64_t count = 0;
  for (const step::Sequence& sequence : step.sequences) count += sequence.count;
  TORCH_CHECK(count == tokens, "attention: the graph gives ", tokens, " tokens, the step has ",
              count);
}

void WriteStep(const step::Step& step, const kv::KvCache::Layer& layer, const at::Tensor& k,
               const at::Tensor& v, kv::KvCache& cache) {
  const DType dtype = DTypeOf(k, "attention: k");
  const auto element_bytes = static_cast<int64_t>(k.element_size());
  const auto* keys = static_cast<const std::byte*>(k.const_data_ptr());
  const auto* values = static_cast<const std::byte*>(v.const_data_ptr());
  const int32_t block_tokens = cache.options().block_tokens;
  int64_t row = 0;
  for (const step::Sequence& sequence : step.sequences)
    for (int32_t i = 0; i < sequence.count; ++i, ++row)
      for (int32_t head = 0; head < layer.shape.kv_heads; ++head) {
        const int32_t position = sequence.start + i;
        cache.Write(layer, sequence.blocks[position / block_tokens], position % block_tokens, head,
                    dtype, keys + element_bytes * (head * k.stride(1) + row * k.stride(2)),
                    values + element_bytes * (head * v.stride(1) + row * v.stride(2)));
      }
}

void CheckShapes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const kv::LayerShape& shape) {
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && v.dim() == 4 && q.size(0) == 1 && k.size(0) == 1 &&
                  v.size(0) == 1 && k.size(2) == q.size(2) && v.size(2) == q.size(2) &&
                  k.size(3) == q.size(3) && v.size(1) == k.size(1) && k.size(1) > 0 &&
                  q.size(1) % k.size(1) == 0,
              "attention: q ", q.sizes(), ", k ", k.sizes(), " and v ", v.sizes(),
              " do not fit together");
  TORCH_CHECK(
      k.size(1) == shape.kv_heads && k.size(3) == shape.key_dim && v.size(3) == shape.value_dim,
      "attention: layer ", shape.layer, " of the cache has ", shape.kv_heads, " heads of ",
      shape.key_dim, " and ", shape.value_dim, ", k is ", k.sizes(), " and v ", v.sizes(), "");
  TORCH_CHECK(k.scalar_type() == q.scalar_type() && v.scalar_type() == q.scalar_type(),
              "attention: q, k and v differ in dtype");
}

at::Tensor RunAttention(const at::Tensor& q_given, const at::Tensor& k_given,
                        const at::Tensor& v_given, const std::optional<at::Tensor>& sinks_given,
                        const std::optional<at::Tensor>& slopes_given, int64_t layer_number,
                        double scale, int64_t window, double softcap) {
  TORCH_CHECK(current != nullptr && current->step != nullptr && current->cache != nullptr,
              "attention: no step is in progress on this thread; a text model runs by steps, each "
              "with its sequences and a KV cache");
  kv::KvCache& cache = *current->cache;
  const step::Step& step = *current->step;
  const bool is_number = layer_number >= 0 && layer_number <= INT32_MAX;
  const kv::KvCache::Layer* layer =
      is_number ? cache.Find(static_cast<int32_t>(layer_number)) : nullptr;
  TORCH_CHECK(layer != nullptr, "attention: layer ", layer_number, " has no place in the KV cache");
  CheckShapes(q_given, k_given, v_given, layer->shape);
  TORCH_CHECK(window >= 0, "attention: window ", window);
  CheckTokens(step, q_given.size(2));
  const at::Tensor q = DenseRows(q_given), k = DenseRows(k_given), v = DenseRows(v_given);
  const at::Tensor sinks = Floats(sinks_given, q.size(1), "sinks"),
                   slopes = Floats(slopes_given, q.size(1), "alibi_slopes");
  const DType dtype = DTypeOf(q, "attention: q");
  WriteStep(step, *layer, k, v, cache);
  at::Tensor out = at::empty({1, q.size(2), q.size(1), v.size(3)}, q.options());
  const Attention call{.step = &step,
                       .cache = &cache,
                       .layer = layer,
                       .heads = static_cast<int32_t>(q.size(1)),
                       .q = q.const_data_ptr(),
                       .head_stride = q.stride(1),
                       .token_stride = q.stride(2),
                       .dtype = dtype,
                       .sinks = sinks.defined() ? sinks.const_data_ptr<float>() : nullptr,
                       .slopes = slopes.defined() ? slopes.const_data_ptr<float>() : nullptr,
                       .scale = static_cast<float>(scale),
                       .window = window,
                       .softcap = static_cast<float>(softcap),
                       .out = out.data_ptr()};
  const std::vector<AttentionPart> parts = AttentionParts(call, at::get_num_threads());
  at::parallel_for(0, static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) RunTiled(call, parts[i]);
  });
  return out;
}

at::Tensor AttentionShape(const at::Tensor& q, const at::Tensor&, const at::Tensor& v,
                          const std::optional<at::Tensor>&, const std::optional<at::Tensor>&,
                          int64_t, double, int64_t, double) {
  return at::empty({q.size(0), q.size(2), q.size(1), v.size(3)}, q.options());
}

// weights: [experts, outputs, inputs], or transposed [experts, inputs, outputs].
ExpertMatrices MatricesOf(const at::Tensor& weights, const at::Tensor& bias, bool transposed,
                          const char* what) {
  const int64_t input = transposed ? 1 : 2, output = transposed ? 2 : 1;
  TORCH_CHECK(weights.dim() == 3 && (weights.stride(1) == 1 || weights.stride(2) == 1),
              "experts: ", what, " is ", weights.sizes(), " with strides ", weights.strides(),
              "; one matrix an expert, its rows or columns dense, is needed");
  TORCH_CHECK(!bias.defined() || (bias.dim() == 2 && bias.size(0) == weights.size(0) &&
                                  bias.size(1) == weights.size(output)),
              "experts: the bias of ", what, " does not fit its ", weights.sizes(), "");
  return {.data = weights.const_data_ptr(),
          .expert_stride = weights.stride(0),
          .input_stride = weights.stride(input),
          .output_stride = weights.stride(output),
          .inputs = weights.size(input),
          .outputs = weights.size(output),
          .bias = bias.defined() ? bias.const_data_ptr() : nullptr};
}

void CheckIndex(const at::Tensor& index, int64_t experts) {
  const auto* at = index.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < index.numel(); ++i)
    TORCH_CHECK(at[i] >= 0 && at[i] < experts, "experts: expert ", at[i], " is none of ", experts);
}

at::Tensor RunExpertsOp(const at::Tensor& x_given, const at::Tensor& index_given,
                        const at::Tensor& weight_given, const at::Tensor& gate_up,
                        const std::optional<at::Tensor>& gate_up_bias, const at::Tensor& down,
                        const std::optional<at::Tensor>& down_bias, bool transposed,
                        c10::string_view activation_name, bool interleaved, double alpha,
                        double limit) {
  const auto activation = ActivationFromName({activation_name.data(), activation_name.size()});
  TORCH_CHECK(activation.has_value(), "experts: unknown activation ", activation_name);
  const at::Tensor x = x_given.contiguous(), index = index_given.contiguous(),
                   weight = weight_given.to(at::kFloat).contiguous();
  const auto dense = [](const std::optional<at::Tensor>& bias) {
    return bias.has_value() ? bias->contiguous() : at::Tensor();
  };
  const at::Tensor biases[2] = {dense(gate_up_bias), dense(down_bias)};
  Experts call{.dtype = DTypeOf(x, "experts: x"),
               .gate_up = MatricesOf(gate_up, biases[0], transposed, "gate_up"),
               .down = MatricesOf(down, biases[1], transposed, "down"),
               .activation = *activation,
               .interleaved = interleaved,
               .alpha = static_cast<float>(alpha),
               .limit = static_cast<float>(limit)};
  TORCH_CHECK(x.dim() == 2 && index.dim() == 2 && index.scalar_type() == at::kLong &&
                  index.size(0) == x.size(0) && weight.sizes() == index.sizes() &&
                  x.size(1) == call.gate_up.inputs && down.size(0) == gate_up.size(0) &&
                  call.gate_up.outputs == 2 * call.down.inputs,
              "experts: x ", x.sizes(), ", index ", index.sizes(), ", weight ", weight.sizes(),
              ", gate_up ", gate_up.sizes(), " and down ", down.sizes(), " do not fit together");
  for (const at::Tensor& tensor : {gate_up, down, biases[0], biases[1]})
    TORCH_CHECK(!tensor.defined() || tensor.scalar_type() == x.scalar_type(),
                "experts: weights are ", tensor.scalar_type(), ", x is ", x.scalar_type());
  CheckIndex(index, gate_up.size(0));
  at::Tensor out = at::empty({x.size(0), call.down.outputs}, x.options());
  call.tokens = x.size(0);
  call.experts = gate_up.size(0);
  call.chosen = index.size(1);
  call.x = x.const_data_ptr();
  call.index = index.const_data_ptr<int64_t>();
  call.weight = weight.const_data_ptr<float>();
  call.out = out.data_ptr();
  RunExperts(call, [](int64_t size, const std::function<void(int64_t, int64_t)>& work) {
    at::parallel_for(0, size, 1, work);
  });
  return out;
}

at::Tensor ExpertsShape(const at::Tensor& x, const at::Tensor&, const at::Tensor&,
                        const at::Tensor&, const std::optional<at::Tensor>&, const at::Tensor&,
                        const std::optional<at::Tensor>&, bool, c10::string_view, bool, double,
                        double) {
  return at::empty_like(x);
}

}  // namespace

void RegisterOperators() {
  // Kept for good: a library's end takes its operators away.
  static const auto* const libraries = [] {
    using torch::Library;
    auto* made = new std::vector<std::unique_ptr<Library>>();
    const auto add = [&](Library::Kind kind, std::optional<c10::DispatchKey> key) -> Library& {
      return *made->emplace_back(
          std::make_unique<Library>(kind, "echelon", key, __FILE__, __LINE__));
    };
    Library& schemas = add(Library::DEF, std::nullopt);
    schemas.def(
        "attention(Tensor q, Tensor k, Tensor v, Tensor? sinks, Tensor? alibi_slopes, int layer, "
        "float scale, int window, float softcap) -> Tensor");
    schemas.def(
        "experts(Tensor x, Tensor index, Tensor weight, Tensor gate_up, Tensor? gate_up_bias, "
        "Tensor down, Tensor? down_bias, bool transposed, str activation, bool interleaved, "
        "float alpha, float limit) -> Tensor");
    Library& cpu = add(Library::IMPL, c10::DispatchKey::CPU);
    cpu.impl("attention", RunAttention);
    cpu.impl("experts", RunExpertsOp);
    Library& meta = add(Library::IMPL, c10::DispatchKey::Meta);
    meta.impl("attention", AttentionShape);
    meta.impl("experts", ExpertsShape);
    return made;
  }();
  (void)libraries;
}

Running::Running(const StepContext* context) : outer_(current) {
  if (context->step != nullptr && context->cache != nullptr)
    CheckBlocks(*context->step, context->cache->options());
  current = context;
}
Running::~Running() { current = outer_; }

}  // namespace echelon::ops
