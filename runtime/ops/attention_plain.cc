#include <algorithm>
#include <cmath>

#include "runtime/ops/attention.h"
#include "runtime/ops/lanes.h"

namespace echelon::ops {
namespace {

float At(const void* from, DType dtype, int64_t index) {
  return dtype == DType::kBF16 ? ToFloat(static_cast<const uint16_t*>(from)[index])
                               : static_cast<const float*>(from)[index];
}

void Put(float value, DType dtype, int64_t index, void* to) {
  if (dtype == DType::kBF16) {
    static_cast<uint16_t*>(to)[index] = ToBf16(value);
  } else {
    static_cast<float*>(to)[index] = value;
  }
}

void RunRow(const Attention& call, const AttentionPart& part, int32_t token, int32_t head) {
  const kv::LayerShape& shape = call.layer->shape;
  const kv::Options& options = call.cache->options();
  const int64_t position = int64_t{part.sequence->start} + token;
  const int64_t row = part.first_row + token;
  const int64_t first = call.window > 0 ? std::max<int64_t>(0, position - call.window + 1) : 0;
  const auto tile_of = [&](int64_t key, const auto& find) {
    const auto offset = static_cast<int32_t>(key % options.block_tokens);
    return find(part.sequence->blocks[key / options.block_tokens], offset / kv::kTileTokens);
  };
  std::vector<float> scores;
  for (int64_t key = first; key <= position; ++key) {
    const std::byte* keys = tile_of(key, [&](int32_t block, int32_t tile) {
      return call.cache->Keys(*call.layer, block, part.kv_head, tile);
    });
    float dot = 0;
    for (int32_t d = 0; d < shape.key_dim; ++d)
      dot += At(call.q, call.dtype, head * call.head_stride + row * call.token_stride + d) *
             At(keys, options.dtype, int64_t{d} * kv::kTileTokens + key % kv::kTileTokens);
    float score = dot * call.scale;
    if (call.softcap != 0) score = std::tanh(score / call.softcap) * call.softcap;
    if (call.slopes != nullptr) score += call.slopes[head] * static_cast<float>(key - position);
    scores.push_back(score);
  }
  float greatest = *std::max_element(scores.begin(), scores.end());
  if (call.sinks != nullptr) greatest = std::max(greatest, call.sinks[head]);
  float sum = call.sinks != nullptr ? std::exp(call.sinks[head] - greatest) : 0;
  for (float& score : scores) sum += score = std::exp(score - greatest);
  for (int32_t e = 0; e < shape.value_dim; ++e) {
    float out = 0;
    for (int64_t key = first; key <= position; ++key) {
      const std::byte* values = tile_of(key, [&](int32_t block, int32_t tile) {
        return call.cache->Values(*call.layer, block, part.kv_head, tile);
      });
      out += scores[key - first] *
             At(values, options.dtype, key % kv::kTileTokens * shape.value_dim + e);
    }
    Put(out / sum, call.dtype, (row * call.heads + head) * shape.value_dim + e, call.out);
  }
}

}  // namespace

void RunPlain(const Attention& call, const AttentionPart& part) {
  for (int32_t token = part.token_begin; token < part.token_end; ++token)
    for (int32_t head = part.head_begin; head < part.head_end; ++head)
      RunRow(call, part, token, head);
}

}  // namespace echelon::ops
