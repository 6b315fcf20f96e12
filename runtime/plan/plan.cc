#include "runtime/plan/plan.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/graph/byte_source.h"
#include "runtime/graph/status_macros.h"
#include "runtime/plan/cost.h"
#include "runtime/plan/load.h"
#include "runtime/plan/partition.h"
#include "runtime/plan/plan_digest.h"
#include "runtime/plan/policies.h"

namespace echelon::plan {
namespace {

using graph::Graph;

constexpr int64_t kMostKvBlocks = int64_t{1} << 30;

// One entry a stage from none, one for all, or one each.
template <class T>
absl::StatusOr<std::vector<T>> Spread(const std::vector<T>& given, T missing, int stages,
                                      const std::string& flag) {
  std::vector<T> spread(stages, missing);
  if (given.size() == 1) std::fill(spread.begin(), spread.end(), given[0]);
  if (given.size() > 1) spread = given;
  if (static_cast<int>(spread.size()) != stages) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " has ", given.size(), " entries for ",
                                                   stages, " stages; give one, or one a stage"));
  }
  return spread;
}

absl::StatusOr<Machines> ReadMachines(const Options& options) {
  Machines machines;
  ECHELON_ASSIGN_OR_RETURN(machines.memory_bytes,
                           Spread(options.stage_memory_bytes, std::numeric_limits<int64_t>::max(),
                                  options.stages, "--stage-memory"));
  ECHELON_ASSIGN_OR_RETURN(machines.speed,
                           Spread(options.stage_speed, 1.0, options.stages, "--stage-speed"));
  for (const double speed : machines.speed) {
    if (!(speed >= 1e-6 && speed <= 1e6)) {
      return absl::InvalidArgumentError(absl::StrCat("--stage-speed ", speed, " is not above 0"));
    }
  }
  return machines;
}

// kv_bytes: of each stage's KV cache, already taken off what the machines have.
absl::Status CheckMemory(const Load& load, const std::vector<int>& bounds, const Machines& machines,
                         int64_t kv_bytes) {
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    const int64_t needed = load.WeightBytes(bounds[s], bounds[s + 1]);
    if (needed <= machines.memory_bytes[s]) continue;
    const std::string kv =
        kv_bytes == 0 ? "" : absl::StrCat(" and ", BytesText(kv_bytes), " (--kv-memory)");
    return absl::ResourceExhaustedError(absl::StrCat(
        "stage ", s, " needs ", BytesText(needed), " (weights)", kv,
        " but --stage-memory gives it ", BytesText(machines.memory_bytes[s] + kv_bytes)));
  }
  return absl::OkStatus();
}

// When no split fits, the error tells of the split that would have been taken with memory enough.
absl::StatusOr<std::vector<int>> BalanceWithin(const Load& load, const std::vector<int>& cuts,
                                               const std::vector<int64_t>& costs,
                                               const Machines& machines, int64_t kv_bytes) {
  std::vector<int> bounds = Balance(load, cuts, costs, machines);
  if (!bounds.empty()) return bounds;
  Machines unlimited = machines;
  std::fill(unlimited.memory_bytes.begin(), unlimited.memory_bytes.end(),
            std::numeric_limits<int64_t>::max());
  ECHELON_RETURN_IF_ERROR(
      CheckMemory(load, Balance(load, cuts, costs, unlimited), machines, kv_bytes));
  return absl::InternalError("no split fits --stage-memory");
}

absl::StatusOr<std::vector<int>> Bounds(const Graph& graph, const Load& load,
                                        const std::vector<int>& cuts,
                                        const std::vector<int64_t>& costs, const Options& options,
                                        const Machines& machines) {
  if (options.policy == "balanced" || options.policy == "measured") {
    return BalanceWithin(load, cuts, costs, machines, options.kv_memory_bytes);
  }
  if (options.policy == "equal-size") return EqualSize(load, cuts, options.stages);
  if (options.policy == "threshold") {
    return Threshold(load, cuts, options.threshold_bytes, options.stages);
  }
  return Points(graph, cuts, options.points, options.stages);
}

absl::Status CheckOptions(const Graph& graph, const Options& options) {
  const std::string& policy = options.policy;
  if (policy != "balanced" && policy != "equal-size" && policy != "threshold" &&
      policy != "points" && policy != "measured") {
    return absl::InvalidArgumentError(
        absl::StrCat("policy ", graph::Quoted(policy),
                     " is not known; use balanced, equal-size, threshold, points or measured"));
  }
  if (options.stages < 1) {
    return absl::InvalidArgumentError(absl::StrCat("--stages ", options.stages, " is below 1"));
  }
  if (policy != "measured") return absl::OkStatus();
  if (options.node_times_ns.size() != graph.nodes.size()) {
    return absl::InvalidArgumentError(absl::StrCat("policy measured needs a time for each of the ",
                                                   graph.nodes.size(), " nodes, ",
                                                   options.node_times_ns.size(), " given"));
  }
  for (const int64_t time : options.node_times_ns) {
    if (time < 0) return absl::InvalidArgumentError("policy measured: a node's time is negative");
  }
  return absl::OkStatus();
}

// Of a language model's cuts those that send little more than the least between one attention and
// the next: every token of every step crosses them, one user's too, where time is latency and not
// FLOPs. There are two a layer, after residual additions. Layers are not compared with each other:
// some take an input of their own, which is sent past all layers before them.
std::vector<int> NarrowCuts(const Graph& graph, const Load& load, const std::vector<int>& cuts,
                            int stages) {
  const auto layers = graph::AttentionLayers(graph, 0, load.nodes);
  if (layers.empty()) return cuts;
  std::vector<int> narrow;
  for (size_t i = 0; i + 1 < layers.size(); ++i) {
    const auto begin = std::upper_bound(cuts.begin(), cuts.end(), layers[i].node);
    const auto end = std::upper_bound(begin, cuts.end(), layers[i + 1].node);
    int64_t least = kMost;
    for (auto cut = begin; cut != end; ++cut) least = std::min(least, load.send_bytes[*cut]);
    std::copy_if(begin, end, std::back_inserter(narrow),
                 [&](int cut) { return load.send_bytes[cut] <= least + least / 4; });
  }
  return static_cast<int>(narrow.size()) >= stages - 1 ? narrow : cuts;
}

// All stages hold the same tokens, so the one whose tokens take most decides.
absl::StatusOr<int64_t> KvBlocks(const std::vector<Stage>& stages, int64_t memory_bytes) {
  const auto most = std::max_element(
      stages.begin(), stages.end(),
      [](const Stage& a, const Stage& b) { return a.kv_bytes_per_token < b.kv_bytes_per_token; });
  const int64_t block_bytes = SaturatingMultiply(most->kv_bytes_per_token, kKvBlockTokens);
  if (block_bytes == 0) return kMostKvBlocks;
  if (memory_bytes < block_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv-memory ", BytesText(memory_bytes), " holds no block of ", kKvBlockTokens,
                     " tokens, which takes ", BytesText(block_bytes), " on stage ", most->rank));
  }
  return std::min(memory_bytes / block_bytes, kMostKvBlocks);
}

}  // namespace

int64_t KvBytes(const Stage& stage, int64_t kv_blocks) {
  return SaturatingMultiply(SaturatingMultiply(stage.kv_bytes_per_token, kKvBlockTokens),
                            kv_blocks);
}

absl::StatusOr<Plan> MakePlan(const Graph& graph, const graph::SchemaLookup& schemas,
                              const Options& options) {
  ECHELON_RETURN_IF_ERROR(CheckOptions(graph, options));
  std::vector<int> cuts = LegalCuts(graph, schemas);
  if (options.stages - 1 > static_cast<int>(cuts.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("policy ", options.policy, ": ", options.stages, " stages need ",
                     options.stages - 1, " cuts, but the graph has ", cuts.size(),
                     " legal ones; use at most --stages ", cuts.size() + 1));
  }
  ECHELON_ASSIGN_OR_RETURN(Machines machines, ReadMachines(options));
  for (int64_t& memory_bytes : machines.memory_bytes) memory_bytes -= options.kv_memory_bytes;
  const Load load(graph);
  if (graph.text && options.policy == "balanced")
    cuts = NarrowCuts(graph, load, cuts, options.stages);
  const std::vector<int64_t> costs =
      options.policy == "measured" ? options.node_times_ns : NodeCosts(graph, schemas);
  ECHELON_ASSIGN_OR_RETURN(const std::vector<int> bounds,
                           Bounds(graph, load, cuts, costs, options, machines));
  ECHELON_RETURN_IF_ERROR(CheckMemory(load, bounds, machines, options.kv_memory_bytes));

  Plan plan{.policy = options.policy, .graph_digest = graph.digest};
  std::vector<int64_t> times;
  for (int s = 0; s < options.stages; ++s) {
    plan.stages.push_back(DescribeStage(graph, load, s, options.stages, bounds[s], bounds[s + 1]));
    int64_t compute = 0;
    for (int i = bounds[s]; i < bounds[s + 1]; ++i) compute = SaturatingAdd(compute, costs[i]);
    times.push_back(StageTime(compute, machines.speed[s], plan.stages.back().send_bytes));
  }
  if (graph.text) {
    ECHELON_ASSIGN_OR_RETURN(plan.kv_blocks, KvBlocks(plan.stages, options.kv_memory_bytes));
  }
  const int64_t slowest = std::max<int64_t>(1, *std::max_element(times.begin(), times.end()));
  for (int s = 0; s < options.stages; ++s) {
    // Rounded, so that it survives text.
    plan.stages[s].share =
        std::round(static_cast<double>(times[s]) / static_cast<double>(slowest) * 1e4) / 1e4;
  }
  plan.digest = DigestOf(plan);
  return plan;
}

}  // namespace echelon::plan
