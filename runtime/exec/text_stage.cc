#include "runtime/exec/text_stage.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/graph/text_model.h"
#include "runtime/sampling/sampling.h"

namespace echelon::exec {

TextStage::TextStage(step::Limits limits, std::unique_ptr<kv::KvCache> cache)
    : limits_(limits), cache_(std::move(cache)), context_{.step = &step_, .cache = cache_.get()} {}

absl::StatusOr<std::unique_ptr<TextStage>> TextStage::Open(const graph::Graph& graph,
                                                           const plan::Stage& stage,
                                                           int64_t kv_blocks) {
  kv::Options options{.block_tokens = plan::kKvBlockTokens,
                      .blocks = static_cast<int32_t>(kv_blocks),
                      .dtype = graph.text->dtype};
  for (const graph::AttentionLayer& layer : graph::AttentionLayers(graph, stage.begin, stage.end))
    options.layers.push_back({.layer = static_cast<int32_t>(layer.layer),
                              .kv_heads = static_cast<int32_t>(layer.kv_heads),
                              .key_dim = static_cast<int32_t>(layer.key_dim),
                              .value_dim = static_cast<int32_t>(layer.value_dim)});
  absl::StatusOr<std::unique_ptr<kv::KvCache>> cache = kv::KvCache::Create(options);
  if (!cache.ok()) return cache.status();
  const step::Limits limits{.length = static_cast<int32_t>(graph.text->max_model_len),
                            .block_tokens = options.block_tokens,
                            .blocks = options.blocks,
                            .vocabulary = static_cast<int32_t>(graph.text->vocab_size)};
  return std::unique_ptr<TextStage>(new TextStage(limits, *std::move(cache)));
}

absl::Status TextStage::Begin(const link::Frame& frame) {
  absl::StatusOr<step::Step> step = step::ParseStep(frame.rows, limits_);
  if (!step.ok()) return step.status();
  step_ = *std::move(step);
  return absl::OkStatus();
}

absl::Status TextStage::Draw(const at::Tensor& logits, link::Frame& frame) const {
  if (logits.dim() != 3 || logits.size(0) != 1)
    return absl::InternalError(absl::StrCat("the model gives logits of ", logits.dim(),
                                            " dimensions, not [1, rows, vocabulary]"));
  const at::Tensor rows = logits[0].to(at::kFloat).contiguous();
  const auto width = static_cast<size_t>(rows.size(1));
  step::Result result;
  for (const step::Sample& sample : step_.samples) {
    if (sample.row >= rows.size(0))
      return absl::InvalidArgumentError(
          absl::StrCat("a sample of row ", sample.row, ", the step has ", rows.size(0)));
    const absl::Span<const float> row(rows.const_data_ptr<float>() + sample.row * width, width);
    absl::StatusOr<step::Drawn> drawn = sampling::Draw(row, sample);
    // Whatever is wrong with one row is its own request's affair.
    result.drawn.push_back(drawn.ok() ? *std::move(drawn) : step::Drawn{.status = drawn.status()});
  }
  frame.rows = step::Serialize(result);
  frame.tensors.clear();
  frame.scalars.clear();
  return absl::OkStatus();
}

}  // namespace echelon::exec
