// How long to wait before trying again.
#ifndef ECHELON_OPERATOR_KUBE_BACKOFF_H_
#define ECHELON_OPERATOR_KUBE_BACKOFF_H_

#include <algorithm>

#include "absl/time/time.h"

namespace echelon::op {

// Exponential with full jitter: anything up to 200 ms after the first failure, twice that after
// each further one, 30 s at most. random: in [0, 1).
inline absl::Duration Backoff(int failures, double random) {
  if (failures <= 0) return absl::ZeroDuration();
  return random *
         std::min(absl::Milliseconds(200) * (1 << std::min(failures - 1, 10)), absl::Seconds(30));
}

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_BACKOFF_H_
