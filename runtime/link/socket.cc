#include "runtime/link/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/host_port.h"
#include "runtime/sync/steady_clock.h"

namespace echelon::link {
namespace {

constexpr int kBacklog = 128;

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::StatusOr<Addresses> Resolve(const std::string& host, int port, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(),
                                &hints, &found);
  if (error == 0) return Addresses(found, &freeaddrinfo);
  const std::string text =
      absl::StrCat("cannot resolve host \"", host, "\": ", gai_strerror(error));
  // A name may appear a moment later, as a pod's does.
  return error == EAI_AGAIN || error == EAI_NONAME ? absl::UnavailableError(text)
                                                   : absl::InvalidArgumentError(text);
}

// Dialling a free port of one's own machine can connect a socket to itself.
bool ConnectedToItself(int fd) {
  sockaddr_storage mine{}, theirs{};
  socklen_t mine_size = sizeof(mine), theirs_size = sizeof(theirs);
  return getsockname(fd, reinterpret_cast<sockaddr*>(&mine), &mine_size) == 0 &&
         getpeername(fd, reinterpret_cast<sockaddr*>(&theirs), &theirs_size) == 0 &&
         mine_size == theirs_size && std::memcmp(&mine, &theirs, mine_size) == 0;
}

// 0, or the errno of the attempt.
int ConnectOne(int fd, const addrinfo& to, absl::Time deadline) {
  if (connect(fd, to.ai_addr, to.ai_addrlen) == 0) return ConnectedToItself(fd) ? ECONNREFUSED : 0;
  if (errno != EINPROGRESS) return errno;
  pollfd waiting{.fd = fd, .events = POLLOUT};
  for (;;) {
    const int64_t left_ms = absl::ToInt64Milliseconds(deadline - SteadyNow()) + 1;
    if (left_ms <= 0) return ETIMEDOUT;
    const int ready = poll(&waiting, 1, static_cast<int>(std::min<int64_t>(left_ms, 1 << 30)));
    if (ready > 0) break;
    if (ready < 0 && errno != EINTR) return errno;
  }
  int error = 0;
  socklen_t size = sizeof(error);
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) return errno;
  return error == 0 && ConnectedToItself(fd) ? ECONNREFUSED : error;
}

}  // namespace

Fd::~Fd() {
  if (fd_ >= 0) close(fd_);
}

std::string ErrnoText(int error) { return std::generic_category().message(error); }

absl::StatusOr<HostPort> ParseHostPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  HostPort result;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &result.port) ||
      result.port < 1 || result.port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", address, "\" is no address: HOST:PORT is, with a port from 1 to 65535"));
  }
  result.host = address.substr(0, colon);
  if (result.host.size() >= 2 && result.host.front() == '[' && result.host.back() == ']') {
    result.host = result.host.substr(1, result.host.size() - 2);
  }
  return result;
}

absl::StatusOr<Fd> ListenOn(const std::string& host, int port) {
  if (port < 0 || port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("port ", port, " is not within 0 to 65535"));
  }
  auto addresses = Resolve(host, port, AI_PASSIVE);
  if (!addresses.ok()) return addresses.status();
  const addrinfo& address = **addresses;
  Fd fd(socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  // Without it a restarted process waits a minute for its old connections' ports.
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (fd.get() < 0 || bind(fd.get(), address.ai_addr, address.ai_addrlen) < 0 ||
      listen(fd.get(), kBacklog) < 0) {
    const int error = errno;
    const std::string where = absl::StrCat("port ", port, " of ", host.empty() ? "*" : host);
    return error == EADDRINUSE ? absl::AlreadyExistsError(
                                     absl::StrCat(where, " is taken: choose another, or 0 for any"))
                               : absl::UnavailableError(absl::StrCat("cannot listen on ", where,
                                                                     ": ", ErrnoText(error)));
  }
  return fd;
}

int LocalPort(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0) return 0;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                             : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

bool IsOnThisMachine(int fd) {
  sockaddr_storage mine{}, theirs{};
  socklen_t mine_size = sizeof(mine), theirs_size = sizeof(theirs);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&mine), &mine_size) != 0 ||
      getpeername(fd, reinterpret_cast<sockaddr*>(&theirs), &theirs_size) != 0 ||
      mine.ss_family != theirs.ss_family) {
    return false;
  }
  if (mine.ss_family == AF_INET) {
    return reinterpret_cast<sockaddr_in&>(mine).sin_addr.s_addr ==
           reinterpret_cast<sockaddr_in&>(theirs).sin_addr.s_addr;
  }
  return mine.ss_family == AF_INET6 &&
         std::memcmp(&reinterpret_cast<sockaddr_in6&>(mine).sin6_addr,
                     &reinterpret_cast<sockaddr_in6&>(theirs).sin6_addr, sizeof(in6_addr)) == 0;
}

std::string PeerText(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0 ||
      getnameinfo(reinterpret_cast<sockaddr*>(&address), size, host, sizeof(host), port,
                  sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "";
  }
  return JoinHostPort(host, port);
}

absl::StatusOr<Fd> ConnectTo(const HostPort& to, absl::Time deadline) {
  auto addresses = Resolve(to.host, to.port, 0);
  if (!addresses.ok()) return addresses.status();
  int error = ECONNREFUSED, untried = 0;
  for (const addrinfo* one = addresses->get(); one != nullptr; one = one->ai_next) ++untried;
  for (const addrinfo* one = addresses->get(); one != nullptr; one = one->ai_next) {
    // An address that swallows everything takes no more than its share of the time.
    const absl::Time now = SteadyNow(), until = now + (deadline - now) / untried--;
    Fd fd(socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    error = fd.get() < 0 ? errno : ConnectOne(fd.get(), *one, until);
    if (error != 0) continue;
    fcntl(fd.get(), F_SETFL, fcntl(fd.get(), F_GETFL) & ~O_NONBLOCK);
    return fd;
  }
  return absl::UnavailableError(ErrnoText(error));
}

void SetNoDelay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

void SetReceiveTimeout(int fd, absl::Duration timeout) {
  const timeval value = absl::ToTimeval(timeout);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof(value));
}

}  // namespace echelon::link
