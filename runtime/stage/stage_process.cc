#include "runtime/stage/stage_process.h"

#include <spdlog/spdlog.h>
#include <torch/version.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "runtime/graph/printer.h"
#include "runtime/host_port.h"
#include "runtime/plan/cost.h"
#include "runtime/serve/text_service.h"
#include "runtime/version.h"

namespace echelon::stage {
namespace {

constexpr int kPrintedNodes = 400;  // a longer stage prints its code only by `echelon plan --code`

}  // namespace

StageProcess::StageProcess(StageFlags flags, const sigset_t& stop_signals)
    : flags_(std::move(flags)), stop_signals_(stop_signals), report_(flags_.report_fd) {}

absl::Status StageProcess::Start() {
  if (flags_.health_port > 0) {
    absl::StatusOr<std::unique_ptr<serve::HealthServer>> health =
        serve::HealthServer::Start(flags_.bind, flags_.health_port);
    if (!health.ok()) return health.status();
    health_ = *std::move(health);
  }
  absl::Status status = Open();
  if (status.ok()) status = Listen();
  if (status.ok()) status = Join();
  started_ = status.ok();
  return status;
}

absl::Status StageProcess::Open() {
  const absl::Cleanup opened = [this] { opening_ = false; };
  opening_ = true;
  absl::StatusOr<Model> model = OpenModel(flags_.model);
  if (!model.ok()) return model.status();
  model_ = *std::move(model);
  if (absl::Status status = OpenCheckpoint(); !status.ok()) return status;
  if (flags_.chunks > 1 && !model_.batch.chunkable)
    return absl::InvalidArgumentError(
        absl::StrCat("--chunks ", flags_.chunks, ": ", flags_.model,
                     " cannot be split into micro-batches: ", model_.batch.why));
  opening_ = false;  // to measure nodes takes its time
  if (is_head()) {
    const absl::StatusOr<plan::Plan> plan = PlanModel(model_, flags_.plan, flags_.world);
    if (!plan.ok()) return plan.status();
    plan_json_ = plan::ToJson(*plan, model_.graph);
    kv_blocks_ = plan->kv_blocks;
    int64_t weight_bytes = 0, kv_bytes = 0;
    for (const plan::Stage& stage : plan->stages) {
      weight_bytes = plan::SaturatingAdd(weight_bytes, stage.weight_bytes);
      kv_bytes = plan::SaturatingAdd(kv_bytes, plan::KvBytes(stage, kv_blocks_));
    }
    report_.Planned(weight_bytes, kv_bytes,
                    plan::SaturatingMultiply(kv_blocks_, plan::kKvBlockTokens));
  }
  metrics_ =
      std::make_unique<serve::Metrics>(serve::MetricsOptions{.model = flags_.name,
                                                             .rank = flags_.rank,
                                                             .version = kVersion,
                                                             .torch_version = TORCH_VERSION});
  exec::SetThreads(flags_.threads);
  return absl::OkStatus();
}

absl::Status StageProcess::OpenCheckpoint() {
  if (!model_.graph.text) {
    if (flags_.weights.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("--weights: ", flags_.model, " holds its weights itself; leave the flag out"));
  }
  if (flags_.weights.empty())
    return absl::InvalidArgumentError(
        absl::StrCat(flags_.model,
                     " is a language model's graph without weights; name the model's directory "
                     "by --weights"));
  if (!model_.graph.text->has_weights)
    return absl::FailedPreconditionError(
        absl::StrCat(flags_.model,
                     " was exported from config.json alone and can only be planned; export it "
                     "again from a directory with safetensors"));
  absl::StatusOr<weights::Checkpoint> checkpoint = weights::Checkpoint::Open(flags_.weights);
  if (!checkpoint.ok()) return checkpoint.status();
  checkpoint_ = *std::move(checkpoint);
  return absl::OkStatus();
}

absl::Status StageProcess::MakeDriver() {
  const auto submit = [this](link::Frame frame) { rank_->Submit(std::move(frame)); };
  if (!model_.graph.text) {
    tensors_ = std::make_unique<Driver>(
        Driver::Options{.name = flags_.name,
                        .chunks = flags_.chunks,
                        .window = flags_.window,
                        .max_waiting = flags_.queue,
                        .request_timeout = absl::Seconds(flags_.request_timeout_s)},
        &model_.graph, model_.batch, metrics_.get(), submit);
    driver_ = tensors_.get();
    return absl::OkStatus();
  }
  opening_ = true;
  absl::StatusOr<serve::TextFiles> files = serve::LoadTextFiles(flags_.weights);
  opening_ = false;
  if (!files.ok()) return files.status();
  text_files_ = *std::move(files);
  absl::StatusOr<std::unique_ptr<TextDriver>> text =
      TextDriver::Create({.name = flags_.name,
                          .schedule = {.stages = flags_.world,
                                       .window = flags_.window,
                                       .chunk_tokens = flags_.chunk_tokens,
                                       .blocks = static_cast<int32_t>(kv_blocks_),
                                       .block_tokens = plan::kKvBlockTokens,
                                       .max_running = flags_.max_running,
                                       .max_waiting = flags_.queue},
                          .request_timeout = absl::Seconds(flags_.request_timeout_s)},
                         &model_.graph, metrics_.get(), submit);
  if (!text.ok()) return text.status();
  text_ = *std::move(text);
  text_only_ = std::make_unique<serve::TextOnly>(text_.get());
  driver_ = text_.get();
  return absl::OkStatus();
}

absl::Status StageProcess::Listen() {
  if (flags_.world > 1) {
    absl::StatusOr<std::unique_ptr<link::TcpListener>> listener =
        link::TcpListener::Listen(flags_.bind, flags_.link_port, {});
    if (!listener.ok())
      return absl::Status(listener.status().code(),
                          absl::StrCat("--link-port: ", listener.status().message()));
    listener_ = *std::move(listener);
  }
  rank_ = std::make_unique<Rank>(Rank::Options{.rank = flags_.rank,
                                               .world = flags_.world,
                                               .threads = flags_.threads,
                                               .verify = flags_.verify_weights,
                                               .exact = flags_.exact,
                                               .checkpoint = checkpoint_ ? &*checkpoint_ : nullptr},
                                 &model_.graph, listener_.get(), metrics_.get(), MakeHooks());
  if (is_head()) {
    absl::Status status = MakeDriver();
    if (!status.ok()) return status;
  }
  return OpenDoors();
}

absl::Status StageProcess::OpenDoors() {
  const absl::StatusOr<int64_t> max_bytes = ParseBytes(flags_.max_request_bytes);
  if (!max_bytes.ok())
    return absl::InvalidArgumentError(
        absl::StrCat("--max-request-bytes: ", max_bytes.status().message()));
  const serve::RequestLog log = [this](const absl::Status& status, double seconds) {
    metrics_->ObserveRequest(status, seconds);
  };
  serve::HttpServerOptions http{.backend = backend(), .log = log};
  http.listener.host = flags_.bind;
  http.listener.port = flags_.http_port;
  http.listener.max_body_bytes = static_cast<size_t>(*max_bytes);
  http.max_request_time = absl::Seconds(flags_.request_timeout_s);
  const std::string no_backend = absl::StrFormat("this is rank %d of %d; ask rank 0 at %s",
                                                 flags_.rank, flags_.world, flags_.host);
  http.no_backend = no_backend;
  http.ready = [this] { return Ready(); };
  http.status_json = [this] { return StatusJson(); };
  absl::StatusOr<std::unique_ptr<serve::HttpServer>> http_server =
      serve::HttpServer::Start(std::move(http));
  if (!http_server.ok()) return http_server.status();
  http_ = *std::move(http_server);
  absl::Status status = OpenGrpc(no_backend, *max_bytes, log);
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<serve::MetricsServer>> metrics_server =
      serve::MetricsServer::Start(metrics_.get(), flags_.bind, flags_.metrics_port);
  if (!metrics_server.ok()) return metrics_server.status();
  metrics_server_ = *std::move(metrics_server);
  return absl::OkStatus();
}

absl::Status StageProcess::OpenGrpc(const std::string& no_backend, int64_t max_bytes,
                                    const serve::RequestLog& log) {
  std::vector<grpc::Service*> services;
  if (text_) {
    max_bytes = std::min(max_bytes, serve::MaxRequestBytes(text_->model()));
    text_service_ =
        serve::MakeTextService(text_.get(), text_files_,
                               {.max_request_time = absl::Seconds(flags_.request_timeout_s),
                                .max_unread = static_cast<size_t>(flags_.queue),
                                .log = log});
    services.push_back(text_service_.get());
  }
  absl::StatusOr<std::unique_ptr<serve::GrpcServer>> grpc_server = serve::GrpcServer::Start(
      {.host = flags_.bind,
       .port = flags_.grpc_port,
       .backend = backend(),
       .no_backend = no_backend,
       .services = services,
       .model = flags_.name,
       .max_message_bytes = static_cast<int>(std::min<int64_t>(max_bytes, INT32_MAX)),
       .max_request_time = absl::Seconds(flags_.request_timeout_s),
       .log = log});
  if (!grpc_server.ok()) return grpc_server.status();
  grpc_ = *std::move(grpc_server);
  return absl::OkStatus();
}

absl::Status StageProcess::Join() {
  const group::Identity self{.rank = flags_.rank,
                             .world = flags_.world,
                             .graph_digest = model_.graph.digest,
                             .revision = flags_.revision,
                             .incarnation = flags_.incarnation,
                             .pod_name = flags_.pod_name,
                             .started_ms = flags_.incarnation_time_ms};
  const group::Timing timing{.heartbeat = absl::Milliseconds(flags_.liveness_ms) / 7,
                             .liveness = absl::Milliseconds(flags_.liveness_ms),
                             .join = flags_.join_timeout_s > 0
                                         ? absl::Seconds(flags_.join_timeout_s)
                                         : absl::InfiniteDuration()};
  const int link_port = listener_ ? listener_->port() : 0;
  const auto on_status = [this](const group::GroupStatus& status) { OnStatus(status); };
  // The group may call back before the pointer is assigned: hooks that need it wait for the lock.
  const std::lock_guard lock(node_mutex_);
  if (is_head()) {
    absl::StatusOr<std::unique_ptr<group::Node>> head =
        group::StartHead(self, flags_.bind_given ? flags_.bind : flags_.host, flags_.port,
                         plan_json_, link_port, flags_.advertise, rank_.get(), timing, on_status);
    if (!head.ok()) return head.status();
    node_ = *std::move(head);
  } else {
    node_ = group::StartWorker(self, JoinHostPort(flags_.host, flags_.port), link_port,
                               flags_.advertise, rank_.get(), timing, on_status);
  }
  report_.Ports(is_head() ? node_->port() : flags_.port, http_->port(), grpc_->port(),
                metrics_server_->port());
  spdlog::info("{} on {}: HTTP {}, gRPC {}, metrics {}",
               is_head() ? absl::StrCat("head, joins at ", JoinHostPort(flags_.host, node_->port()))
                         : "worker",
               flags_.bind, http_->port(), grpc_->port(), metrics_server_->port());
  return absl::OkStatus();
}

Rank::Hooks StageProcess::MakeHooks() {
  Rank::Hooks hooks;
  hooks.planned = [this](const plan::Plan& plan, const plan::Stage& stage) { Print(plan, stage); };
  hooks.loaded = [this](uint64_t read_bytes, uint64_t weight_bytes) {
    spdlog::info("loaded {} of weights, read {} from disk", plan::BytesText(weight_bytes),
                 plan::BytesText(read_bytes));
  };
  hooks.result = [this](link::Frame frame) { driver_->OnResult(std::move(frame)); };
  hooks.formed = [this](uint64_t epoch) {
    if (driver_) driver_->EpochFormed(epoch);
    SetReady(true);
    report_.Ready(epoch);
    spdlog::info("ready: epoch {} of {} ranks", epoch, flags_.world);
  };
  hooks.closed = [this](const absl::Status& why) {
    SetReady(false);
    if (driver_) driver_->EpochClosed(why);
    report_.Closed(std::string(why.message()));
    spdlog::warn("not ready: {}", std::string(why.message()));
  };
  hooks.hold = [this](std::function<void()> idle) {
    spdlog::info("a rank leaves: requests that have not begun wait for the next epoch");
    driver_->Hold(std::move(idle));
  };
  hooks.failed = [this](uint64_t epoch, const absl::Status& why) {
    const std::lock_guard lock(node_mutex_);
    node_->ReportFailure(epoch, why);
  };
  return hooks;
}

void StageProcess::Print(const plan::Plan& plan, const plan::Stage& stage) {
  std::string text = absl::StrFormat(
      "stage %d of %d (%s, plan %s): %s, %s parameters, %s\n", stage.rank,
      static_cast<int>(plan.stages.size()), plan.policy, plan.digest.substr(0, 8),
      stage.modules.empty() ? "no module of its own" : absl::StrJoin(stage.modules, ", "),
      plan::CountText(stage.parameters), plan::BytesText(stage.weight_bytes));
  if (stage.end - stage.begin <= kPrintedNodes)
    text += graph::PrintCode(model_.graph, stage.begin, stage.end, stage.receives, stage.sends);
  else
    text += absl::StrFormat("%d nodes; `echelon plan %s --stages %d --code` prints them\n",
                            stage.end - stage.begin, flags_.model, flags_.world);
  if (flags_.quiet) return;
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

// Missing ranks by name: what Ready and refusals say while the group forms.
void StageProcess::OnStatus(const group::GroupStatus& status) {
  std::vector<std::string> waiting;
  for (const group::RankStatus& rank : status.ranks) {
    if (rank.rank == flags_.rank && rank.total_bytes > 0)
      report_.Loading(rank.loaded_bytes, rank.total_bytes);
    if (rank.phase != group::Phase::kReady)
      waiting.push_back(
          absl::StrCat("rank ", rank.rank, " (", std::string(group::Name(rank.phase)), ")"));
  }
  if (driver_ && !status.formed)
    driver_->SetWaiting(absl::StrCat("waiting for ", absl::StrJoin(waiting, ", ")));
  const std::lock_guard lock(status_mutex_);
  status_ = status;
}

absl::Status StageProcess::Ready() const {
  if (draining_) return absl::UnavailableError("the server is shutting down");
  if (driver_) return driver_->Ready();
  return formed_ ? absl::OkStatus() : absl::UnavailableError("the group is not formed");
}

std::string StageProcess::StatusJson() const {
  const std::lock_guard lock(status_mutex_);
  nlohmann::json ranks = nlohmann::json::array();
  for (const group::RankStatus& rank : status_.ranks)
    ranks.push_back({{"rank", rank.rank},
                     {"phase", std::string(group::Name(rank.phase))},
                     {"address", rank.address},
                     {"incarnation", rank.incarnation},
                     {"loadedBytes", rank.loaded_bytes},
                     {"totalBytes", rank.total_bytes},
                     {"joins", rank.joins},
                     {"lastError", rank.last_error}});
  return nlohmann::json{
      {"model", flags_.name},        {"rank", flags_.rank},           {"world", flags_.world},
      {"revision", flags_.revision}, {"digest", model_.graph.digest}, {"epoch", status_.epoch},
      {"formed", formed_.load()},    {"draining", draining_.load()},  {"ranks", ranks}}
      .dump();
}

void StageProcess::SetReady(bool ready) {
  formed_ = ready;
  grpc_->SetServing(ready && !draining_);
  if (health_) health_->SetReady(ready && !draining_);
}

}  // namespace echelon::stage
