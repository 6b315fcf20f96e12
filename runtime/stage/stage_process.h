// One rank of a pipeline as a process: everything is wired here, by hand.
#ifndef ECHELON_RUNTIME_STAGE_STAGE_PROCESS_H_
#define ECHELON_RUNTIME_STAGE_STAGE_PROCESS_H_

#include <atomic>
#include <csignal>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "runtime/group/group.h"
#include "runtime/serve/grpc_server.h"
#include "runtime/serve/health_server.h"
#include "runtime/serve/http_server.h"
#include "runtime/serve/metrics.h"
#include "runtime/serve/text_only.h"
#include "runtime/serve/text_request.h"
#include "runtime/stage/driver.h"
#include "runtime/stage/rank.h"
#include "runtime/stage/report.h"
#include "runtime/stage/stage_flags.h"
#include "runtime/stage/text_driver.h"
#include "runtime/sync/mutex.h"

namespace echelon::stage {

class StageProcess {
 public:
  // stop_signals are blocked in every thread: one of this object's takes them.
  StageProcess(StageFlags flags, const sigset_t& stop_signals);

  // Until the rank is told to stop (ok) or cannot go on. May end the process instead, when a second
  // signal comes, or loading stands still, or it is told to stop while it reads.
  absl::Status Run();

  // Says an error where people and programs look for it: stderr, --report-fd and
  // --report-termination.
  void Say(const absl::Status& status);

  // The process ends here, without waiting for anything.
  [[noreturn]] static void Quit(int status);

 private:
  bool is_head() const { return flags_.rank == 0; }
  serve::Backend* backend() const {  // behind the v2 doors; null on workers
    return tensors_ ? static_cast<serve::Backend*>(tensors_.get()) : text_only_.get();
  }

  // Opening, in this order: ports first (a taken one is said before weights are read), then the
  // group, which loads and forms; the doors answer NOT_SERVING until it has.
  absl::Status Start();
  absl::Status Open();
  absl::Status OpenCheckpoint();
  absl::Status Listen();
  absl::Status MakeDriver();
  absl::Status OpenDoors();
  absl::Status OpenGrpc(const std::string& no_backend, int64_t max_bytes,
                        const serve::RequestLog& log);
  absl::Status Join();
  Rank::Hooks MakeHooks();

  // What others see.
  void Print(const plan::Plan& plan, const plan::Stage& stage);
  void OnStatus(const group::GroupStatus& status);
  absl::Status Ready() const;
  std::string StatusJson() const;
  void SetReady(bool ready);

  // Ending (stage_stop.cc).
  void WatchSignals();
  void WatchLoading(const std::stop_token& stop);
  void StopHead(bool told);
  void StopWorker(bool told);
  void Stop(bool told);  // told: by a signal; otherwise the group has ended

  const StageFlags flags_;
  const sigset_t stop_signals_;
  stage::Report report_;
  std::unique_ptr<serve::HealthServer> health_;
  Model model_;
  std::string plan_json_;
  std::atomic<bool> formed_ = false, draining_ = false, opening_ = false, started_ = false,
                    ended_ = false;
  std::once_flag stop_once_;
  mutable std::mutex status_mutex_;
  group::GroupStatus status_;
  std::unique_ptr<serve::Metrics> metrics_;
  std::unique_ptr<link::TcpListener> listener_;
  std::unique_ptr<Rank> rank_;
  std::optional<weights::Checkpoint> checkpoint_;
  int64_t kv_blocks_ = 0;
  serve::TextFiles text_files_;
  // On the head one of them, by the model's kind; driver_ is whichever it is.
  std::unique_ptr<Driver> tensors_;
  std::unique_ptr<TextDriver> text_;
  std::unique_ptr<serve::TextOnly> text_only_;
  HeadDriver* driver_ = nullptr;
  std::unique_ptr<grpc::Service> text_service_;
  std::unique_ptr<serve::HttpServer> http_;
  std::unique_ptr<serve::GrpcServer> grpc_;
  std::unique_ptr<serve::MetricsServer> metrics_server_;
  std::mutex node_mutex_;
  std::unique_ptr<group::Node> node_;
};

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_STAGE_PROCESS_H_
