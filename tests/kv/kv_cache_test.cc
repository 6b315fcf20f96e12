#include "runtime/kv/kv_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <functional>

namespace echelon::kv {
namespace {

using testing::HasSubstr;

// Two layers of unlike shape, of a stage that begins at layer 3.
Options Uneven(DType dtype, int32_t block_tokens) {
  return {.block_tokens = block_tokens,
          .blocks = 5,
          .layers = {{.layer = 3, .kv_heads = 2, .key_dim = 5, .value_dim = 3},
                     {.layer = 7, .kv_heads = 1, .key_dim = 4, .value_dim = 8}},
          .dtype = dtype};
}

std::unique_ptr<KvCache> Made(const Options& options) {
  auto cache = KvCache::Create(options);
  EXPECT_TRUE(cache.ok()) << cache.status();
  return *std::move(cache);
}

TEST(KvCache, CountsItsBytes) {
  const Options options = Uneven(DType::kBF16, 32);
  EXPECT_EQ(BytesPerToken(options), 2U * (2 * (5 + 3) + 1 * (4 + 8)));
  EXPECT_EQ(BytesPerBlock(options), 32U * 56);
  EXPECT_EQ(BlocksThatFit(options, 3 * 32 * 56 - 1), 2);
  EXPECT_EQ(BlocksThatFit(options, 3 * 32 * 56), 3);
  EXPECT_EQ(BlocksThatFit(options, 0), 0);
  EXPECT_EQ(BlocksThatFit({}, 100), INT32_MAX);
  EXPECT_EQ(Made(options)->nbytes(), 5U * 32 * 56);
}

// What a token of a head holds, unlike any other's: small integers, which bf16 holds exactly.
float Mark(int layer, int block, int offset, int head, int d) {
  return static_cast<float>((layer * 31 + block * 37 + offset * 41 + head * 43 + d * 47) % 251);
}

class Layouts : public testing::TestWithParam<std::tuple<DType, int32_t>> {};

TEST_P(Layouts, KeepEveryElementInAPlaceOfItsOwn) {
  const DType dtype = std::get<0>(GetParam());
  const int32_t block_tokens = std::get<1>(GetParam());
  const auto cache = Made(Uneven(dtype, block_tokens));
  const auto each = [&](const auto& visit) {
    for (const LayerShape& shape : cache->options().layers)
      for (int block = 0; block < cache->options().blocks; ++block)
        for (int offset = 0; offset < block_tokens; ++offset)
          for (int head = 0; head < shape.kv_heads; ++head)
            visit(*cache->Find(shape.layer), block, offset, head);
  };
  each([&](const KvCache::Layer& layer, int block, int offset, int head) {
    std::vector<float> key, value;
    for (int d = 0; d < layer.shape.key_dim; ++d)
      key.push_back(Mark(layer.shape.layer, block, offset, head, d));
    for (int e = 0; e < layer.shape.value_dim; ++e)
      value.push_back(-Mark(layer.shape.layer, block, offset, head, e));
    cache->Write(layer, block, offset, head, DType::kF32, key.data(), value.data());
  });
  const auto at = [=](const std::byte* tile, int index) {
    uint32_t bits = 0;
    const size_t bytes = ElementBytes(dtype);
    std::memcpy(&bits, tile + bytes * index, bytes);
    if (dtype == DType::kBF16) bits <<= 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  };
  each([&](const KvCache::Layer& layer, int block, int offset, int head) {
    const int tile = offset / kTileTokens, token = offset % kTileTokens;
    for (int d = 0; d < layer.shape.key_dim; ++d)
      EXPECT_EQ(at(cache->Keys(layer, block, head, tile), d * kTileTokens + token),
                Mark(layer.shape.layer, block, offset, head, d));
    for (int e = 0; e < layer.shape.value_dim; ++e)
      EXPECT_EQ(at(cache->Values(layer, block, head, tile), token * layer.shape.value_dim + e),
                -Mark(layer.shape.layer, block, offset, head, e));
  });
}

INSTANTIATE_TEST_SUITE_P(All, Layouts,
                         testing::Combine(testing::Values(DType::kF32, DType::kBF16),
                                          testing::Values(16, 32, 64)));

TEST(KvCache, RoundsToNearestEvenAndKeepsWhatIsNoNumber) {
  const auto cache = Made({.blocks = 1,
                           .layers = {{.layer = 0, .kv_heads = 1, .key_dim = 4, .value_dim = 4}},
                           .dtype = DType::kBF16});
  // 1 + 2^-8 lies between 1 and 1 + 2^-7: to the even one, 1; 1 + 3 * 2^-8 to 1 + 2^-6.
  const float key[4] = {1 + 0x1p-8F, 1 + 3 * 0x1p-8F, 1 + 0x1p-8F + 0x1p-20F, -INFINITY};
  const float value[4] = {std::nanf(""), INFINITY, 3.4e38F, -0.0F};
  cache->Write(*cache->Find(0), 0, 0, 0, DType::kF32, key, value);
  const auto bits = [](const std::byte* tile, int index) {
    uint16_t read;
    std::memcpy(&read, tile + sizeof read * index, sizeof read);
    return read;
  };
  const std::byte* keys = cache->Keys(*cache->Find(0), 0, 0, 0);
  EXPECT_EQ(bits(keys, 0 * kTileTokens), 0x3F80);
  EXPECT_EQ(bits(keys, 1 * kTileTokens), 0x3F82);
  EXPECT_EQ(bits(keys, 2 * kTileTokens), 0x3F81);
  EXPECT_EQ(bits(keys, 3 * kTileTokens), 0xFF80);
  const std::byte* values = cache->Values(*cache->Find(0), 0, 0, 0);
  EXPECT_EQ(bits(values, 0), 0x7FC0);
  EXPECT_EQ(bits(values, 1), 0x7F80);
  EXPECT_EQ(bits(values, 2), 0x7F80);
  EXPECT_EQ(bits(values, 3), 0x8000);
}

TEST(KvCache, TouchesOnlyMemoryThatIsWritten) {
  const auto cache = Made(
      {.blocks = 4096, .layers = {{.layer = 0, .kv_heads = 4, .key_dim = 128, .value_dim = 128}}});
  ASSERT_EQ(cache->nbytes(), uint64_t{4096} * 16 * 4 * 256 * 4);
  const std::vector<float> row(128, 1);
  cache->Write(*cache->Find(0), 4095, 15, 3, DType::kF32, row.data(), row.data());
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> resident(cache->nbytes() / page);
  auto* base = const_cast<std::byte*>(cache->Keys(*cache->Find(0), 0, 0, 0));
  ASSERT_EQ(::mincore(base, cache->nbytes(), resident.data()), 0);
  size_t touched = 0;
  for (const unsigned char is_resident : resident) touched += is_resident & 1;
  EXPECT_GE(touched, 1U);
  EXPECT_LE(touched * page, size_t{4} << 20);
}

TEST(KvCache, KnowsItsLayersAndNoOthers) {
  const auto cache = Made(Uneven(DType::kF32, 16));
  EXPECT_EQ(cache->Find(7)->shape.value_dim, 8);
  for (const int layer : {-1, 0, 4, 8, 1 << 20}) EXPECT_EQ(cache->Find(layer), nullptr) << layer;
}

TEST(KvCache, WhatCannotBeIsNamed) {
  const auto says = [](const std::function<void(Options&)>& change) {
    Options options = Uneven(DType::kF32, 16);
    change(options);
    return std::string(KvCache::Create(options).status().message());
  };
  EXPECT_THAT(says([](Options& o) { o.dtype = DType::kF16; }), HasSubstr("not f16"));
  EXPECT_THAT(says([](Options& o) { o.block_tokens = 24; }),
              HasSubstr("a block of 24 tokens is no multiple of 16"));
  EXPECT_THAT(says([](Options& o) { o.blocks = -1; }), HasSubstr("-1 blocks"));
  EXPECT_THAT(says([](Options& o) { o.layers[1].layer = 3; }), HasSubstr("layer 3 is there twice"));
  EXPECT_THAT(says([](Options& o) { o.layers[1].kv_heads = 0; }),
              HasSubstr("layer 7 has 0 heads of 4 and 8"));
  EXPECT_THAT(says([](Options& o) {
                o.blocks = INT32_MAX;
                o.layers[0] = {.layer = 0, .kv_heads = 65536, .key_dim = 65536, .value_dim = 1};
              }),
              HasSubstr("more than there is memory"));
}

}  // namespace
}  // namespace echelon::kv
