// The seam to a Kubernetes API server: requests and watches, all asynchronous. http_api.h is the
// real one, tests/operator/kube/fake_api.h the one in memory.
#ifndef ECHELON_OPERATOR_KUBE_API_H_
#define ECHELON_OPERATOR_KUBE_API_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace echelon::op {

inline constexpr char kJson[] = "application/json";
inline constexpr char kApplyPatch[] = "application/apply-patch+yaml";  // JSON is YAML
inline constexpr char kMergePatch[] = "application/merge-patch+json";

struct Request {
  std::string method = "GET";
  std::string path;  // with its query: /api/v1/namespaces/default/pods?limit=250
  std::string body;
  std::string content_type = kJson;
  absl::Duration timeout = absl::Seconds(10);
};

struct Response {
  int code = 0;
  std::string body;
  absl::Duration retry_after;  // of a 429 or 503; zero: the server named none

  bool ok() const { return code >= 200 && code < 300; }
};

// An open watch. Destroying or cancelling it does not wait: on_end still comes, once.
class WatchStream {
 public:
  virtual ~WatchStream() = default;  // cancels
  virtual void Cancel() = 0;         // from any thread, as often as you like
};

class Api {
 public:
  // A Status is the transport's: no answer arrived (Unavailable; DeadlineExceeded: not in time;
  // Cancelled: the Api is being destroyed). Any HTTP answer, also a refusal, is a Response. A
  // request that failed so may have been carried out.
  using Done = std::function<void(absl::StatusOr<Response>)>;
  // One line of a watch, without its end. Called one at a time, in order; not after on_end.
  using OnLine = std::function<void(std::string_view)>;
  // Ok: the server ended the watch, as it does every few minutes. Otherwise what went wrong; an
  // HTTP refusal is ToStatus(its Response). Comes exactly once.
  using OnEnd = std::function<void(absl::Status)>;

  virtual ~Api() = default;

  // Callbacks run on the adapter's threads, never from within Call or Watch, and must not block.
  // Both may be called from any thread, also from a callback.
  virtual void Call(Request request, Done done) = 0;
  virtual std::unique_ptr<WatchStream> Watch(std::string path, OnLine on_line, OnEnd on_end) = 0;
};

// The server's refusal in one line: "409 Conflict: Operation cannot be fulfilled on ..."; a body
// that is no Status is quoted, shortened.
std::string ErrorText(const Response& response);

// What that server's message is about alone, without code and reason.
std::string ErrorMessage(const Response& response);

// The Status object's `reason` ("AlreadyExists", "Conflict", "Expired", ...), or "".
std::string ErrorReason(const Response& response);

// Ok for 2xx. 400 and 422 InvalidArgument, 401 Unauthenticated, 403 PermissionDenied, 404 NotFound,
// 409 AlreadyExists or Aborted (by its reason), 410 OutOfRange, 413 ResourceExhausted, 429 and 5xx
// Unavailable, others Unknown. The text is ErrorText's.
absl::Status ToStatus(const Response& response);

// How long the server asked to wait, where ToStatus made this of its refusal; else zero.
absl::Duration RetryAfter(const absl::Status& status);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_API_H_
