// Links over TCP: a listener that takes the one connection an epoch expects, and a dialler.
#ifndef ECHELON_RUNTIME_LINK_TCP_LINK_H_
#define ECHELON_RUNTIME_LINK_TCP_LINK_H_

#include <atomic>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "runtime/link/link.h"

namespace echelon::link {

struct Hello {
  uint64_t epoch = 0;
  int rank = 0;  // the dialler's
  std::string
      token;  // the epoch's secret, from the head: a stranger that finds the port cannot speak
};

struct LinkOptions {
  // A frame that has begun must be whole within this, plus its size at 10 MB/s: a stalled sender
  // holds no half frame.
  absl::Duration frame_deadline = absl::Seconds(30);
  // Polls the socket this long before it sleeps: saves the wake-up (about 8 us each way) and costs
  // a core. 0: never.
  absl::Duration spin = absl::ZeroDuration();
  absl::Duration hello_timeout = absl::Seconds(2);  // for a connection to say hello to a listener
  // Between processes of one machine, tensors of 64 KiB and more go through memory that both see.
  bool share_memory = true;
  // Dial gives up with kCancelled soon after it turns true; may be null.
  const std::atomic<bool>* cancelled = nullptr;
};

// Listens for as long as it lives. What connects and does not say the right hello in time is
// dropped and counted; at most 64 connections wait at a time, the oldest goes first. A hello of a
// later epoch waits for that epoch's Accept, since neighbours need not hear of a new epoch at the
// same moment.
class TcpListener {
 public:
  // port 0: any. The error names host and port ("port 9000 of 0.0.0.0 is taken: ...").
  static absl::StatusOr<std::unique_ptr<TcpListener>> Listen(const std::string& host, int port,
                                                             FrameLimits limits,
                                                             const LinkOptions& options = {});
  virtual ~TcpListener() = default;
  virtual int port() const = 0;
  // Waits until the neighbour that says `expected` has connected. kDeadlineExceeded names rank and
  // epoch; kCancelled after Close() or CancelAccept().
  virtual absl::StatusOr<std::unique_ptr<Link>> Accept(const Hello& expected,
                                                       absl::Duration timeout) = 0;
  virtual void CancelAccept() = 0;  // the Accept that is waiting now
  // Also those to come, of this epoch and earlier ones: an epoch may be closed before its Accept
  // has begun.
  virtual void CancelThrough(uint64_t epoch) = 0;
  virtual void Close() = 0;
  virtual uint64_t refused_connections() const = 0;
};

// "HOST:PORT". The error names the address. Retries refused connections until the timeout.
absl::StatusOr<std::unique_ptr<Link>> Dial(const std::string& address, const Hello& hello,
                                           FrameLimits limits, absl::Duration timeout,
                                           const LinkOptions& options = {});

}  // namespace echelon::link

#endif  // ECHELON_RUNTIME_LINK_TCP_LINK_H_
