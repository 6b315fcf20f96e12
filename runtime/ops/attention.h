// echelon::attention without torch: plainly, and by tiles of keys.
#ifndef ECHELON_RUNTIME_OPS_ATTENTION_H_
#define ECHELON_RUNTIME_OPS_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "runtime/kv/kv_cache.h"
#include "runtime/step/step.h"

namespace echelon::ops {

// One call, after the step's keys and values were written.
struct Attention {
  const step::Step* step = nullptr;
  const kv::KvCache* cache = nullptr;
  const kv::KvCache::Layer* layer = nullptr;
  int32_t heads = 0;  // of queries; a multiple of the layer's
  // Query d of head h of token t: q[h * head_stride + t * token_stride + d].
  const void* q = nullptr;
  int64_t head_stride = 0, token_stride = 0;
  DType dtype = DType::kF32;      // of q and out: kF32 or kBF16
  const float* sinks = nullptr;   // [heads], or null
  const float* slopes = nullptr;  // [heads], or null
  float scale = 1;
  int64_t window = 0;   // 0: none
  float softcap = 0;    // 0: none
  void* out = nullptr;  // [T, heads, value_dim]
};

// What one thread computes at a time: some query heads of one key head, some tokens of a sequence.
struct AttentionPart {
  const step::Sequence* sequence = nullptr;
  int64_t first_row = 0;  // of the sequence's tokens among the step's
  int32_t kv_head = 0;
  int32_t head_begin = 0, head_end = 0;    // of queries
  int32_t token_begin = 0, token_end = 0;  // among the sequence's tokens of this step
};

// All parts of a call, such that `threads` even shares of them are about equal work.
std::vector<AttentionPart> AttentionParts(const Attention& call, int threads);

// Computes by tiles of kv::kTileTokens keys, from a token's first visible tile to its last, with a
// running maximum: what is added to what depends on positions alone.
void RunTiled(const Attention& call, const AttentionPart& part);

// The definition, in loops.
void RunPlain(const Attention& call, const AttentionPart& part);

}  // namespace echelon::ops

#endif  // ECHELON_RUNTIME_OPS_ATTENTION_H_
