// A Link over one connected socket. Private to runtime/link.
#ifndef ECHELON_RUNTIME_LINK_TCP_STREAM_H_
#define ECHELON_RUNTIME_LINK_TCP_STREAM_H_

#include <sys/socket.h>
#include <sys/uio.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/link/buffer_pool.h"
#include "runtime/link/link.h"
#include "runtime/link/shared_memory.h"
#include "runtime/link/socket.h"
#include "runtime/link/tcp_link.h"

namespace echelon::link {

// Send may run beside Receive; each by one thread at a time.
class TcpStream final : public Link {
 public:
  // peer: "rank 1 at 127.0.0.1:4711", for errors. The socket is a blocking one.
  TcpStream(Fd fd, std::string peer, const FrameLimits& limits, const LinkOptions& options);

  absl::Status Send(const Frame& frame) override;
  absl::StatusOr<Frame> Receive() override;
  void Close() override;
  uint64_t bytes_sent() const override { return bytes_sent_.load(std::memory_order_relaxed); }
  uint64_t bytes_received() const override {
    return bytes_received_.load(std::memory_order_relaxed);
  }

 private:
  absl::Status SendPieces();
  // Copies the tensors to where the receiver sees them; 0: their bytes are to follow the frame.
  absl::StatusOr<uint32_t> Share(const Frame& frame);
  absl::Status OfferMemory();
  void AnswerMemory(const Frame& offer);
  absl::StatusOr<Frame> ReceiveFrame();
  absl::Status ReceiveTensors(Frame* frame);
  absl::Status UseShared(Frame* frame);
  // Until read_ahead_ holds `bytes`; precondition: they fit.
  absl::Status Need(size_t bytes);
  absl::Status ReadInto(std::byte* to, size_t bytes);
  // Begins a frame that is expected to be like the one before: its tensor comes straight into its
  // own memory.
  absl::Status NeedAhead();
  void Expect(size_t prologue_bytes, const Frame& frame);
  void SpillAhead();  // it is another frame
  // One receive call into the pieces, or more of them while nothing has come; how much came.
  absl::StatusOr<size_t> ReceiveSome(absl::Span<iovec> pieces, int flags);
  ssize_t SpinReceive(msghdr* message) const;
  absl::Status Lost(absl::string_view what) const;

  const Fd fd_;
  const std::string peer_;
  const FrameLimits limits_;
  const LinkOptions options_;
  std::atomic<bool> closed_ = false;
  std::atomic<uint64_t> bytes_sent_ = 0, bytes_received_ = 0;

  // The sender's.
  std::string prologue_;
  std::vector<iovec> pieces_;
  absl::Status send_fault_;  // a frame was cut off: nothing may follow it
  bool may_offer_;
  std::optional<SharedMemoryOffer> offer_;
  std::shared_ptr<SharedMemory> shared_out_;

  // The receiver's.
  std::shared_ptr<SharedMemory> shared_in_;
  const std::shared_ptr<BufferPool> pool_ = BufferPool::Create();
  const std::unique_ptr<std::byte[]> read_ahead_;
  size_t begin_ = 0, end_ = 0;  // of what is in read_ahead_
  size_t expected_prologue_ = 0,
         expected_tensor_ = 0;   // bytes; no expectation when the latter is 0
  std::shared_ptr<void> ahead_;  // expected_tensor_ bytes
  size_t ahead_bytes_ = 0;       // of them, received
  absl::Time frame_deadline_ = absl::InfiniteFuture();
  absl::Status receive_fault_;
};

}  // namespace echelon::link

#endif  // ECHELON_RUNTIME_LINK_TCP_STREAM_H_
