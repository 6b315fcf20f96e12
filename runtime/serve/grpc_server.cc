#include "runtime/serve/grpc_server.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <cstdlib>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/host_port.h"
#include "runtime/serve/grpc_service.h"
#include "runtime/serve/port_probe.h"
#include "runtime/serve/v2_types.h"
#include "spdlog/spdlog.h"

namespace echelon::serve {
namespace {

void LogAtDebug(gpr_log_func_args* args) {
  // After these words it ends the process.
  const bool last_words = absl::StrContains(args->message, "assertion failed");
  spdlog::log(last_words ? spdlog::level::critical : spdlog::level::debug, "gRPC: {}",
              args->message);
}

}  // namespace

void RouteGrpcLog() {
  static std::once_flag once;
  // A user who sets GRPC_VERBOSITY wants gRPC's own lines.
  if (std::getenv("GRPC_VERBOSITY") != nullptr) return;
  std::call_once(once, [] { gpr_set_log_function(LogAtDebug); });
}

void KeepGrpc() { ::grpc_init(); }

GrpcServer::GrpcServer() = default;

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(GrpcServerOptions options) {
  RouteGrpcLog();
  // Both are settings of the process that a builder reads, hence before it.
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
  std::unique_ptr<GrpcServer> self(new GrpcServer);
  self->model_ = options.model;
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Clients that ping (as many do every 10 s or so) must not be hung up on.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.SetMaxSendMessageSize(-1);
  builder.AddListeningPort(JoinHostPort(options.host, options.port),
                           grpc::InsecureServerCredentials(), &self->port_);
  if (options.backend != nullptr) {
    self->inference_ =
        MakeInferenceService(options.backend, options.max_request_time, std::move(options.log));
    builder.RegisterService(self->inference_.get());
  } else {
    self->absent_ = MakeAbsentService(options.no_backend);
    builder.RegisterCallbackGenericService(self->absent_.get());
  }
  for (grpc::Service* service : options.services) builder.RegisterService(service);
  self->server_ = builder.BuildAndStart();
  if (self->server_ == nullptr || self->port_ <= 0) {
    // gRPC says only that it failed; a plain bind says why.
    const int error = WhyNotListen(options.host, options.port);
    return absl::UnavailableError(
        error != 0 ? ListenError(error, options.host, options.port, options.port_flag)
                   : absl::StrCat("cannot listen on ", JoinHostPort(options.host, options.port),
                                  " (", options.port_flag, ")"));
  }
  self->SetServing(false);
  return self;
}

GrpcServer::~GrpcServer() { Stop(absl::Now()); }

void GrpcServer::SetServing(bool serving) {
  auto* health = server_ ? server_->GetHealthCheckService() : nullptr;
  if (health == nullptr) return;
  health->SetServingStatus("", serving);
  if (!model_.empty()) health->SetServingStatus(model_, serving);
}

void GrpcServer::Drain() {
  auto* health = server_ ? server_->GetHealthCheckService() : nullptr;
  if (health != nullptr) health->Shutdown();
}

void GrpcServer::CancelCalls() {
  if (stopping_) grpc_server_cancel_all_calls(server_->c_server());
}

void GrpcServer::Stop(absl::Time deadline) {
  if (server_ == nullptr || stopping_.exchange(true)) return;
  Drain();
  server_->Shutdown(absl::ToChronoTime(deadline));
  server_->Wait();
}

}  // namespace echelon::serve
