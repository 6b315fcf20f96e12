// Service Text (proto/generate.proto) over a TextBackend.
#ifndef ECHELON_RUNTIME_SERVE_TEXT_SERVICE_H_
#define ECHELON_RUNTIME_SERVE_TEXT_SERVICE_H_

#include <grpcpp/impl/codegen/service_type.h>

#include <cstddef>
#include <memory>

#include "absl/time/time.h"
#include "runtime/serve/request_log.h"
#include "runtime/serve/text_backend.h"
#include "runtime/serve/text_request.h"

namespace echelon::serve {

struct TextServiceOptions {
  absl::Duration max_request_time = absl::Minutes(10);
  // Of an answer, waiting for its reader. A reader that lets more pile up loses its request.
  size_t max_waiting_bytes = 256 << 10;
  // For its reader to take what is left of an answer, after the request's time is over.
  absl::Duration read_grace = absl::Seconds(10);
  // Requests that wait to be split into tokens; further ones are refused (RESOURCE_EXHAUSTED).
  size_t max_unread = 256;
  RequestLog log;
};

// `backend` must outlive the service and every call in flight. A TokenRequest's deadline is the
// earlier of the RPC's and `max_request_time` from now; its `cancelled` is set when the client is
// gone. The backend's thread never waits for a reader, and gRPC's threads for no tokenizer:
// Generate of the backend is called on threads of the service's own.
std::unique_ptr<grpc::Service> MakeTextService(TextBackend* backend, TextFiles files,
                                               TextServiceOptions options = {});

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_TEXT_SERVICE_H_
