// The tiled kernel against its definition, and a token's result against itself in other company.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "runtime/ops/attention.h"
#include "runtime/ops/lanes.h"

namespace echelon::ops {
namespace {

struct Shape {
  const char* name;
  int32_t heads = 4, kv_heads = 2, key_dim = 16, value_dim = 16;
  int64_t window = 0;
  float softcap = 0;
  bool sinks = false, alibi = false;
  int32_t block_tokens = 16;
};

const Shape kShapes[] = {
    {"grouped"},
    {"one_key_head_for_many", 71, 1, 32, 32},
    {"every_head_its_own", 3, 3, 64, 64},
    {"uneven_sizes", 6, 2, 20, 12},
    {"tiny_sizes", 2, 1, 3, 1},
    {"latent", 4, 4, 48, 32},
    {"window", 4, 2, 16, 16, 8},
    {"window_of_one", 4, 2, 16, 16, 1},
    {"window_of_tiles", 4, 2, 16, 16, 37},
    {"softcap", 4, 2, 16, 16, 0, 2.0F},
    {"sinks", 4, 2, 16, 16, 0, 0, true},
    {"alibi", 4, 2, 16, 16, 0, 0, false, true},
    {"everything", 8, 2, 24, 40, 21, 5.0F, true, true, 32},
};

// Consecutive tokens of one sequence; a step has several.
struct Span {
  size_t sequence;
  int32_t start, count;
};
using Steps = std::vector<std::vector<Span>>;
using Kernel = void (*)(const Attention&, const AttentionPart&);

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Sequences with all their queries, keys and values, to be run in whatever steps.
class World {
 public:
  World(const Shape& shape, DType dtype, std::vector<int32_t> lengths)
      : shape_(shape), dtype_(dtype), lengths_(std::move(lengths)) {
    std::mt19937 random(17);
    std::normal_distribution<float> normal;
    const auto fill = [&](int64_t count) {
      std::vector<float> values(count);
      for (float& value : values) {
        value = normal(random);
        if (dtype == DType::kBF16) value = ToFloat(ToBf16(value));
      }
      return values;
    };
    for (const int32_t length : lengths_)
      sequences_.push_back({fill(int64_t{length} * shape.heads * shape.key_dim),
                            fill(int64_t{length} * shape.kv_heads * shape.key_dim),
                            fill(int64_t{length} * shape.kv_heads * shape.value_dim)});
    sinks_ = fill(shape.heads);
    slopes_ = fill(shape.heads);
  }

  // [sequence][position * heads * value_dim + ...], as f32. `seed` says which blocks are given.
  std::vector<std::vector<float>> Run(const Steps& steps, Kernel kernel, uint32_t seed,
                                      int threads = 1) {
    Open(seed);
    std::vector<std::vector<float>> out;
    for (const int32_t length : lengths_)
      out.emplace_back(int64_t{length} * shape_.heads * shape_.value_dim, NAN);
    for (const std::vector<Span>& spans : steps) RunStep(spans, kernel, threads, &out);
    return out;
  }

  std::vector<int32_t> lengths() const { return lengths_; }

 private:
  struct Tensors {
    std::vector<float> q, k, v;  // [position][head][dim]
  };

  void Open(uint32_t seed) {
    const auto blocks_of = [&](int32_t length) {
      return (length + shape_.block_tokens - 1) / shape_.block_tokens;
    };
    int32_t total = 3;
    for (const int32_t length : lengths_) total += blocks_of(length);
    auto cache =
        kv::KvCache::Create({.block_tokens = shape_.block_tokens,
                             .blocks = total,
                             .layers = {{5, shape_.kv_heads, shape_.key_dim, shape_.value_dim}},
                             .dtype = dtype_});
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
    // What an earlier user may have left behind: nothing a result may depend on.
    const kv::KvCache::Layer& layer = *cache_->Find(5);
    const std::vector<float> poison(std::max(shape_.key_dim, shape_.value_dim), NAN);
    for (int32_t block = 0; block < total; ++block)
      for (int32_t offset = 0; offset < shape_.block_tokens; ++offset)
        for (int32_t head = 0; head < shape_.kv_heads; ++head)
          cache_->Write(layer, block, offset, head, DType::kF32, poison.data(), poison.data());
    std::vector<int32_t> ids(total);
    std::iota(ids.begin(), ids.end(), 0);
    if (seed != 0) std::shuffle(ids.begin(), ids.end(), std::mt19937(seed));
    blocks_.clear();
    for (const int32_t length : lengths_) {
      const auto end = ids.begin() + blocks_of(length);
      blocks_.emplace_back(ids.begin(), end);
      ids.erase(ids.begin(), end);
    }
  }

  void RunStep(const std::vector<Span>& spans, Kernel kernel, int threads,
               std::vector<std::vector<float>>* out) {
    const kv::KvCache::Layer& layer = *cache_->Find(5);
    step::Step step;
    std::vector<float> q;
    for (const Span& span : spans) {
      step.sequences.push_back({.id = span.sequence,
                                .start = span.start,
                                .count = span.count,
                                .blocks = blocks_[span.sequence]});
      const Tensors& tensors = sequences_[span.sequence];
      const int64_t row = int64_t{shape_.heads} * shape_.key_dim;
      q.insert(q.end(), tensors.q.begin() + span.start * row,
               tensors.q.begin() + (span.start + span.count) * row);
      for (int32_t at = span.start; at < span.start + span.count; ++at)
        for (int32_t head = 0; head < shape_.kv_heads; ++head)
          cache_->Write(layer, blocks_[span.sequence][at / shape_.block_tokens],
                        at % shape_.block_tokens, head, DType::kF32,
                        &tensors.k[(int64_t{at} * shape_.kv_heads + head) * shape_.key_dim],
                        &tensors.v[(int64_t{at} * shape_.kv_heads + head) * shape_.value_dim]);
    }
    std::vector<uint16_t> narrow_q(q.size());
    std::transform(q.begin(), q.end(), narrow_q.begin(), [](float f) { return ToBf16(f); });
    const bool is_narrow = dtype_ == DType::kBF16;
    std::vector<float> result(q.size() / shape_.key_dim * shape_.value_dim);
    std::vector<uint16_t> narrow(result.size());
    const Attention call{.step = &step,
                         .cache = cache_.get(),
                         .layer = &layer,
                         .heads = shape_.heads,
                         .q = is_narrow ? static_cast<const void*>(narrow_q.data()) : q.data(),
                         .head_stride = shape_.key_dim,
                         .token_stride = int64_t{shape_.heads} * shape_.key_dim,
                         .dtype = dtype_,
                         .sinks = shape_.sinks ? sinks_.data() : nullptr,
                         .slopes = shape_.alibi ? slopes_.data() : nullptr,
                         .scale = 0.25F,
                         .window = shape_.window,
                         .softcap = shape_.softcap,
                         .out = is_narrow ? static_cast<void*>(narrow.data()) : result.data()};
    for (const AttentionPart& part : AttentionParts(call, threads)) kernel(call, part);
    if (is_narrow)
      std::transform(narrow.begin(), narrow.end(), result.begin(),
                     [](auto h) { return ToFloat(h); });
    auto from = result.begin();
    const int64_t row = int64_t{shape_.heads} * shape_.value_dim;
    for (const Span& span : spans) {
      std::copy_n(from, span.count * row, (*out)[span.sequence].begin() + span.start * row);
      from += span.count * row;
    }
  }

  Shape shape_;
  DType dtype_;
  std::vector<int32_t> lengths_;
  std::vector<Tensors> sequences_;
  std::vector<float> sinks_, slopes_;
  std::unique_ptr<kv::KvCache> cache_;
  std::vector<std::vector<int32_t>> blocks_;
};

Steps Whole(const std::vector<int32_t>& lengths) {  // each sequence alone, in one step
  Steps steps;
  for (size_t i = 0; i < lengths.size(); ++i) steps.push_back({{i, 0, lengths[i]}});
  return steps;
}

Steps OneByOne(const std::vector<int32_t>& lengths) {  // decode rows only, all users together
  Steps steps;
  for (int32_t at = 0; at < *std::max_element(lengths.begin(), lengths.end()); ++at) {
    steps.emplace_back();
    for (size_t i = 0; i < lengths.size(); ++i)
      if (at < lengths[i]) steps.back().push_back({i, at, 1});
  }
  return steps;
}

// Prefill chunks of random length mixed with decode rows, in random order.
Steps Ragged(const std::vector<int32_t>& lengths, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> done(lengths.size(), 0);
  Steps steps;
  while (done != lengths) {
    std::vector<Span> spans;
    for (size_t i = 0; i < lengths.size(); ++i) {
      const int32_t left = lengths[i] - done[i];
      if (left == 0 || random() % 3 == 0) continue;
      const auto count =
          static_cast<int32_t>(random() % 2 == 0 ? 1 : 1 + random() % static_cast<uint32_t>(left));
      spans.push_back({i, done[i], count});
      done[i] += count;
    }
    std::shuffle(spans.begin(), spans.end(), random);
    if (!spans.empty()) steps.push_back(spans);
  }
  return steps;
}

class AttentionKernel : public testing::TestWithParam<std::tuple<Shape, DType>> {};

TEST_P(AttentionKernel, AgreesWithItsDefinition) {
  const auto& [shape, dtype] = GetParam();
  World world(shape, dtype, {1, 16, 17, 70});
  const Steps steps = Whole(world.lengths());
  const auto tiled = world.Run(steps, RunTiled, 1), plain = world.Run(steps, RunPlain, 1);
  for (size_t i = 0; i < plain.size(); ++i)
    for (size_t k = 0; k < plain[i].size(); ++k)
      ASSERT_NEAR(tiled[i][k], plain[i][k],
                  dtype == DType::kBF16 ? 0.01 + std::abs(plain[i][k]) / 100 : 5e-6)
          << "sequence " << i << " element " << k;
}

TEST_P(AttentionKernel, GivesATokenTheSameBitsInAnyCompany) {
  const auto& [shape, dtype] = GetParam();
  World world(shape, dtype, {50, 3, 16, 33, 1, 81});
  const auto expected = world.Run(Whole(world.lengths()), RunTiled, 0);
  const auto same = [&](const Steps& steps, uint32_t seed, int threads) {
    const auto result = world.Run(steps, RunTiled, seed, threads);
    for (size_t i = 0; i < result.size(); ++i)
      for (size_t k = 0; k < result[i].size(); ++k)
        if (Bits(result[i][k]) != Bits(expected[i][k])) return false;
    return true;
  };
  EXPECT_TRUE(same(Whole(world.lengths()), 5, 1)) << "in other blocks";
  EXPECT_TRUE(same(Whole(world.lengths()), 0, 64)) << "shared out to more threads";
  EXPECT_TRUE(same(OneByOne(world.lengths()), 6, 1)) << "token by token";
  for (uint32_t seed = 1; seed <= 8; ++seed)
    EXPECT_TRUE(same(Ragged(world.lengths(), seed), seed, 1)) << "ragged, seed " << seed;
}

INSTANTIATE_TEST_SUITE_P(All, AttentionKernel,
                         testing::Combine(testing::ValuesIn(kShapes),
                                          testing::Values(DType::kF32, DType::kBF16)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + "_" +
                                  std::string(Name(std::get<1>(info.param)));
                         });

TEST(Lanes, ExponentialsAndTangentsAreNear) {
  for (float x = -86; x < 80; x += 0.013F) {
    const Lanes at = Splat(x);
    const double e = std::exp(double{x}), t = std::tanh(double{x});
    ASSERT_NEAR(Exp(at)[3] / e, 1, 3e-7) << x;
    ASSERT_NEAR(Tanh(at)[3], t, 3e-7) << x;
  }
  EXPECT_EQ(Exp(Splat(0))[0], 1.0F);
  EXPECT_EQ(Exp(Splat(-INFINITY))[0], 0.0F);
  EXPECT_EQ(Exp(Splat(-1000))[0], 0.0F);
  EXPECT_TRUE(std::isnan(Exp(Splat(NAN))[0]));
  EXPECT_EQ(Tanh(Splat(INFINITY))[0], 1.0F);
}

}  // namespace
}  // namespace echelon::ops
