// One gRPC port: the v2 service (on the head), grpc.health.v1, reflection and whatever else the
// caller registers.
#ifndef ECHELON_RUNTIME_SERVE_GRPC_SERVER_H_
#define ECHELON_RUNTIME_SERVE_GRPC_SERVER_H_

#include <grpcpp/impl/codegen/service_type.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/serve/backend.h"
#include "runtime/serve/request_log.h"

namespace grpc {
class CallbackGenericService;
class Server;
}  // namespace grpc

namespace echelon::serve {

struct GrpcServerOptions {
  std::string host = "0.0.0.0";
  int port = 8001;                        // 0: any
  std::string port_flag = "--grpc-port";  // named in errors
  Backend* backend = nullptr;  // null: no v2 service (worker ranks); must outlive the server
  std::string no_backend = "this process serves no model";  // what its callers are then told
  std::vector<grpc::Service*> services;                     // further ones; must outlive the server
  std::string model;                  // the health service's second name beside ""; empty: none
  int max_message_bytes = 256 << 20;  // of a request; answers are not bounded
  absl::Duration max_request_time = absl::Minutes(10);
  RequestLog log;
};

class GrpcServer {
 public:
  // Listens and serves; health starts as NOT_SERVING. kUnavailable: the port is taken or cannot be
  // had, in one line that names the flag.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(GrpcServerOptions options);
  ~GrpcServer();  // Stop(now)

  int port() const { return port_; }

  // What grpc.health.v1 says of "" and of the model; watchers are told at once. After Drain it
  // stays NOT_SERVING.
  void SetServing(bool serving);

  // Says NOT_SERVING from now on; calls go on.
  void Drain();

  // Cancels the calls in flight, watches of health among them: a Stop that waits for them in
  // another thread then returns. Nothing before Stop.
  void CancelCalls();

  // No new calls; those in flight may end until `deadline`, then they are cancelled. Returns when
  // every call has ended, so the backend must answer cancelled requests. Idempotent.
  void Stop(absl::Time deadline);

 private:
  GrpcServer();

  std::unique_ptr<grpc::Service> inference_;
  std::unique_ptr<grpc::CallbackGenericService> absent_;  // in its place where there is none
  std::unique_ptr<grpc::Server> server_;
  std::atomic<bool> stopping_ = false;
  std::string model_;
  int port_ = 0;
};

// gRPC's own log lines go to spdlog at debug level: what matters reaches users as one status line.
// Start() calls it; a process that only dials calls it first in main.
void RouteGrpcLog();

// In main, before the first server: gRPC is in use until the process ends. When its last user goes
// gRPC joins its own threads, one of which may be in a poll of 10 s.
void KeepGrpc();

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_GRPC_SERVER_H_
