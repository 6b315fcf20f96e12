#include "runtime/kv/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/weights/loader.h"

namespace echelon::kv {
namespace {

constexpr int32_t kMostLayers = 1 << 16;
constexpr int32_t kLargestSize = 1 << 16;
constexpr int32_t kMostBlockTokens = 1 << 16;

absl::Status Check(const Options& options) {
  const auto fault = [](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("KV cache: ", what...));
  };
  if (options.dtype != DType::kF32 && options.dtype != DType::kBF16)
    return fault("keys and values are f32 or bf16, not ", std::string(Name(options.dtype)));
  const bool is_tiled = options.block_tokens > 0 && options.block_tokens <= kMostBlockTokens &&
                        options.block_tokens % kTileTokens == 0;
  if (!is_tiled)
    return fault("a block of ", options.block_tokens, " tokens is no multiple of ", kTileTokens);
  if (options.blocks < 0) return fault(options.blocks, " blocks");
  std::vector<int32_t> seen;
  for (const LayerShape& shape : options.layers) {
    const auto fits = [](int32_t size) { return size > 0 && size <= kLargestSize; };
    if (shape.layer < 0 || shape.layer >= kMostLayers) return fault("layer ", shape.layer);
    if (!fits(shape.kv_heads) || !fits(shape.key_dim) || !fits(shape.value_dim))
      return fault("layer ", shape.layer, " has ", shape.kv_heads, " heads of ", shape.key_dim,
                   " and ", shape.value_dim);
    seen.push_back(shape.layer);
  }
  std::sort(seen.begin(), seen.end());
  const auto twice = std::adjacent_find(seen.begin(), seen.end());
  if (twice != seen.end()) return fault("layer ", *twice, " is there twice");
  return absl::OkStatus();
}

uint16_t ToBf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FC0;  // NaN stays NaN
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

float ToF32(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// A stored element from one given.
void Convert(uint16_t from, uint16_t* to) { *to = from; }
void Convert(float from, float* to) { *to = from; }
void Convert(float from, uint16_t* to) { *to = ToBf16(from); }
void Convert(uint16_t from, float* to) { *to = ToF32(from); }

template <typename To, typename From>
void Store(const LayerShape& shape, const void* key, const void* value, std::byte* key_tile,
           std::byte* value_tile, int32_t token) {
  const auto* from_key = static_cast<const From*>(key);
  const auto* from_value = static_cast<const From*>(value);
  To* to_key = reinterpret_cast<To*>(key_tile) + token;
  To* to_value = reinterpret_cast<To*>(value_tile) + int64_t{token} * shape.value_dim;
  for (int32_t d = 0; d < shape.key_dim; ++d) Convert(from_key[d], to_key + d * kTileTokens);
  for (int32_t e = 0; e < shape.value_dim; ++e) Convert(from_value[e], to_value + e);
}

}  // namespace

uint64_t BytesPerToken(const Options& options) {
  uint64_t elements = 0;
  for (const LayerShape& shape : options.layers)
    elements += static_cast<uint64_t>(shape.kv_heads) * (shape.key_dim + shape.value_dim);
  return elements * ElementBytes(options.dtype);
}

uint64_t BytesPerBlock(const Options& options) {
  return BytesPerToken(options) * options.block_tokens;
}

int32_t BlocksThatFit(const Options& options, uint64_t budget_bytes) {
  const uint64_t block_bytes = BytesPerBlock(options);
  if (block_bytes == 0) return INT32_MAX;
  return static_cast<int32_t>(std::min<uint64_t>(budget_bytes / block_bytes, INT32_MAX));
}

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Create(const Options& options) {
  if (absl::Status fault = Check(options); !fault.ok()) return fault;
  uint64_t nbytes = 0;
  if (__builtin_mul_overflow(BytesPerBlock(options), static_cast<uint64_t>(options.blocks),
                             &nbytes) ||
      nbytes > (uint64_t{1} << 46))
    return absl::InvalidArgumentError(absl::StrCat("KV cache: ", options.blocks, " blocks of ",
                                                   BytesPerBlock(options),
                                                   " bytes are more than there is memory"));
  auto arena = weights::Arena::Map(nbytes);
  if (!arena.ok())
    return absl::ResourceExhaustedError(absl::StrCat("KV cache: the system gives no mapping of ",
                                                     nbytes, " bytes; lower --kv-memory"));
  return std::unique_ptr<KvCache>(new KvCache(options, *std::move(arena)));
}

KvCache::KvCache(Options options, std::shared_ptr<weights::Arena> arena)
    : options_(std::move(options)), arena_(std::move(arena)), base_(arena_->data()) {
  const uint64_t element_bytes = ElementBytes(options_.dtype);
  const uint64_t tiles = options_.block_tokens / kTileTokens;
  for (const LayerShape& shape : options_.layers) {
    Layer layer{.shape = shape};
    layer.key_tile_bytes = element_bytes * kTileTokens * shape.key_dim;
    layer.value_tile_bytes = element_bytes * kTileTokens * shape.value_dim;
    layer.key_head_bytes = tiles * layer.key_tile_bytes;
    layer.value_head_bytes = tiles * layer.value_tile_bytes;
    layer.keys_at = block_bytes_;
    layer.values_at = layer.keys_at + shape.kv_heads * layer.key_head_bytes;
    block_bytes_ = layer.values_at + shape.kv_heads * layer.value_head_bytes;
    if (by_number_.size() <= static_cast<size_t>(shape.layer))
      by_number_.resize(shape.layer + 1, -1);
    by_number_[shape.layer] = static_cast<int32_t>(layers_.size());
    layers_.push_back(layer);
  }
}

uint64_t KvCache::nbytes() const { return block_bytes_ * options_.blocks; }

const KvCache::Layer* KvCache::Find(int32_t layer) const {
  const bool is_here =
      layer >= 0 && static_cast<size_t>(layer) < by_number_.size() && by_number_[layer] >= 0;
  return is_here ? &layers_[by_number_[layer]] : nullptr;
}

void KvCache::Write(const Layer& layer, int32_t block, int32_t offset, int32_t head, DType dtype,
                    const void* key, const void* value) {
  const int32_t tile = offset / kTileTokens, token = offset % kTileTokens;
  auto* keys = const_cast<std::byte*>(Keys(layer, block, head, tile));
  auto* values = const_cast<std::byte*>(Values(layer, block, head, tile));
  const bool is_narrow = options_.dtype == DType::kBF16;
  if (dtype == DType::kBF16) {
    (is_narrow ? Store<uint16_t, uint16_t> : Store<float, uint16_t>)(layer.shape, key, value, keys,
                                                                     values, token);
  } else {
    (is_narrow ? Store<uint16_t, float> : Store<float, float>)(layer.shape, key, value, keys,
                                                               values, token);
  }
}

}  // namespace echelon::kv
