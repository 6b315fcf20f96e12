// The seam between neighbours: a way to send frames to the next stage and to receive them from the
// one before. TCP stands behind it, with shared memory where both are on one machine (tcp_link.h);
// NCCL fits behind it too.
#ifndef ECHELON_RUNTIME_LINK_LINK_H_
#define ECHELON_RUNTIME_LINK_LINK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/link/frame.h"

namespace echelon::link {

// One direction of traffic from one neighbour to the next, of one epoch. One thread sends or
// receives at a time; Close may be called from any thread and makes both return at once with
// kUnavailable.
class Link {
 public:
  virtual ~Link() = default;

  // Returns when the frame's bytes are out of the tensors, which may be freed then.
  virtual absl::Status Send(const Frame& frame) = 0;

  // Waits for a frame for as long as the epoch lives (liveness is the group's: it closes the link).
  // Tensors' memory is the caller's own. kUnavailable: closed or the peer is gone;
  // kInvalidArgument: the peer sent what is no frame.
  virtual absl::StatusOr<Frame> Receive() = 0;

  virtual void Close() = 0;

  virtual uint64_t bytes_sent() const = 0;  // headers included
  virtual uint64_t bytes_received() const = 0;
};

}  // namespace echelon::link

#endif  // ECHELON_RUNTIME_LINK_LINK_H_
