#include <algorithm>
#include <limits>

#include "runtime/ops/attention.h"
#include "runtime/ops/lanes.h"

static_assert(echelon::kv::kTileTokens == echelon::ops::kLanes, "a tile's scores are one vector");

namespace echelon::ops {
namespace {

constexpr int kMostRows = 32;  // of a part: queries that use a tile while it is in cache

// A query: where it stands and how far its softmax has come.
struct Row {
  int64_t position = 0, first = 0;  // the keys it sees: first..position
  int32_t head = 0;
  float greatest = -std::numeric_limits<float>::infinity();
  float sum = 0;
  float rescale = 1;  // of what was accumulated before this tile
};

struct alignas(64) Line {
  float at[kLanes];
};

// What a thread works in; kept from call to call, since a decode step has many small parts.
struct Scratch {
  std::vector<Row> rows;
  std::vector<Line> queries, keys, values, weights, out;
};

int64_t RoundUp(int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

// What follows takes as many lanes at a time as a Floats has. Lanes do not mix, so a row's bits are
// the same with any.
template <typename Floats>
constexpr int kWidth = sizeof(Floats) / sizeof(float);
template <typename Floats>
constexpr bool kIsWide = kWidth<Floats> == kLanes;

// scores[r][key] of R queries with one tile: two sums over even and odd d, then their sum.
template <typename Floats, int R>
ECHELON_INLINE void Scores(const float* queries, const float* keys, int dim, float* scores) {
  for (int lane = 0; lane < kLanes; lane += kWidth<Floats>) {
    Floats even[R] = {}, odd[R] = {};
    int d = 0;
    for (; d + 1 < dim; d += 2) {
      const Floats key0 = LoadFloats<Floats>(keys + d * kLanes + lane);
      const Floats key1 = LoadFloats<Floats>(keys + (d + 1) * kLanes + lane);
      for (int r = 0; r < R; ++r) {
        even[r] += queries[r * dim + d] * key0;
        odd[r] += queries[r * dim + d + 1] * key1;
      }
    }
    // No loop: a compiler may multiply and add apart in one, by how many rows it has.
    if (d < dim) {
      const Floats key = LoadFloats<Floats>(keys + d * kLanes + lane);
      for (int r = 0; r < R; ++r) even[r] += queries[r * dim + d] * key;
    }
    for (int r = 0; r < R; ++r) Store(even[r] + odd[r], scores + r * kLanes + lane);
  }
}

// out[r] = out[r] * rescale[r] + (weights[r][0] * values[0] + ... in order of keys), for R queries
// and C vectors of columns. The tile's sum starts from zero: were it to start from the rescaled
// one, the compiler could fuse the first addition with either product, here one and there the
// other.
template <typename Floats, int R, int C>
ECHELON_INLINE void Accumulate(const Row* rows, const float* weights, const float* values,
                               int64_t width, int keys, float* out) {
  Floats sums[R][C] = {};
  for (int key = 0; key < keys; ++key)
    for (int c = 0; c < C; ++c) {
      const auto value = LoadFloats<Floats>(values + key * width + c * kWidth<Floats>);
      for (int r = 0; r < R; ++r) sums[r][c] += weights[r * kLanes + key] * value;
    }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) {
      float* to = out + r * width + c * kWidth<Floats>;
      Store(LoadFloats<Floats>(to) * rows[r].rescale + sums[r][c], to);
    }
}

template <typename Floats, int R>
ECHELON_INLINE void AccumulateColumns(const Row* rows, const float* weights, const float* values,
                                      int64_t width, int keys, float* out) {
  constexpr int kMost = kIsWide<Floats> ? 4 : 2;  // what the registers hold
  int64_t column = 0;
  for (; column + kMost * kWidth<Floats> <= width; column += kMost * kWidth<Floats>)
    Accumulate<Floats, R, kMost>(rows, weights, values + column, width, keys, out + column);
  if constexpr (kIsWide<Floats>)  // width is a multiple of two halves
    for (; column < width; column += kWidth<Floats>)
      Accumulate<Floats, R, 1>(rows, weights, values + column, width, keys, out + column);
}

// A tile's keys from `tile_start` on: scores become weights, and the running sum goes on.
ECHELON_INLINE void Softmax(const Attention& call, int64_t tile_start, Row& row, float* scores) {
  Lanes s = Load(scores) * call.scale;
  if (call.softcap != 0) s = Tanh(s / call.softcap) * call.softcap;
  const IntLanes lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  // Positions are below 2^31, and a tile that is seen is near enough for its distances too.
  const IntLanes key = lane + static_cast<int32_t>(tile_start);
  if (call.slopes != nullptr)
    s += call.slopes[row.head] *
         __builtin_convertvector(key - static_cast<int32_t>(row.position), Lanes);
  const IntLanes seen =
      (key >= static_cast<int32_t>(row.first)) & (key <= static_cast<int32_t>(row.position));
  s = seen ? s : Splat(-std::numeric_limits<float>::infinity());
  const float tile_greatest = Greatest(s);
  const float greatest = row.greatest > tile_greatest ? row.greatest : tile_greatest;
  const Lanes zero = {};
  const Lanes weights = seen ? Exp(s - greatest) : zero;
  // e^0 is exactly 1: leaving it out changes no bit.
  row.rescale = greatest == row.greatest ? 1.0F : Exp(Splat(row.greatest - greatest))[0];
  row.sum = row.sum * row.rescale + Sum(weights);
  row.greatest = greatest;
  Store(weights, scores);
}

template <typename T>
ECHELON_INLINE const float* KeysOf(const T* keys, int dim, float* buffer) {
  if constexpr (sizeof(T) == sizeof(float)) return keys;
  for (int d = 0; d < dim; ++d) Store(Load(keys + d * kLanes), buffer + d * kLanes);
  return buffer;
}

// [keys][width], width being dim rounded up to whole vectors.
template <typename T>
ECHELON_INLINE const float* ValuesOf(const T* values, int dim, int keys, int64_t width,
                                     float* buffer) {
  if constexpr (sizeof(T) == sizeof(float))
    if (width == dim) return values;
  for (int key = 0; key < keys; ++key) {
    int e = 0;
    for (; e + kLanes <= dim; e += kLanes)
      Store(Load(values + key * dim + e), buffer + key * width + e);
    if (e < dim) Store(LoadFirst(values + key * dim + e, dim - e), buffer + key * width + e);
  }
  return buffer;
}

void Begin(const Attention& call, const AttentionPart& part, Scratch& scratch) {
  const kv::LayerShape& shape = call.layer->shape;
  const int64_t width = RoundUp(shape.value_dim);
  scratch.rows.clear();
  for (int32_t token = part.token_begin; token < part.token_end; ++token)
    for (int32_t head = part.head_begin; head < part.head_end; ++head) {
      const int64_t position = int64_t{part.sequence->start} + token;
      const int64_t first = call.window > 0 ? std::max<int64_t>(0, position - call.window + 1) : 0;
      scratch.rows.push_back({.position = position, .first = first, .head = head});
    }
  const auto count = static_cast<int64_t>(scratch.rows.size());
  scratch.queries.resize(RoundUp(count * shape.key_dim) / kLanes);
  scratch.keys.resize(shape.key_dim);
  scratch.values.resize(width);
  scratch.weights.resize(count);
  scratch.out.assign(count * width / kLanes, Line{});
  for (int64_t r = 0; r < count; ++r) {
    const int64_t token = part.first_row + scratch.rows[r].position - part.sequence->start;
    const int64_t from = scratch.rows[r].head * call.head_stride + token * call.token_stride;
    float* to = scratch.queries.data()->at + r * shape.key_dim;
    for (int32_t d = 0; d < shape.key_dim; ++d)
      to[d] = call.dtype == DType::kBF16 ? ToFloat(static_cast<const uint16_t*>(call.q)[from + d])
                                         : static_cast<const float*>(call.q)[from + d];
  }
}

template <typename Floats, typename T>
ECHELON_INLINE void Tiles(const Attention& call, const AttentionPart& part, Scratch& scratch) {
  const kv::LayerShape& shape = call.layer->shape;
  const int dim = shape.key_dim;
  const int64_t width = RoundUp(shape.value_dim);
  const int tiles_a_block = call.cache->options().block_tokens / kLanes;
  const int64_t last = scratch.rows.back().position;
  const int count = static_cast<int>(scratch.rows.size());
  Row* rows = scratch.rows.data();
  for (int64_t tile = scratch.rows.front().first / kLanes; tile * kLanes <= last; ++tile) {
    const int32_t block = part.sequence->blocks[tile / tiles_a_block];
    const auto in_block = static_cast<int32_t>(tile % tiles_a_block);
    // Behind the last position lies what someone else may have left.
    const int keys = static_cast<int>(std::min<int64_t>(kLanes, last + 1 - tile * kLanes));
    const float* k = KeysOf(
        reinterpret_cast<const T*>(call.cache->Keys(*call.layer, block, part.kv_head, in_block)),
        dim, scratch.keys.data()->at);
    const float* v = ValuesOf(
        reinterpret_cast<const T*>(call.cache->Values(*call.layer, block, part.kv_head, in_block)),
        shape.value_dim, keys, width, scratch.values.data()->at);
    float* weights = scratch.weights.data()->at;
    const float* queries = scratch.queries.data()->at;
    constexpr int kMost = kIsWide<Floats> ? 8 : 4;
    int r = 0;
    for (; r + kMost <= count; r += kMost)
      Scores<Floats, kMost>(queries + r * dim, k, dim, weights + r * kLanes);
    for (; r + 2 <= count; r += 2)
      Scores<Floats, 2>(queries + r * dim, k, dim, weights + r * kLanes);
    for (; r < count; ++r) Scores<Floats, 1>(queries + r * dim, k, dim, weights + r * kLanes);
    for (r = 0; r < count; ++r) {
      const bool is_seen = rows[r].position >= tile * kLanes && rows[r].first < (tile + 1) * kLanes;
      rows[r].rescale = 1;
      if (is_seen) {
        Softmax(call, tile * kLanes, rows[r], weights + r * kLanes);
      } else {
        Store(Lanes{}, weights + r * kLanes);
      }
    }
    float* out = scratch.out.data()->at;
    for (r = 0; r + 4 <= count; r += 4)
      AccumulateColumns<Floats, 4>(rows + r, weights + r * kLanes, v, width, keys, out + r * width);
    for (; r < count; ++r)
      AccumulateColumns<Floats, 1>(rows + r, weights + r * kLanes, v, width, keys, out + r * width);
  }
}

ECHELON_CLONES void TilesF32(const Attention& call, const AttentionPart& part, Scratch& scratch) {
  Tiles<Lanes, float>(call, part, scratch);
}

ECHELON_CLONES void TilesBf16(const Attention& call, const AttentionPart& part, Scratch& scratch) {
  Tiles<Lanes, uint16_t>(call, part, scratch);
}

ECHELON_CLONES void HalfTilesF32(const Attention& call, const AttentionPart& part,
                                 Scratch& scratch) {
  Tiles<Eight, float>(call, part, scratch);
}

ECHELON_CLONES void HalfTilesBf16(const Attention& call, const AttentionPart& part,
                                  Scratch& scratch) {
  Tiles<Eight, uint16_t>(call, part, scratch);
}

ECHELON_CLONES void Finish(const Attention& call, const AttentionPart& part, Scratch& scratch) {
  const int32_t dim = call.layer->shape.value_dim;
  for (size_t r = 0; r < scratch.rows.size(); ++r) {
    Row& row = scratch.rows[r];
    float rescale = 1;
    if (call.sinks != nullptr) {
      const float sink = call.sinks[row.head];
      const float greatest = row.greatest > sink ? row.greatest : sink;
      rescale = Exp(Splat(row.greatest - greatest))[0];
      row.sum = row.sum * rescale + Exp(Splat(sink - greatest))[0];
    }
    const float factor = rescale / row.sum;
    const int64_t token = part.first_row + row.position - part.sequence->start;
    const int64_t to = (token * call.heads + row.head) * dim;
    const float* from = scratch.out.data()->at + static_cast<int64_t>(r) * RoundUp(dim);
    for (int32_t e = 0; e < dim; ++e) {
      if (call.dtype == DType::kBF16) {
        static_cast<uint16_t*>(call.out)[to + e] = ToBf16(from[e] * factor);
      } else {
        static_cast<float*>(call.out)[to + e] = from[e] * factor;
      }
    }
  }
}

std::vector<AttentionPart> PartsOf(const Attention& call, int most_rows) {
  const int32_t groups = call.heads / call.layer->shape.kv_heads;
  const int32_t heads = std::min(groups, most_rows);
  const int32_t tokens = std::max(1, most_rows / heads);
  std::vector<AttentionPart> parts;
  // A thread takes parts that follow each other: by head first, so that all get late tokens.
  for (int32_t head = 0; head < call.heads; head += groups)
    for (int32_t h = head; h < head + groups; h += heads) {
      int64_t first_row = 0;
      for (const step::Sequence& sequence : call.step->sequences) {
        for (int32_t token = 0; token < sequence.count; token += tokens)
          parts.push_back({.sequence = &sequence,
                           .first_row = first_row,
                           .kv_head = head / groups,
                           .head_begin = h,
                           .head_end = std::min(h + heads, head + groups),
                           .token_begin = token,
                           .token_end = std::min(token + tokens, sequence.count)});
        first_row += sequence.count;
      }
    }
  return parts;
}

}  // namespace

std::vector<AttentionPart> AttentionParts(const Attention& call, int threads) {
  int rows = kMostRows;
  std::vector<AttentionPart> parts = PartsOf(call, rows);
  while (parts.size() < static_cast<size_t>(threads) && rows > 4) parts = PartsOf(call, rows /= 2);
  return parts;
}

void RunTiled(const Attention& call, const AttentionPart& part) {
  static thread_local Scratch scratch;
  Begin(call, part, scratch);
  static const bool has_sixteen = HasSixteen();
  if (call.cache->options().dtype == DType::kBF16) {
    (has_sixteen ? TilesBf16 : HalfTilesBf16)(call, part, scratch);
  } else {
    (has_sixteen ? TilesF32 : HalfTilesF32)(call, part, scratch);
  }
  Finish(call, part, scratch);
}

}  // namespace echelon::ops
