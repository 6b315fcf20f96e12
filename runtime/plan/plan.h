// Which nodes run on which stage, as a value: rank 0 computes it, every rank verifies its digest.
#ifndef ECHELON_RUNTIME_PLAN_PLAN_H_
#define ECHELON_RUNTIME_PLAN_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/graph/graph.h"

namespace echelon::plan {

struct Stage {
  int rank = 0;
  int begin = 0, end = 0;  // nodes [begin, end) of the graph after passes
  std::vector<graph::ValueId>
      receives;  // values that come from rank - 1 (graph inputs for rank 0), ascending
  std::vector<graph::ValueId>
      sends;  // values that go to rank + 1 (graph outputs for the last), ascending, relays included
  std::vector<int> recomputes;       // nodes before begin that it runs too, in order (recompute.h)
  std::vector<std::string> modules;  // paths, shortened to the topmost that lie wholly in the stage
  int64_t parameters = 0;            // elements of its parameters, each once
  int64_t weight_bytes =
      0;  // bytes it reads and keeps: parameters, buffers, constants, each record once
  int64_t send_bytes = 0;  // of `sends` to the next stage (0 for the last) at the exported sizes
  int64_t kv_bytes_per_token = 0;  // of its attention layers' cache
  double share = 0;                // predicted share of the slowest stage's time, 0..1
};

struct Plan {
  std::string policy;
  std::string graph_digest;
  std::string digest;  // of everything above and below: 32 hex digits
  std::vector<Stage> stages;
  int64_t kv_blocks = 0;  // of every stage's KV cache: what the smallest one holds; 0: no text
};

inline constexpr int kKvBlockTokens = 16;

// Of a stage's KV cache, once every block is in use.
int64_t KvBytes(const Stage& stage, int64_t kv_blocks);

struct Options {
  int stages = 1;
  std::string policy = "balanced";  // balanced | equal-size | threshold | points | measured
  int64_t threshold_bytes = 0;      // threshold: weight bytes a stage may hold
  std::vector<std::string> points;  // points: a cut before the first node of each of these modules
  std::vector<int64_t> stage_memory_bytes;  // empty: unlimited; one for all, or one a stage
  std::vector<double> stage_speed;          // empty: equal; relative, one a stage
  std::vector<int64_t> node_times_ns;       // measured: one a node
  int64_t kv_memory_bytes = 0;              // text: of each stage's KV cache
};

// Every number k in (0, nodes) for which a cut before node k changes no result; see legal_cuts.h
// for the rules.
std::vector<int> LegalCuts(const graph::Graph& graph, const graph::SchemaLookup& schemas);

// Errors name the policy, the stage or the module: more stages than legal cuts (and how many there
// are), a stage that fits no memory (bytes wanted and had), a point that is no module or no legal
// cut.
absl::StatusOr<Plan> MakePlan(const graph::Graph& graph, const graph::SchemaLookup& schemas,
                              const Options& options);

// {"policy", "graph_digest", "digest", "stages": [{"rank", "begin", "end", "nodes": [names],
// "modules": [paths], "parameters", "weight_bytes", "send_bytes", "share"}]}
std::string ToJson(const Plan& plan, const graph::Graph& graph);

// Parses ToJson's text from another rank and verifies it against the graph: digests, node ranges,
// ranks.
absl::StatusOr<Plan> FromJson(const std::string& json, const graph::Graph& graph);

// A table, one line a stage.
std::string ToText(const Plan& plan, const graph::Graph& graph);

}  // namespace echelon::plan

#endif  // ECHELON_RUNTIME_PLAN_PLAN_H_
