// Whether loading stands still. Slow is no standstill, and waiting for others is no loading.
#ifndef ECHELON_RUNTIME_STAGE_STANDSTILL_H_
#define ECHELON_RUNTIME_STAGE_STANDSTILL_H_

#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace echelon::stage {

// Pure: a clock's time comes with each call. One thread at a time.
class Standstill {
 public:
  explicit Standstill(absl::Duration patience) : patience_(patience) {}

  // read_bytes: of what is being read, so far; none while nothing is. True when the number has been
  // the same for `patience`.
  bool Observe(std::optional<uint64_t> read_bytes, absl::Time now) {
    const bool is_same = was_reading_ && read_bytes.has_value() && *read_bytes == seen_bytes_;
    if (!is_same) since_ = now;
    was_reading_ = read_bytes.has_value();
    seen_bytes_ = read_bytes.value_or(0);
    return was_reading_ && now - since_ >= patience_;
  }

 private:
  const absl::Duration patience_;
  bool was_reading_ = false;
  uint64_t seen_bytes_ = 0;
  absl::Time since_;
};

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_STANDSTILL_H_
