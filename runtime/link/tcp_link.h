// Links over TCP: a listener that takes the one connection an epoch expects, and a dialler.
#ifndef ECHELON_RUNTIME_LINK_TCP_LINK_H_
#define ECHELON_RUNTIME_LINK_TCP_LINK_H_

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "runtime/link/link.h"

namespace echelon::link {

struct Hello {
  uint64_t epoch = 0;
  int rank = 0;        // the dialler's
  std::string token;   // the epoch's secret, from the head: a stranger that finds the port cannot speak
};

// Listens for as long as it lives. What connects and does not say the right hello within 2 s is dropped and counted;
// at most 64 connections wait at a time.
class TcpListener {
 public:
  // port 0: any. The error names host and port ("port 9000 of 0.0.0.0 is taken: ...").
  static absl::StatusOr<std::unique_ptr<TcpListener>> Listen(const std::string& host, int port, FrameLimits limits);
  virtual ~TcpListener() = default;
  virtual int port() const = 0;
  // Waits until the neighbour that says `expected` has connected. kDeadlineExceeded names rank and epoch;
  // kCancelled after Close() or CancelAccept().
  virtual absl::StatusOr<std::unique_ptr<Link>> Accept(const Hello& expected, absl::Duration timeout) = 0;
  virtual void CancelAccept() = 0;
  virtual void Close() = 0;
  virtual uint64_t refused_connections() const = 0;
};

// "HOST:PORT". The error names the address. Retries refused connections until the timeout.
absl::StatusOr<std::unique_ptr<Link>> Dial(const std::string& address, const Hello& hello, FrameLimits limits,
                                           absl::Duration timeout);

}  // namespace echelon::link

#endif  // ECHELON_RUNTIME_LINK_TCP_LINK_H_
