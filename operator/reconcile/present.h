// The moment a plan is made for. Every rule that depends on time asks here, so that the plan knows
// when time alone will change it.
#ifndef ECHELON_OPERATOR_RECONCILE_PRESENT_H_
#define ECHELON_OPERATOR_RECONCILE_PRESENT_H_

#include <algorithm>
#include <optional>

#include "absl/time/time.h"

namespace echelon::op {

class Present {
 public:
  explicit Present(absl::Time now) : now_(now) {}

  absl::Time now() const { return now_; }
  // What status keeps: the API server stores whole seconds.
  absl::Time second() const { return absl::FromUnixSeconds(absl::ToUnixSeconds(now_)); }

  // Whether `moment` is here. While it is not, the plan asks to be made again then.
  bool Passed(absl::Time moment) {
    if (now_ >= moment) return true;
    if (moment != absl::InfiniteFuture()) next_ = std::min(next_.value_or(moment), moment);
    return false;
  }

  std::optional<absl::Time> next() const { return next_; }

 private:
  const absl::Time now_;
  std::optional<absl::Time> next_;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_PRESENT_H_
