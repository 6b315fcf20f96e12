#include "runtime/serve/health_server.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "runtime/host_port.h"
#include "runtime/serve/grpc_server.h"
#include "runtime/serve/port_probe.h"
#include "runtime/serve/v2_types.h"

namespace echelon::serve {
namespace {

constexpr char kFlag[] = "--health-port";

}  // namespace

absl::StatusOr<std::unique_ptr<HealthServer>> HealthServer::Start(const std::string& host,
                                                                  int port) {
  RouteGrpcLog();
  grpc::EnableDefaultHealthCheckService(true);  // of the process; a builder reads it
  std::unique_ptr<HealthServer> self(new HealthServer);
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(JoinHostPort(host, port), grpc::InsecureServerCredentials(),
                           &self->port_);
  self->server_ = builder.BuildAndStart();
  if (self->server_ == nullptr || self->port_ <= 0) {
    const int error = WhyNotListen(host, port);
    return absl::UnavailableError(
        error != 0 ? ListenError(error, host, port, kFlag)
                   : absl::StrCat("cannot listen on ", JoinHostPort(host, port), " (", kFlag, ")"));
  }
  auto* const health = self->server_->GetHealthCheckService();
  health->SetServingStatus("startup", true);
  health->SetServingStatus("live", true);
  self->SetReady(false);
  return self;
}

HealthServer::~HealthServer() {
  if (server_ == nullptr) return;
  server_->Shutdown(absl::ToChronoTime(absl::Now()));
  server_->Wait();
}

void HealthServer::SetReady(bool ready) {
  auto* const health = server_->GetHealthCheckService();
  health->SetServingStatus("", ready);
  health->SetServingStatus("ready", ready);
}

void HealthServer::Fail() { server_->GetHealthCheckService()->SetServingStatus("startup", false); }

}  // namespace echelon::serve
