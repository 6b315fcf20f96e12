// The head's driver of a language model: text requests come in at the front doors, leave as steps
// for stage 0, and their tokens come back from the last stage. The schedule
// (runtime/schedule/continuous.h) decides; the driver keeps what a request is about and carries
// out.
//
// A step's frame carries input_ids and position_ids, i64 [1, T], rows, i64 [R], and in Frame::rows
// what step.h calls a Step. Its answer carries a step::Result in Frame::rows, and no tensor.
#ifndef ECHELON_RUNTIME_STAGE_TEXT_DRIVER_H_
#define ECHELON_RUNTIME_STAGE_TEXT_DRIVER_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/graph/graph.h"
#include "runtime/link/frame.h"
#include "runtime/schedule/continuous.h"
#include "runtime/serve/metrics.h"
#include "runtime/serve/text_backend.h"
#include "runtime/stage/head_driver.h"
#include "runtime/step/step.h"

namespace echelon::stage {

class TextDriver final : public serve::TextBackend, public HeadDriver {
 public:
  struct Options {
    std::string name;  // the model's
    // step_tokens: more where chunk_tokens is large, at most what the graph takes
    schedule::Continuous::Options schedule;
    absl::Duration request_timeout = absl::Minutes(5);
  };

  // submit: puts a step into stage 0, must not block. graph and metrics must outlive the driver.
  // kInvalidArgument: the graph is no language model's, or lacks an input (named); the cache has
  // no blocks; the graph takes no chunk so large.
  static absl::StatusOr<std::unique_ptr<TextDriver>> Create(
      Options options, const graph::Graph* graph, serve::Metrics* metrics,
      std::function<void(link::Frame)> submit);
  // Requests under way fail with kUnavailable, and every callback has returned afterwards.
  ~TextDriver() override;

  const serve::TextModelInfo& model() const override { return model_; }
  absl::Status Ready() const override;
  // on_token is called from one thread of the driver's own, refusals aside.
  void Generate(serve::TokenRequest request, serve::OnToken on_token) override;

  void SetWaiting(const std::string& reason) override;
  void EpochFormed(uint64_t epoch) override;
  void EpochClosed(const absl::Status& why) override;
  void Hold(std::function<void()> idle) override;
  void Shut(const std::string& why, std::function<void()> idle) override;
  void OnResult(link::Frame frame) override;

  // What a step may be at most: what stages parse it with.
  const step::Limits& limits() const { return limits_; }

 private:
  using RequestId = schedule::Continuous::RequestId;
  struct Pending;
  struct Delivery {
    std::shared_ptr<Pending> pending;
    absl::StatusOr<serve::TokenEvent> event;
  };
  struct Inputs {  // of the graph
    graph::ValueId tokens = -1, positions = -1, rows = -1;
    int64_t min_rows = 0;  // where the graph cannot do without
  };

  TextDriver(Options options, const Inputs& inputs, const graph::Graph& graph,
             serve::Metrics* metrics, std::function<void(link::Frame)> submit);

  // All under the lock.
  void Perform(const std::vector<schedule::Continuous::Action>& actions);
  void LaunchStep(const schedule::Continuous::Launch& launch);
  void Take(const std::vector<RequestId>& drawing, step::Result result,
            schedule::Continuous::StepDone* done);
  void Fail(RequestId id, const absl::Status& status);
  void CancelOverdue();
  void CancelAll();
  bool Takes() const;
  bool IsIdle() const;
  // Without it.
  void Deliver(std::deque<Delivery> deliveries);
  void Watch(std::stop_token stop);

  const Options options_;
  const Inputs inputs_;
  serve::Metrics* const metrics_;
  const std::function<void(link::Frame)> submit_;
  serve::TextModelInfo model_;
  step::Limits limits_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  schedule::Continuous schedule_;
  uint64_t epoch_ = 0;  // 0: none is formed
  std::string waiting_for_ = "the group has not formed yet";
  bool held_ = false, shut_ = false;
  absl::Time hold_until_;  // of SteadyNow's clock; while there is no epoch
  std::vector<std::function<void()>> on_idle_;
  RequestId next_request_ = 1;
  std::map<RequestId, std::shared_ptr<Pending>> pending_;  // those that the schedule knows
  std::map<schedule::Continuous::StepId, std::vector<RequestId>> flights_;  // who draws, in order
  std::deque<Delivery> deliveries_;
  int64_t preemptions_ = 0;  // counted so far
  std::jthread watch_;       // calls back; deadlines, and clients that have gone
};

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_TEXT_DRIVER_H_
