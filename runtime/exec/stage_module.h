// One stage's part of the graph, with its weights, ready to run.
#ifndef ECHELON_RUNTIME_EXEC_STAGE_MODULE_H_
#define ECHELON_RUNTIME_EXEC_STAGE_MODULE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/graph/graph.h"
#include "runtime/link/frame.h"
#include "runtime/plan/plan.h"
#include "runtime/weights/checkpoint.h"
#include "runtime/weights/loader.h"

namespace echelon::exec {

// The seam between a stage and what computes it. Not thread-safe: one thread runs it.
class StageModule {
 public:
  virtual ~StageModule() = default;

  // Replaces the frame's values, which are the stage's `receives`, by its `sends`, which share no
  // memory with the module's weights and buffers. A text model's frame says in `rows` whose tokens
  // these are (step::Step). kInvalidArgument: a value is missing or of
  // another dtype; kInternal: an operator failed (node, target and why).
  virtual absl::Status Run(link::Frame& frame) = 0;

  virtual uint64_t weight_bytes() const = 0;
  virtual uint64_t kv_bytes() const = 0;  // text: of its KV cache, touched or not
};

struct LoadOptions {
  int threads = 0;  // that read weights and run operators; 0: one a usable core
  weights::Progress progress;
  const weights::Checkpoint* checkpoint = nullptr;  // for parameters that have a recipe
  bool verify = true;  // weights against the CRC-32 that the file states for them
  // Runs the very operators that eager PyTorch runs, so that results are equal to the last bit.
  // Otherwise linear layers are packed (packed_linear.h), and sums may round in another order.
  bool exact = false;  // no effect on language models: their rows are computed one by one
  // Smaller weights are not packed: a call of oneDNN costs more than it gains.
  int64_t least_packed_elements = 1 << 14;
  std::vector<int64_t>* node_times_ns =
      nullptr;  // when given, Run adds each node's time at its index in the graph
  // The whole storage that a value lies in; empty for what is no tensor.
  using StorageOf = std::function<absl::Span<const std::byte>(graph::ValueId)>;
  // Text: blocks of the KV cache (plan::Plan::kv_blocks).
  int64_t kv_blocks = 0;
  // Text: the last stage answers with the tokens it drew (step::Result in the frame's `rows`);
  // otherwise with the logits, as any model does.
  bool draws = true;
  // When given, Run calls it after each node (index in the graph), while the node's arguments are
  // still alive.
  std::function<void(int node, const StorageOf&)> observe;
};

// Resolves every operator of graph nodes [stage.begin, stage.end), then reads the stage's weights,
// each record once. Errors come before any weight is read, where they can: unknown operator (node
// and target), tensor, memory, a CPU that lacks bf16.
absl::StatusOr<std::unique_ptr<StageModule>> LoadStage(const graph::Graph& graph,
                                                       const plan::Stage& stage,
                                                       weights::WeightSource& source,
                                                       const LoadOptions& options);

// Threads of torch's one pool; 0: one a usable core. Before the first Run.
void SetThreads(int threads);

}  // namespace echelon::exec

#endif  // ECHELON_RUNTIME_EXEC_STAGE_MODULE_H_
