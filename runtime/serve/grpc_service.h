// The v2 protocol over gRPC, in front of a Backend. Errors keep the Backend's code and one-line
// message.
#ifndef ECHELON_RUNTIME_SERVE_GRPC_SERVICE_H_
#define ECHELON_RUNTIME_SERVE_GRPC_SERVICE_H_

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/impl/codegen/service_type.h>

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "runtime/serve/backend.h"
#include "runtime/serve/request_log.h"

namespace echelon::serve {

// `backend` must outlive the service and every call in flight. An InferRequest's deadline is the
// earliest of the RPC's, its "timeout" parameter's and `max_request_time` from now; its `cancelled`
// is set when the client is gone.
std::unique_ptr<grpc::Service> MakeInferenceService(Backend* backend,
                                                    absl::Duration max_request_time,
                                                    RequestLog log = nullptr);

// Where no Backend is: kFailedPrecondition with `why` for every call of the v2 protocol.
std::unique_ptr<grpc::CallbackGenericService> MakeAbsentService(const std::string& why);

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_GRPC_SERVICE_H_
