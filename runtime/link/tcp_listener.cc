#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <list>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/link/tcp_link.h"
#include "runtime/link/tcp_stream.h"
#include "runtime/sync/mutex.h"

namespace echelon::link {
namespace {

const absl::Duration kParkedTimeout = absl::Seconds(30);  // longer than an epoch takes to open
constexpr size_t kMaxWaiting = 64;
constexpr FrameLimits kHelloLimits{
    .max_frame_bytes = 256, .max_descriptor_bytes = 256, .max_values = 0, .max_dimensions = 0};

// Takes the same time wherever the texts differ, so that a stranger cannot find the token byte by
// byte.
bool SameToken(absl::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

// A connection that has not become a link yet.
class Waiting {
 public:
  Waiting(Fd fd, absl::Time deadline) : fd_(std::move(fd)), deadline_(deadline) {}

  enum class State { kIncomplete, kSaidHello, kStranger };

  // Reads the hello's bytes and not one more: the link reads on from there.
  State Read() {
    while (!hello_.has_value()) {
      const size_t want =
          header_.has_value() ? kHeaderBytes + header_->descriptor_bytes : kHeaderBytes;
      if (have_ < want) {
        const ssize_t came = recv(fd_.get(), bytes_.data() + have_, want - have_, MSG_DONTWAIT);
        if (came < 0 && errno == EINTR) continue;
        if (came < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return State::kIncomplete;
        if (came <= 0) return State::kStranger;
        have_ += static_cast<size_t>(came);
      } else if (!header_.has_value()) {
        auto header = ParseHeader({bytes_.data(), kHeaderBytes}, kHelloLimits);
        if (!header.ok() || header->kind != FrameKind::kHello) return State::kStranger;
        header_ = *header;
      } else {
        auto frame = ParseDescriptors(
            *header_, {bytes_.data() + kHeaderBytes, header_->descriptor_bytes}, kHelloLimits);
        if (!frame.ok()) return State::kStranger;
        hello_ = *std::move(frame);
        deadline_ = SteadyNow() + kParkedTimeout;
      }
    }
    return State::kSaidHello;
  }

  const Frame& hello() const { return *hello_; }
  bool said_hello() const { return hello_.has_value(); }
  absl::Time deadline() const { return deadline_; }
  int fd() const { return fd_.get(); }
  Fd TakeSocket() { return std::move(fd_); }

 private:
  Fd fd_;
  absl::Time deadline_;
  std::array<std::byte, kHeaderBytes + 256> bytes_;
  size_t have_ = 0;
  std::optional<FrameHeader> header_;
  std::optional<Frame> hello_;
};

class Listener final : public TcpListener {
 public:
  Listener(Fd fd, Fd wake, const FrameLimits& limits, const LinkOptions& options)
      : fd_(std::move(fd)),
        wake_(std::move(wake)),
        port_(LocalPort(fd_.get())),
        limits_(limits),
        options_(options) {}

  int port() const override { return port_; }
  uint64_t refused_connections() const override { return refused_.load(); }

  absl::StatusOr<std::unique_ptr<Link>> Accept(const Hello& expected,
                                               absl::Duration timeout) override {
    MutexLock one_at_a_time(&accept_mutex_);
    {
      MutexLock lock(&mutex_);
      cancel_now_ = false;
    }
    const absl::Time deadline = SteadyNow() + timeout;
    for (;;) {
      if (absl::Status status = Cancelled(expected); !status.ok()) return status;
      if (std::unique_ptr<Link> link = Match(expected)) return link;
      if (SteadyNow() >= deadline) {
        return absl::DeadlineExceededError(
            absl::StrCat("rank ", expected.rank, " did not connect to port ", port_, " for epoch ",
                         expected.epoch, " within ", absl::FormatDuration(timeout)));
      }
      WaitUntil(deadline);
      AcceptConnections();
    }
  }

  void CancelAccept() override {
    {
      MutexLock lock(&mutex_);
      cancel_now_ = true;
    }
    Wake();
  }

  void CancelThrough(uint64_t epoch) override {
    {
      MutexLock lock(&mutex_);
      cancelled_through_ = std::max(cancelled_through_, epoch);
    }
    Wake();
  }

  void Close() override {
    {
      MutexLock lock(&mutex_);
      closed_ = true;
    }
    Wake();
    shutdown(fd_.get(), SHUT_RDWR);  // from now on a dialler is refused
  }

 private:
  void Wake() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));
  }

  absl::Status Cancelled(const Hello& expected) const {
    MutexLock lock(&mutex_);
    if (!closed_ && !cancel_now_ && expected.epoch > cancelled_through_) return absl::OkStatus();
    return absl::CancelledError(absl::StrCat("waiting for rank ", expected.rank, " was cancelled"));
  }

  // Reads what came; drops strangers, hellos of the past and who took too long; keeps hellos of the
  // future.
  std::unique_ptr<Link> Match(const Hello& expected) ABSL_EXCLUSIVE_LOCKS_REQUIRED(accept_mutex_) {
    std::unique_ptr<Link> link;
    const absl::Time now = SteadyNow();
    for (auto one = waiting_.begin(); one != waiting_.end() && link == nullptr;) {
      const Waiting::State state = one->Read();
      bool keep = state != Waiting::State::kStranger && now < one->deadline();
      if (keep && state == Waiting::State::kSaidHello) {
        const Frame& hello = one->hello();
        keep = hello.epoch > expected.epoch;
        if (hello.epoch == expected.epoch && hello.step == static_cast<uint64_t>(expected.rank) &&
            SameToken(hello.rows, expected.token)) {
          link = MakeLink(one->TakeSocket(), expected.rank);
          one = waiting_.erase(one);
          continue;
        }
      }
      if (!keep) refused_.fetch_add(1);
      one = keep ? std::next(one) : waiting_.erase(one);
    }
    return link;
  }

  std::unique_ptr<Link> MakeLink(Fd fd, int rank) const {
    fcntl(fd.get(), F_SETFL, fcntl(fd.get(), F_GETFL) & ~O_NONBLOCK);
    std::string peer = absl::StrCat("rank ", rank, " at ", PeerText(fd.get()));
    return std::make_unique<TcpStream>(std::move(fd), std::move(peer), limits_, options_);
  }

  void WaitUntil(absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(accept_mutex_) {
    std::vector<pollfd> polled = {{.fd = fd_.get(), .events = POLLIN},
                                  {.fd = wake_.get(), .events = POLLIN}};
    for (const Waiting& one : waiting_) {
      deadline = std::min(deadline, one.deadline());
      if (!one.said_hello()) polled.push_back({.fd = one.fd(), .events = POLLIN});
    }
    const int64_t left_ms = absl::ToInt64Milliseconds(deadline - SteadyNow()) + 1;
    poll(polled.data(), polled.size(), static_cast<int>(std::clamp<int64_t>(left_ms, 0, 1 << 30)));
    uint64_t ignored;
    [[maybe_unused]] const ssize_t drained = read(wake_.get(), &ignored, sizeof(ignored));
  }

  void AcceptConnections() ABSL_EXCLUSIVE_LOCKS_REQUIRED(accept_mutex_) {
    // A bound on each turn, so that a flood cannot keep Accept from its deadline.
    for (size_t i = 0; i < kMaxWaiting; ++i) {
      Fd fd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (fd.get() < 0) return;
      waiting_.emplace_back(std::move(fd), SteadyNow() + options_.hello_timeout);
      if (waiting_.size() > kMaxWaiting) {
        waiting_.pop_front();
        refused_.fetch_add(1);
      }
    }
  }

  const Fd fd_, wake_;
  const int port_;
  const FrameLimits limits_;
  const LinkOptions options_;
  std::atomic<uint64_t> refused_ = 0;

  Mutex accept_mutex_;
  std::list<Waiting> waiting_ ABSL_GUARDED_BY(accept_mutex_);  // oldest first

  mutable Mutex mutex_;
  bool cancel_now_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t cancelled_through_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TcpListener>> TcpListener::Listen(const std::string& host, int port,
                                                                 FrameLimits limits,
                                                                 const LinkOptions& options) {
  auto fd = ListenOn(host, port);
  if (!fd.ok()) return fd.status();
  Fd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake.get() < 0)
    return absl::ResourceExhaustedError(absl::StrCat("cannot listen: ", ErrnoText(errno)));
  return std::make_unique<Listener>(*std::move(fd), std::move(wake), limits, options);
}

}  // namespace echelon::link
