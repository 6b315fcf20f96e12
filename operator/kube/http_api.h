// The Api over HTTPS, on cpprestsdk. Its headers are included nowhere but in http_api.cc and what
// it is made of.
#ifndef ECHELON_OPERATOR_KUBE_HTTP_API_H_
#define ECHELON_OPERATOR_KUBE_HTTP_API_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "operator/kube/api.h"
#include "operator/kube/config.h"

namespace echelon::op {

// The thread that all requests of the process share. Call it first thing in main, once. It is
// enough for as many requests as an API server answers, and cpprest needs it to be alone: it closes
// a socket that is cancelled or out of time beside whatever another thread just does with it.
void StartKubeThread();

struct HttpOptions {
  // A watch on which nothing comes for so long is cut; the server sends a bookmark every 60 s.
  absl::Duration watch_idle = absl::Seconds(90);
  absl::Duration token_lifetime = absl::Seconds(60);  // then its file is read again
  size_t longest_line = 4 << 20;                      // of a watch, which ends otherwise
};

// Checks the config; makes no connection. Destroying the Api cancels what is under way and waits
// for its callbacks: not from one of them.
absl::StatusOr<std::unique_ptr<Api>> MakeHttpApi(const ClusterConfig& config,
                                                 HttpOptions options = {});

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_HTTP_API_H_
