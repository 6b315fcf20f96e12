// What nodes cost, in nanoseconds on a reference core, from FLOPs and bytes at the exported sizes.
// Only ratios matter; integers keep the plan the same on every machine.
#ifndef ECHELON_RUNTIME_PLAN_COST_H_
#define ECHELON_RUNTIME_PLAN_COST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/graph/graph.h"

namespace echelon::plan {

// The reference: an AVX-512 core in f32 (about 90 GFLOP/s in at::linear, 33 GB/s from memory)
// behind a 10 Gbit/s link.
inline constexpr int64_t kFlopsPerNs = 90;
inline constexpr int64_t kBytesPerNs = 30;
inline constexpr int64_t kOverheadNs = 1000;  // of calling an operator
inline constexpr int64_t kViewNs = 300;
inline constexpr int64_t kScalarNs = 100;
inline constexpr double kLinkBytesPerNs = 1.25;

// Sizes come from an untrusted file: arithmetic saturates here.
inline constexpr int64_t kMost = int64_t{1} << 60;
int64_t SaturatingMultiply(int64_t a, int64_t b);  // of non-negative numbers, at most kMost
int64_t SaturatingAdd(int64_t a, int64_t b);

int64_t Elements(const graph::Value& value);    // at the exported sizes
int64_t ValueBytes(const graph::Value& value);  // scalars count 8 bytes, none 0

int64_t Flops(const graph::Graph& graph, const graph::Node& node);  // 0 for what moves bytes only
std::vector<int64_t> NodeCosts(const graph::Graph& graph, const graph::SchemaLookup& schemas);

std::string BytesText(int64_t bytes);  // "5.2 GiB"
std::string CountText(int64_t count);  // "1.2 M"

}  // namespace echelon::plan

#endif  // ECHELON_RUNTIME_PLAN_COST_H_
