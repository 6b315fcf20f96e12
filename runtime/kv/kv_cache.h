// The keys and values of one stage's layers, in blocks of consecutive tokens. Who owns which block
// is the head's to say (schedule::BlockPool); here is only the memory.
//
// Layout: block by block; in a block layer by layer, keys before values; in a layer head by head;
// in a head tile by tile, a tile being kTileTokens tokens. Keys are stored [key_dim][kTileTokens]:
// the scores of a tile's keys are then one vector, summed over key_dim without any sum across
// lanes, in one order. Values are stored [kTileTokens][value_dim]: a weighted sum of rows.
// A block is one piece of memory, so that memory is touched block by block, and one copy moves it.
#ifndef ECHELON_RUNTIME_KV_KV_CACHE_H_
#define ECHELON_RUNTIME_KV_KV_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tensor/dtype.h"

namespace echelon::weights {
class Arena;
}

namespace echelon::kv {

inline constexpr int kTileTokens = 16;

struct LayerShape {
  int32_t layer = 0;  // the number that echelon::attention is called with
  int32_t kv_heads = 0;
  int32_t key_dim = 0, value_dim = 0;
};

struct Options {
  int32_t block_tokens = 16;  // a multiple of kTileTokens
  int32_t blocks = 0;
  std::vector<LayerShape> layers;
  DType dtype = DType::kF32;  // or kBF16
};

// Of all layers together; blocks does not matter.
uint64_t BytesPerToken(const Options& options);
uint64_t BytesPerBlock(const Options& options);
// At most INT32_MAX; 0 where not one block fits, INT32_MAX where there are no layers.
int32_t BlocksThatFit(const Options& options, uint64_t budget_bytes);

// Not thread-safe but for writes and reads of different (layer, block, token).
class KvCache {
 public:
  // Maps memory (on huge pages, where the kernel has them) and touches none of it.
  // kInvalidArgument names the option; kResourceExhausted: the system gives no such mapping.
  static absl::StatusOr<std::unique_ptr<KvCache>> Create(const Options& options);

  const Options& options() const { return options_; }
  uint64_t nbytes() const;

  // Where a layer's parts lie in a block, in bytes; null for a layer that is not this stage's.
  struct Layer {
    LayerShape shape;
    uint64_t keys_at = 0, values_at = 0;                // from the block's first byte
    uint64_t key_tile_bytes = 0, value_tile_bytes = 0;  // of one head
    uint64_t key_head_bytes = 0, value_head_bytes = 0;  // from head to head
  };
  const Layer* Find(int32_t layer) const;

  // Tiles of one head: keys [key_dim][kTileTokens], values [kTileTokens][value_dim], dense.
  // Preconditions: block < blocks, head < kv_heads, tile < block_tokens / kTileTokens. What has
  // not been written holds zeros or an earlier user's values.
  const std::byte* Keys(const Layer& layer, int32_t block, int32_t head, int32_t tile) const {
    return base_ + block * block_bytes_ + layer.keys_at + head * layer.key_head_bytes +
           tile * layer.key_tile_bytes;
  }
  const std::byte* Values(const Layer& layer, int32_t block, int32_t head, int32_t tile) const {
    return base_ + block * block_bytes_ + layer.values_at + head * layer.value_head_bytes +
           tile * layer.value_tile_bytes;
  }

  // Stores one token of one head: `offset` counts tokens within the block. key and value point at
  // key_dim and value_dim dense elements of `dtype`, kF32 or kBF16; f32 is rounded to a bf16 cache
  // to nearest even.
  void Write(const Layer& layer, int32_t block, int32_t offset, int32_t head, DType dtype,
             const void* key, const void* value);

 private:
  KvCache(Options options, std::shared_ptr<weights::Arena> arena);
  Options options_;
  std::shared_ptr<weights::Arena> arena_;
  std::byte* base_ = nullptr;
  uint64_t block_bytes_ = 0;
  std::vector<Layer> layers_;       // as in options
  std::vector<int32_t> by_number_;  // layer number -> index in layers_, -1: not here
};

}  // namespace echelon::kv

#endif  // ECHELON_RUNTIME_KV_KV_CACHE_H_
