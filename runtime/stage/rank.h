// One rank's data plane: its stage's module, its two links, and the threads between them.
//
//   previous rank --link--> [receive thread] -> queue -> [compute thread: module] --link--> next
//   rank
//
// On the head the queue is fed by the driver, and the receive thread hands the last stage's results
// to it. A group of one rank has no links: results go straight to the driver.
#ifndef ECHELON_RUNTIME_STAGE_RANK_H_
#define ECHELON_RUNTIME_STAGE_RANK_H_

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "runtime/exec/stage_module.h"
#include "runtime/graph/graph.h"
#include "runtime/group/group.h"
#include "runtime/link/tcp_link.h"
#include "runtime/serve/metrics.h"

namespace echelon::stage {

class Rank final : public group::Member {
 public:
  struct Options {
    int rank = 0, world = 1;
    int threads = 0;                                  // that read weights; 0: one a usable core
    bool verify = true;                               // exec::LoadOptions::verify
    bool exact = false;                               // exec::LoadOptions::exact
    const weights::Checkpoint* checkpoint = nullptr;  // must outlive the rank
    link::FrameLimits limits;
    link::LinkOptions link;
  };
  // What the world outside the data plane wants to hear. All may be null; from any thread; must not
  // block.
  struct Hooks {
    std::function<void(const plan::Plan&, const plan::Stage&)> planned;  // before weights are read
    std::function<void(uint64_t read_bytes, uint64_t weight_bytes)> loaded;
    std::function<void(link::Frame)> result;  // head: what the last stage sent
    std::function<void(uint64_t epoch)> formed;
    std::function<void(const absl::Status& why)> closed;
    std::function<void(std::function<void()> idle)> hold;  // head: group::Member::Hold
    std::function<void(uint64_t epoch, const absl::Status& why)>
        failed;  // a link broke: tell the group
  };

  // graph, listener (null in a group of one) and metrics must outlive the rank.
  Rank(const Options& options, const graph::Graph* graph, link::TcpListener* listener,
       serve::Metrics* metrics, Hooks hooks);
  ~Rank() override;

  // From any thread.
  struct Reading {
    uint64_t read_bytes = 0, total_bytes = 0;  // of the stage's weights
  };
  std::optional<Reading> reading() const;  // none: no weights are being read
  bool loading() const { return loading_; }

  // Head: a step for stage 0, run after those submitted before. Dropped when its epoch is over.
  void Submit(link::Frame frame);

  absl::Status Load(const std::string& plan_json,
                    std::function<void(int64_t, int64_t)> progress) override;
  absl::Status OpenEpoch(const group::Epoch& epoch, absl::Duration timeout) override;
  void CancelOpen(uint64_t epoch) override;
  void EpochFormed(uint64_t epoch) override;
  void CloseEpoch(uint64_t epoch, const absl::Status& why) override;
  void Hold(uint64_t epoch, std::function<void()> idle) override;

 private:
  struct Links {
    uint64_t epoch = 0;
    std::unique_ptr<link::Link> in, out;  // null in a group of one
    std::atomic<bool> closed = false;
    std::jthread receiver;
  };
  struct Work {
    std::shared_ptr<Links> links;
    link::Frame frame;
  };

  absl::Status LoadStage(const plan::Plan& plan,
                         const std::function<void(int64_t, int64_t)>& progress);
  void Receive(const std::shared_ptr<Links>& links);
  void Compute();
  void Run(Work work);
  void Push(Work work);

  const Options options_;
  const graph::Graph* const graph_;
  link::TcpListener* const listener_;
  serve::Metrics* const metrics_;
  const Hooks hooks_;

  // Used by the compute thread; set while no epoch is open and it computes nothing.
  std::unique_ptr<exec::StageModule> module_;
  std::string plan_digest_;
  std::atomic<bool> loading_ = false;
  mutable std::mutex reading_mutex_;
  const weights::WeightSource* source_ = nullptr;  // while it is read from
  uint64_t reading_bytes_ = 0;
  std::atomic<bool> dial_cancelled_ = false;
  std::atomic<uint64_t> cancelled_through_ = 0;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Work> queue_;        // bounded by the head's window
  std::shared_ptr<Links> links_;  // of the open epoch
  bool computing_ = false, stopping_ = false;
  std::thread compute_;
};

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_RANK_H_
