// What the head's data plane and group tell whoever turns requests into steps: the driver of tensor
// models (driver.h) or of language models (text_driver.h).
#ifndef ECHELON_RUNTIME_STAGE_HEAD_DRIVER_H_
#define ECHELON_RUNTIME_STAGE_HEAD_DRIVER_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/link/frame.h"

namespace echelon::stage {

// How long requests that wait across epochs do so at most, from the end of the one before.
inline constexpr absl::Duration kLongestHold = absl::Seconds(60);

// From any thread. A callback `idle` is called once, from any thread, perhaps before the call
// returns; it must not block.
class HeadDriver {
 public:
  virtual ~HeadDriver() = default;
  virtual absl::Status Ready() const = 0;
  // Why the group is not formed, for Ready and for refusals.
  virtual void SetWaiting(const std::string& reason) = 0;
  virtual void EpochFormed(uint64_t epoch) = 0;
  virtual void EpochClosed(const absl::Status& why) = 0;
  // Until the next epoch forms, but not longer than kLongestHold after this one ends: requests that
  // have not begun wait, new ones with them. idle: none that has begun is left.
  virtual void Hold(std::function<void()> idle) = 0;
  // From now on new requests are refused (kUnavailable: why); those accepted go on, held ones too
  // if there is an epoch. idle: all are answered.
  virtual void Shut(const std::string& why, std::function<void()> idle) = 0;
  // What the last stage sent.
  virtual void OnResult(link::Frame frame) = 0;
};

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_HEAD_DRIVER_H_
