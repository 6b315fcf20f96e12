// HTTP/1.1 on one port: connections, limits, deadlines. Knows no path; a handler answers.
#ifndef ECHELON_RUNTIME_SERVE_HTTP_LISTENER_H_
#define ECHELON_RUNTIME_SERVE_HTTP_LISTENER_H_

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace echelon::serve {

struct HttpCall {
  std::string method;  // upper case
  std::string path;    // without the query, still percent-encoded
  std::string query;   // what followed '?'
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case; may repeat
  std::string body;
  absl::Time arrived;                            // when its header was complete
  std::shared_ptr<std::atomic<bool>> cancelled;  // set when the client has gone; never null

  // The first value of a header (name in lower case), or null.
  const std::string* Header(absl::string_view name) const;
};

struct HttpReply {
  int code = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  // Run on a thread of the listener before the reply is sent, unless the client has gone: for what
  // is too slow for the thread that calls `done`. It may replace all of the reply.
  std::function<void(HttpReply*)> finish;
};

// {"error": text} as one line of JSON.
HttpReply HttpError(int code, absl::string_view text);

using HttpDone = std::function<void(HttpReply)>;
// Called on a thread of the listener; answers with exactly one call of `done`, from any thread, at
// any time (also after the client has gone or the listener has stopped, when it does nothing).
using HttpHandler = std::function<void(HttpCall call, HttpDone done)>;

struct HttpListenerOptions {
  std::string host = "0.0.0.0";
  int port = 8000;                        // 0: any
  std::string port_flag = "--http-port";  // named in errors
  int threads = 2;
  size_t max_connections = 512;            // more are answered 503 and closed
  size_t max_header_bytes = 16 << 10;      // 431
  size_t max_body_bytes = 256 << 20;       // 413, said before the body is read
  size_t max_total_body_bytes = 1u << 30;  // of all requests being read or handled; above it 503
  absl::Duration header_time =
      absl::Seconds(10);  // from a request's first byte to the end of its header
  absl::Duration idle_time = absl::Seconds(75);  // of a kept-alive connection between requests
  // A body or an answer may not stand still for so long, nor take longer than this plus a second
  // for each 64 KiB.
  absl::Duration transfer_time = absl::Seconds(20);
};

class HttpListener {
 public:
  // Listens and serves. kUnavailable: the port is taken or cannot be had, in one line that names
  // the flag.
  static absl::StatusOr<std::unique_ptr<HttpListener>> Start(HttpListenerOptions options,
                                                             HttpHandler handler);
  virtual ~HttpListener() = default;  // Stop(now)

  virtual int port() const = 0;

  // From now on every answer is its connection's last, so that clients find another server.
  virtual void Drain() = 0;

  // Accepts no more and closes idle connections; requests in flight are answered until `deadline`,
  // then cut (their `cancelled` is set). Idempotent; not from a handler.
  virtual void Stop(absl::Time deadline) = 0;
};

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_HTTP_LISTENER_H_
