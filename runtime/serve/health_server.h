// grpc.health.v1 on a port of its own, for Kubernetes' probes: it is there before anything is read,
// and stays plaintext whatever the front doors do.
#ifndef ECHELON_RUNTIME_SERVE_HEALTH_SERVER_H_
#define ECHELON_RUNTIME_SERVE_HEALTH_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace grpc {
class Server;
}  // namespace grpc

namespace echelon::serve {

// Services, each SERVING or NOT_SERVING:
//   "startup"    SERVING until Fail
//   "live"       SERVING while the process answers
//   "ready", ""  as SetReady says; NOT_SERVING at first
class HealthServer {
 public:
  // kUnavailable: the port is taken or cannot be had, in one line that names --health-port.
  static absl::StatusOr<std::unique_ptr<HealthServer>> Start(const std::string& host, int port);
  ~HealthServer();  // calls end at once

  int port() const { return port_; }
  void SetReady(bool ready);
  void Fail();  // "startup" is NOT_SERVING from now on

 private:
  HealthServer() = default;

  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_HEALTH_SERVER_H_
