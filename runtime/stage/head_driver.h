// What the head's data plane and group tell whoever turns requests into steps: the driver of tensor
// models (driver.h) or of language models (text_driver.h).
#ifndef ECHELON_RUNTIME_STAGE_HEAD_DRIVER_H_
#define ECHELON_RUNTIME_STAGE_HEAD_DRIVER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "runtime/link/frame.h"

namespace echelon::stage {

// From any thread.
class HeadDriver {
 public:
  virtual ~HeadDriver() = default;
  virtual absl::Status Ready() const = 0;
  // Why the group is not formed, for Ready and for refusals.
  virtual void SetWaiting(const std::string& reason) = 0;
  virtual void EpochFormed(uint64_t epoch) = 0;
  virtual void EpochClosed(const absl::Status& why) = 0;
  // What the last stage sent.
  virtual void OnResult(link::Frame frame) = 0;
};

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_HEAD_DRIVER_H_
