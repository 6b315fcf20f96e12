// The seam between the front doors and what answers: the head's driver stands behind it
// (runtime/stage/driver.h).
#ifndef ECHELON_RUNTIME_SERVE_BACKEND_H_
#define ECHELON_RUNTIME_SERVE_BACKEND_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/tensor/tensor.h"

namespace echelon::serve {

struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // -1: dynamic
};

struct ModelInfo {
  std::string name;
  std::string version = "1";
  std::string platform = "echelon_pt2";
  std::vector<TensorSpec> inputs, outputs;
};

struct InferRequest {
  std::string id;
  std::vector<NamedTensor> inputs;
  std::vector<std::string> outputs;  // wanted; empty: all
  absl::Time deadline = absl::InfiniteFuture();
  std::shared_ptr<std::atomic<bool>>
      cancelled;  // may be null; set by a front door whose client has gone
};

struct InferResult {
  std::vector<NamedTensor> outputs;
};

// Exactly one call, from any thread, must not block.
using InferDone = std::function<void(absl::StatusOr<InferResult>)>;

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const ModelInfo& model() const = 0;
  // Ok, or kUnavailable with the reason ("waiting for rank 1").
  virtual absl::Status Ready() const = 0;
  // kInvalidArgument: names the input and what it should be; kResourceExhausted: the queue is full;
  // kUnavailable: no epoch, or a stage was lost in mid-request; kDeadlineExceeded; kCancelled;
  // kInternal: an operator failed (stage, node, why).
  virtual void Infer(InferRequest request, InferDone done) = 0;
};

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_BACKEND_H_
