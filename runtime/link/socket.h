// Blocking TCP sockets: addresses, listening, dialling. Private to runtime/link.
#ifndef ECHELON_RUNTIME_LINK_SOCKET_H_
#define ECHELON_RUNTIME_LINK_SOCKET_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace echelon::link {

class Fd {  // owns a file descriptor
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd();
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

struct HostPort {
  std::string host;
  int port = 0;
};

// "HOST:PORT", "[V6]:PORT".
absl::StatusOr<HostPort> ParseHostPort(const std::string& address);

absl::StatusOr<Fd> ListenOn(const std::string& host, int port);
int LocalPort(int fd);
bool IsOnThisMachine(int fd);  // the peer has the address that we have
std::string PeerText(int fd);  // "127.0.0.1:4711", "" when there is no peer any more

// One attempt, at every address the name has. kUnavailable: refused or unreachable, worth another
// attempt; kDeadlineExceeded; kInvalidArgument: no such host.
absl::StatusOr<Fd> ConnectTo(const HostPort& to, absl::Time deadline);

void SetNoDelay(int fd);
void SetReceiveTimeout(int fd, absl::Duration timeout);
std::string ErrnoText(int error);

}  // namespace echelon::link

#endif  // ECHELON_RUNTIME_LINK_SOCKET_H_
