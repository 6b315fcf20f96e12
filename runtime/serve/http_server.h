// The HTTP front door: the v2 protocol in front of a Backend, and /healthz, /readyz, /status for
// those who watch.
#ifndef ECHELON_RUNTIME_SERVE_HTTP_SERVER_H_
#define ECHELON_RUNTIME_SERVE_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/serve/backend.h"
#include "runtime/serve/http_listener.h"
#include "runtime/serve/request_log.h"

namespace echelon::serve {

struct HttpServerOptions {
  HttpListenerOptions listener;
  Backend* backend = nullptr;  // must outlive the server; null on worker ranks
  // What v2 paths answer (404) without a backend: "this is rank 1 of 2; ask rank 0 at HOST:PORT".
  std::string no_backend = "this process serves no model";
  // For /readyz. Null: the backend's Ready(), or ready without one. From any thread, must not
  // block.
  std::function<absl::Status()> ready;
  std::function<std::string()>
      status_json;  // for /status; null: {}. From any thread, must not block.
  absl::Duration max_request_time = absl::Minutes(10);
  RequestLog log;
};

// GET /v2, /v2/health/{live,ready}, /v2/models/NAME[/versions/V][/ready|/config], POST .../infer
// (JSON, or with the binary tensor extension; gzip and deflate both ways), POST
// /v2/repository/index, GET /healthz (200 while the process lives), /readyz (503 with the reason),
// /status. Errors are {"error": one line} under 400 invalid argument, 404, 405, 408, 413 too large,
// 415 unknown encoding, 429 resource exhausted, 499 cancelled, 503 unavailable, 504 deadline
// exceeded, 500 internal.
class HttpServer {
 public:
  // kUnavailable: the port is taken or cannot be had, in one line.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(HttpServerOptions options);
  ~HttpServer();  // Stop(now)

  int port() const;
  // From now on every answer is its connection's last, so that clients find another server.
  void Drain();
  // Idle connections close, requests in flight are answered until `deadline`. Idempotent.
  void Stop(absl::Time deadline);

 private:
  class Routes;
  HttpServer();

  std::shared_ptr<Routes> routes_;
  std::unique_ptr<HttpListener> listener_;
};

// The HTTP code of a status, as listed above.
int HttpCode(const absl::Status& status);

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_HTTP_SERVER_H_
