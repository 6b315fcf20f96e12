// Time for deadlines and liveness: a wall clock that is set must not end an epoch.
#ifndef ECHELON_RUNTIME_SYNC_STEADY_CLOCK_H_
#define ECHELON_RUNTIME_SYNC_STEADY_CLOCK_H_

#include <chrono>

#include "absl/time/time.h"

namespace echelon {

// Comparable with other values of its own alone.
inline absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace echelon

#endif  // ECHELON_RUNTIME_SYNC_STEADY_CLOCK_H_
