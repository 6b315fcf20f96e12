// What a stage of a language model has beside its nodes: its layers' KV cache, the step in
// progress, and, on the last stage, the drawing of tokens.
#ifndef ECHELON_RUNTIME_EXEC_TEXT_STAGE_H_
#define ECHELON_RUNTIME_EXEC_TEXT_STAGE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/graph/graph.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/link/frame.h"
#include "runtime/ops/operators.h"
#include "runtime/plan/plan.h"
#include "runtime/step/step.h"

namespace echelon::exec {

// Used by the stage's one compute thread.
class TextStage {
 public:
  // The graph must have `text`. Errors name the KV cache's size.
  static absl::StatusOr<std::unique_ptr<TextStage>> Open(const graph::Graph& graph,
                                                         const plan::Stage& stage,
                                                         int64_t kv_blocks);

  // Reads the step that the frame is about; kInvalidArgument for one that is malformed.
  absl::Status Begin(const link::Frame& frame);
  const ops::StepContext* context() const { return &context_; }

  // logits: [1, R, V]. Puts what was drawn into the frame, in place of the step; a row that cannot
  // be drawn from fails alone.
  absl::Status Draw(const at::Tensor& logits, link::Frame& frame) const;

  uint64_t kv_bytes() const { return cache_->nbytes(); }

 private:
  TextStage(step::Limits limits, std::unique_ptr<kv::KvCache> cache);
  const step::Limits limits_;
  const std::unique_ptr<kv::KvCache> cache_;
  step::Step step_;
  ops::StepContext context_;
};

}  // namespace echelon::exec

#endif  // ECHELON_RUNTIME_EXEC_TEXT_STAGE_H_
