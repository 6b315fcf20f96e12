// A stage's stored tensors: from records of the model's archive, or from a checkpoint by recipes.
#ifndef ECHELON_RUNTIME_EXEC_PARAMETERS_H_
#define ECHELON_RUNTIME_EXEC_PARAMETERS_H_

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/graph/graph.h"
#include "runtime/weights/checkpoint.h"
#include "runtime/weights/loader.h"

namespace echelon::exec {

// Collects what to read, reads it once, makes tensors of it. Tied tensors share their memory.
class Parameters {
 public:
  // checkpoint: for tensors with a recipe; null when there are none. verify: against the archive's
  // CRC-32.
  Parameters(const weights::Checkpoint* checkpoint, bool verify)
      : checkpoint_(checkpoint), verify_(verify) {}

  // Takes note of one more tensor. Errors name it: a recipe that the checkpoint does not fit.
  absl::Status Add(const graph::Stored& stored);

  // kv_bytes: what the stage's KV cache may come to, for the check of memory.
  absl::Status Load(weights::WeightSource& source, int threads, const weights::Progress& progress,
                    uint64_t kv_bytes = 0);

  // After Load; of a tensor that was added. Throws c10::Error when a recipe fails in torch.
  at::Tensor Make(const graph::Stored& stored);

  // The arena's bytes that a tensor lies in, when nothing else that was added lies there: none of a
  // computed one. nullopt: it is tied, or has no elements.
  std::optional<absl::Span<std::byte>> OwnBytes(const graph::Stored& stored) const;

  const std::shared_ptr<weights::Arena>& arena() const { return loaded_.arena; }
  uint64_t nbytes() const { return nbytes_; }  // of all tensors, tied ones once

 private:
  struct Entry {
    weights::Source source;  // resolved; a record's counts as one range
    size_t first = 0;        // of its ranges
    int users = 0;
    at::Tensor made;  // computed ones that are tied
  };
  static std::string KeyOf(const graph::Stored& stored);
  void AddRanges(const weights::Source& source);
  at::Tensor Evaluate(const weights::Source& source, size_t* range);

  const weights::Checkpoint* const checkpoint_;
  const bool verify_;
  std::vector<weights::Range> ranges_;
  std::map<std::string, Entry> entries_;
  weights::Loaded loaded_;
  uint64_t nbytes_ = 0, read_bytes_ = 0;
};

}  // namespace echelon::exec

#endif  // ECHELON_RUNTIME_EXEC_PARAMETERS_H_
