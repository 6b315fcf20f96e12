// The head's driver: requests come in at the front doors, leave as micro-batches for stage 0, and
// come back from the last stage as results. The schedule (runtime/schedule) decides; the driver
// carries out.
#ifndef ECHELON_RUNTIME_STAGE_DRIVER_H_
#define ECHELON_RUNTIME_STAGE_DRIVER_H_

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "runtime/graph/batch.h"
#include "runtime/graph/graph.h"
#include "runtime/link/frame.h"
#include "runtime/schedule/fill_drain.h"
#include "runtime/serve/backend.h"
#include "runtime/serve/metrics.h"
#include "runtime/stage/head_driver.h"

namespace echelon::stage {

class Driver final : public serve::Backend, public HeadDriver {
 public:
  struct Options {
    std::string name;       // the model's
    int chunks = 1;         // micro-batches a request is split into
    int window = 4;         // steps in flight at most
    int max_waiting = 256;  // requests; one more is kResourceExhausted
    // Of the inputs of all that is not yet answered; above it kResourceExhausted. One request alone
    // always has room: the front doors bound it.
    int64_t max_input_bytes = int64_t{1} << 30;
    absl::Duration request_timeout = absl::Minutes(5);
  };

  // submit: puts a step into stage 0, must not block. graph and metrics must outlive the driver.
  Driver(const Options& options, const graph::Graph* graph, const graph::BatchInfo& batch,
         serve::Metrics* metrics, std::function<void(link::Frame)> submit);
  ~Driver() override;

  const serve::ModelInfo& model() const override { return model_; }
  absl::Status Ready() const override;
  void Infer(serve::InferRequest request, serve::InferDone done) override;

  void SetWaiting(const std::string& reason) override;
  void EpochFormed(uint64_t epoch) override;
  void EpochClosed(const absl::Status& why) override;
  void Hold(std::function<void()> idle) override;
  void Shut(const std::string& why, std::function<void()> idle) override;
  void OnResult(link::Frame frame) override;

 private:
  struct Pending;
  struct Flight {
    std::shared_ptr<Pending> request;
    int64_t first_row = 0;
  };
  using Answers = std::vector<std::function<void()>>;  // called without the lock

  void Perform(const std::vector<schedule::Action>& actions, Answers* answers);
  void LaunchStep(const schedule::Launch& launch);
  void Answer(schedule::RequestId id, absl::StatusOr<serve::InferResult> result, Answers* answers);
  void CancelAll(Answers* answers);
  bool Takes() const;
  bool IsIdle() const;
  void Watch(std::stop_token stop);

  const Options options_;
  const graph::Graph* const graph_;
  const graph::BatchInfo batch_;
  serve::Metrics* const metrics_;
  const std::function<void(link::Frame)> submit_;
  serve::ModelInfo model_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::unique_ptr<schedule::FillDrain> schedule_;
  uint64_t epoch_ = 0;  // 0: none is formed
  std::string waiting_for_ = "the group has not formed yet";
  bool held_ = false, shut_ = false;
  absl::Time hold_until_;  // of SteadyNow's clock; while there is no epoch
  std::vector<std::function<void()>> on_idle_;
  schedule::RequestId next_request_ = 1;
  std::map<schedule::RequestId, std::shared_ptr<Pending>> pending_;
  int64_t pending_bytes_ = 0;  // of their inputs
  std::map<schedule::StepId, Flight> flights_;
  std::jthread watch_;  // deadlines, and clients that have gone
};

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_DRIVER_H_
