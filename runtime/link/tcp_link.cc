#include "runtime/link/tcp_link.h"

#include <limits.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/link/tcp_stream.h"
#include "runtime/sync/steady_clock.h"

namespace echelon::link {
namespace {

// A frame of up to 64 KiB of tensors comes in one receive call; what is longer goes straight into
// its tensor.
constexpr size_t kMaxPrologueAhead = 4096;
constexpr size_t kMinTensorAhead = 8 << 10, kMaxTensorAhead = 64 << 10;
constexpr size_t kReadAheadBytes = kMaxTensorAhead + kMaxPrologueAhead;
constexpr size_t kDirectBytes = 32 << 10;
constexpr int64_t kLeastBytesPerSecond = 10'000'000;
constexpr absl::Duration kLongestWait = absl::Seconds(1);
// Below, one receive call takes frame and tensors together.
constexpr uint64_t kLeastShared = 64 << 10;
// Of a slot of shared memory; what is longer goes over TCP. Pages come when they are used.
constexpr uint64_t kMostShared = 64 << 20;
constexpr uint64_t kSharedAlign = 64;

uint64_t SharedBytes(const Tensor& tensor) {
  return (tensor.nbytes + kSharedAlign - 1) / kSharedAlign * kSharedAlign;
}

uint64_t SharedBytes(const Frame& frame) {
  uint64_t bytes = 0;
  for (const Frame::TensorValue& value : frame.tensors) bytes += SharedBytes(value.tensor);
  return bytes;
}

bool TryAgain(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

}  // namespace

TcpStream::TcpStream(Fd fd, std::string peer, const FrameLimits& limits, const LinkOptions& options)
    : fd_(std::move(fd)),
      peer_(std::move(peer)),
      limits_(limits),
      options_(options),
      may_offer_(options.share_memory && IsOnThisMachine(fd_.get())),
      read_ahead_(std::make_unique_for_overwrite<std::byte[]>(kReadAheadBytes)) {
  SetNoDelay(fd_.get());
  // The socket wakes a receiver now and then, so that it can look at its deadline without a second
  // system call.
  SetReceiveTimeout(fd_.get(),
                    std::clamp(options.frame_deadline / 4, absl::Milliseconds(5), kLongestWait));
}

void TcpStream::Close() {
  closed_.store(true);
  shutdown(fd_.get(), SHUT_RDWR);
}

absl::Status TcpStream::Lost(absl::string_view what) const {
  if (closed_.load())
    return absl::UnavailableError(absl::StrCat("the link with ", peer_, " is closed"));
  return absl::UnavailableError(absl::StrCat("lost the link with ", peer_, ": ", what));
}

absl::Status TcpStream::Send(const Frame& frame) {
  if (!send_fault_.ok()) return send_fault_;
  const absl::StatusOr<uint32_t> place = Share(frame);
  if (!place.ok()) return send_fault_ = place.status();
  prologue_.clear();
  AppendPrologue(frame, *place, &prologue_);
  pieces_.clear();
  pieces_.push_back({prologue_.data(), prologue_.size()});
  for (const Frame::TensorValue& value : frame.tensors) {
    if (*place > 0) {
      bytes_sent_.fetch_add(value.tensor.nbytes, std::memory_order_relaxed);
    } else if (value.tensor.nbytes > 0) {
      pieces_.push_back({value.tensor.data, value.tensor.nbytes});
    }
  }
  absl::Status status = SendPieces();
  if (!status.ok()) send_fault_ = status;
  return status;
}

absl::StatusOr<uint32_t> TcpStream::Share(const Frame& frame) {
  const uint64_t bytes = may_offer_ ? SharedBytes(frame) : 0;
  if (bytes < kLeastShared) return 0;
  if (shared_out_ == nullptr) {
    if (!offer_) {
      const absl::Status offered = OfferMemory();
      return offered.ok() ? absl::StatusOr<uint32_t>(0) : offered;
    }
    shared_out_ = offer_->Poll();
    if (shared_out_ == nullptr) return 0;
    offer_.reset();
  }
  const std::optional<uint32_t> slot = shared_out_->Take(bytes);
  if (!slot) return 0;
  std::byte* to = shared_out_->At(*slot);
  for (const Frame::TensorValue& value : frame.tensors) {
    std::memcpy(to, value.tensor.data, value.tensor.nbytes);
    to += SharedBytes(value.tensor);
  }
  return *slot + 1;
}

absl::Status TcpStream::OfferMemory() {
  offer_ = SharedMemoryOffer::Make();
  if (!offer_) {
    may_offer_ = false;
    return absl::OkStatus();
  }
  prologue_ = Prologue(Frame{.kind = FrameKind::kOffer, .rows = offer_->name()});
  pieces_ = {{prologue_.data(), prologue_.size()}};
  return SendPieces();
}

void TcpStream::AnswerMemory(const Frame& offer) {
  if (shared_in_ != nullptr || !IsOnThisMachine(fd_.get())) return;
  shared_in_ = AnswerOffer(offer.rows, std::min(limits_.max_frame_bytes, kMostShared));
}

absl::Status TcpStream::SendPieces() {
  for (size_t first = 0; first < pieces_.size();) {
    // What is long begins a call: behind bytes that are no multiple of 64 in the same one, 8 MiB
    // took 1.7 times as long.
    size_t count = 1;
    while (first + count < pieces_.size() && count < IOV_MAX &&
           pieces_[first + count].iov_len <= kMaxTensorAhead)
      ++count;
    msghdr message{};
    message.msg_iov = &pieces_[first];
    message.msg_iovlen = count;
    const ssize_t sent = sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      return Lost(ErrnoText(errno));
    }
    bytes_sent_.fetch_add(static_cast<uint64_t>(sent), std::memory_order_relaxed);
    size_t left = static_cast<size_t>(sent);
    while (first < pieces_.size() && left >= pieces_[first].iov_len)
      left -= pieces_[first++].iov_len;
    if (left > 0) {
      pieces_[first].iov_base = static_cast<std::byte*>(pieces_[first].iov_base) + left;
      pieces_[first].iov_len -= left;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Frame> TcpStream::Receive() {
  if (!receive_fault_.ok()) return receive_fault_;
  absl::StatusOr<Frame> frame = ReceiveFrame();
  while (frame.ok() && frame->kind == FrameKind::kOffer) {
    AnswerMemory(*frame);
    frame = ReceiveFrame();
  }
  if (!frame.ok()) {
    receive_fault_ = frame.status();  // where the next frame would begin is not known any more
  }
  return frame;
}

absl::StatusOr<Frame> TcpStream::ReceiveFrame() {
  frame_deadline_ = absl::InfiniteFuture();
  if (absl::Status status = NeedAhead(); !status.ok()) return status;
  auto header = ParseHeader({read_ahead_.get() + begin_, kHeaderBytes}, limits_);
  if (!header.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(peer_, " sent a ", header.status().message()));
  }
  begin_ += kHeaderBytes;
  frame_deadline_ = SteadyNow() + options_.frame_deadline +
                    absl::Seconds(header->tensor_bytes / kLeastBytesPerSecond);
  if (kHeaderBytes + header->descriptor_bytes != expected_prologue_) SpillAhead();
  absl::StatusOr<Frame> frame;
  if (header->descriptor_bytes <= kReadAheadBytes) {
    if (absl::Status status = Need(header->descriptor_bytes); !status.ok()) return status;
    frame =
        ParseDescriptors(*header, {read_ahead_.get() + begin_, header->descriptor_bytes}, limits_);
    begin_ += header->descriptor_bytes;
  } else {
    const auto bytes = std::make_unique_for_overwrite<std::byte[]>(header->descriptor_bytes);
    if (absl::Status status = ReadInto(bytes.get(), header->descriptor_bytes); !status.ok()) {
      return status;
    }
    frame = ParseDescriptors(*header, {bytes.get(), header->descriptor_bytes}, limits_);
  }
  if (!frame.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(peer_, " sent a ", frame.status().message()));
  }
  if (absl::Status status = frame->place > 0 ? UseShared(&*frame) : ReceiveTensors(&*frame);
      !status.ok()) {
    return status;
  }
  Expect(kHeaderBytes + header->descriptor_bytes, *frame);
  return frame;
}

absl::Status TcpStream::ReceiveTensors(Frame* frame) {
  if (frame->tensors.empty() || frame->tensors[0].tensor.nbytes != expected_tensor_) SpillAhead();
  for (Frame::TensorValue& value : frame->tensors) {
    Tensor& tensor = value.tensor;
    const size_t have = std::exchange(ahead_bytes_, 0);
    tensor.owner = have > 0 ? std::move(ahead_) : pool_->Take(tensor.nbytes);
    if (tensor.owner == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "no memory for the ", tensor.nbytes, " bytes of value ", value.value, " from ", peer_));
    }
    tensor.data = static_cast<std::byte*>(tensor.owner.get());
    if (absl::Status status = ReadInto(tensor.data + have, tensor.nbytes - have); !status.ok())
      return status;
  }
  return absl::OkStatus();
}

absl::Status TcpStream::UseShared(Frame* frame) {
  SpillAhead();
  const uint32_t slot = std::exchange(frame->place, 0) - 1;
  if (shared_in_ == nullptr || !shared_in_->Has(slot, SharedBytes(*frame))) {
    return absl::InvalidArgumentError(
        absl::StrCat(peer_, " sent a malformed frame: slot ", slot, " is no shared memory for it"));
  }
  const std::shared_ptr<void> owner(shared_in_->At(slot),
                                    [memory = shared_in_, slot](void*) { memory->GiveBack(slot); });
  auto* at = static_cast<std::byte*>(owner.get());
  for (Frame::TensorValue& value : frame->tensors) {
    value.tensor.owner = owner;
    value.tensor.data = at;
    at += SharedBytes(value.tensor);
    bytes_received_.fetch_add(value.tensor.nbytes, std::memory_order_relaxed);
  }
  return absl::OkStatus();
}

void TcpStream::Expect(size_t prologue_bytes, const Frame& frame) {
  const size_t bytes = frame.tensors.empty() ? 0 : frame.tensors[0].tensor.nbytes;
  const bool fits =
      prologue_bytes <= kMaxPrologueAhead && bytes >= kMinTensorAhead && bytes <= kMaxTensorAhead;
  if (!fits || bytes != expected_tensor_) ahead_ = nullptr;
  expected_prologue_ = prologue_bytes;
  expected_tensor_ = fits ? bytes : 0;
}

absl::Status TcpStream::NeedAhead() {
  if (begin_ < end_ || expected_tensor_ == 0) return Need(kHeaderBytes);
  if (ahead_ == nullptr) ahead_ = pool_->Take(expected_tensor_);
  if (ahead_ == nullptr) return Need(kHeaderBytes);
  iovec pieces[] = {{read_ahead_.get(), expected_prologue_}, {ahead_.get(), expected_tensor_}};
  auto came = ReceiveSome(absl::MakeSpan(pieces), 0);
  if (!came.ok()) return came.status();
  begin_ = 0;
  end_ = std::min(*came, expected_prologue_);
  ahead_bytes_ = *came - end_;
  return Need(kHeaderBytes);
}

void TcpStream::SpillAhead() {
  if (ahead_bytes_ == 0) return;
  // It fits: what is ahead and the prologue before it are no more than read_ahead_ holds.
  std::memcpy(read_ahead_.get() + end_, ahead_.get(), ahead_bytes_);
  end_ += std::exchange(ahead_bytes_, 0);
}

absl::Status TcpStream::Need(size_t bytes) {
  if (begin_ == end_) begin_ = end_ = 0;
  if (end_ - begin_ < bytes && begin_ + bytes > kReadAheadBytes) {
    std::memmove(read_ahead_.get(), read_ahead_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  while (end_ - begin_ < bytes) {
    if (end_ > begin_ && frame_deadline_ == absl::InfiniteFuture()) {  // a header has begun
      frame_deadline_ = SteadyNow() + options_.frame_deadline;
    }
    iovec room{read_ahead_.get() + end_, kReadAheadBytes - end_};
    auto came = ReceiveSome(absl::MakeSpan(&room, 1), 0);
    if (!came.ok()) return came.status();
    end_ += *came;
  }
  return absl::OkStatus();
}

absl::Status TcpStream::ReadInto(std::byte* to, size_t bytes) {
  while (bytes > 0) {
    if (begin_ < end_) {
      const size_t step = std::min(bytes, end_ - begin_);
      std::memcpy(to, read_ahead_.get() + begin_, step);
      begin_ += step;
      to += step;
      bytes -= step;
    } else if (bytes >= kDirectBytes) {
      iovec rest{to, bytes};
      auto came = ReceiveSome(absl::MakeSpan(&rest, 1), MSG_WAITALL);
      if (!came.ok()) return came.status();
      to += *came;
      bytes -= *came;
    } else if (absl::Status status = Need(1); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

ssize_t TcpStream::SpinReceive(msghdr* message) const {
  const absl::Time until = SteadyNow() + options_.spin;
  ssize_t came;
  do {
    came = recvmsg(fd_.get(), message, MSG_DONTWAIT);
  } while (came < 0 && TryAgain(errno) && SteadyNow() < until);
  return came;
}

absl::StatusOr<size_t> TcpStream::ReceiveSome(absl::Span<iovec> pieces, int flags) {
  msghdr message{};
  message.msg_iov = pieces.data();
  message.msg_iovlen = pieces.size();
  ssize_t came = -1;
  if (options_.spin > absl::ZeroDuration()) came = SpinReceive(&message);
  while (came < 0) {
    came = recvmsg(fd_.get(), &message, flags);
    if (came >= 0) break;
    if (!TryAgain(errno)) return Lost(ErrnoText(errno));
    if (SteadyNow() > frame_deadline_) break;
  }
  const bool within_frame = frame_deadline_ != absl::InfiniteFuture();
  if (came == 0) return Lost(within_frame ? "it ended in the middle of a frame" : "it ended");
  // A sender that trickles must not get round the deadline either.
  if (came < 0 || (within_frame && SteadyNow() > frame_deadline_)) {
    return Lost(absl::StrCat("a frame was not whole within ",
                             absl::FormatDuration(options_.frame_deadline)));
  }
  bytes_received_.fetch_add(static_cast<uint64_t>(came), std::memory_order_relaxed);
  return static_cast<size_t>(came);
}

absl::StatusOr<std::unique_ptr<Link>> Dial(const std::string& address, const Hello& hello,
                                           FrameLimits limits, absl::Duration timeout,
                                           const LinkOptions& options) {
  constexpr absl::Duration kFirstPause = absl::Milliseconds(2),
                           kLongestPause = absl::Milliseconds(50);
  auto to = ParseHostPort(address);
  if (!to.ok()) return to.status();
  const absl::Time deadline = SteadyNow() + timeout;
  for (absl::Duration pause = kFirstPause;; pause = std::min(pause * 2, kLongestPause)) {
    if (options.cancelled != nullptr && options.cancelled->load()) {
      return absl::CancelledError(absl::StrCat("dialling ", address, " was cancelled"));
    }
    // Short attempts: a lost SYN costs a second, and cancellation is seen in between.
    auto fd = ConnectTo(*to, std::min(deadline, SteadyNow() + absl::Milliseconds(500)));
    if (fd.ok()) {
      auto link = std::make_unique<TcpStream>(
          *std::move(fd), absl::StrCat("the next stage at ", address), limits, options);
      const absl::Status status = link->Send(Frame{.kind = FrameKind::kHello,
                                                   .epoch = hello.epoch,
                                                   .step = static_cast<uint64_t>(hello.rank),
                                                   .rows = hello.token});
      if (status.ok()) return link;
      fd = status;
    }
    if (absl::IsInvalidArgument(fd.status())) return fd.status();
    if (SteadyNow() + pause >= deadline) {
      return absl::UnavailableError(absl::StrCat("cannot reach ", address, " within ",
                                                 absl::FormatDuration(timeout), ": ",
                                                 fd.status().message()));
    }
    std::this_thread::sleep_for(absl::ToChronoMilliseconds(pause));
  }
}

}  // namespace echelon::link
