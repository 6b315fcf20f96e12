// Told once for every inference request that a front door has answered; metrics hang on it.
#ifndef ECHELON_RUNTIME_SERVE_REQUEST_LOG_H_
#define ECHELON_RUNTIME_SERVE_REQUEST_LOG_H_

#include <functional>

#include "absl/status/status.h"

namespace echelon::serve {

// From any thread; must not block. May be null. `seconds`: from the request's arrival to its
// answer.
using RequestLog = std::function<void(const absl::Status& status, double seconds)>;

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_REQUEST_LOG_H_
