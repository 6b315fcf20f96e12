// The step frame: what travels from stage to stage, for tensors and text alike.
//
// A frame is a fixed header, a descriptor section and the tensors' bytes. All numbers are
// little-endian. The header says how long the rest is, so a reader knows what it will allocate
// before it does, and refuses what its limits forbid. frame.cc documents the byte layout.
#ifndef ECHELON_RUNTIME_LINK_FRAME_H_
#define ECHELON_RUNTIME_LINK_FRAME_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/tensor/tensor.h"

namespace echelon::link {

enum class FrameKind : uint8_t {
  kHello =
      1,  // first on a connection: epoch, sender's rank (in `step`), the epoch's token (in `rows`)
  kStep = 2,   // values for the next stage (from the last stage to the head: the graph's outputs)
  kError = 3,  // the step failed on some stage: relayed to the head in the step's place; status in
               // `rows`
  kOffer = 4,  // the sender can share memory: where to reach it in `rows` (shared_memory.h). The
               // link's own, no Receive gives it
};

// Row metadata of text steps (sequence, position, block table...) is opaque to the link: bytes in
// `rows`.
struct Frame {
  FrameKind kind = FrameKind::kStep;
  uint64_t epoch = 0;
  uint64_t step = 0;   // steps are numbered by the head and run in order everywhere
  uint32_t chunk = 0;  // micro-batch within its request
  uint32_t place =
      0;  // the link's own: 0, or 1 + the slot of shared memory with the tensors' bytes
  struct TensorValue {
    uint32_t value = 0;  // graph::ValueId
    Tensor tensor;
  };
  struct ScalarValue {
    uint32_t value = 0;
    std::variant<int64_t, double, bool> scalar;
  };
  std::vector<TensorValue> tensors;
  std::vector<ScalarValue> scalars;
  std::string rows;
};

struct FrameLimits {
  uint64_t max_frame_bytes = uint64_t{4} << 30;  // descriptors and tensors together
  uint32_t max_descriptor_bytes = 64 << 20;      // rows included
  uint32_t max_values = 65536;
  uint32_t max_dimensions = 16;
};

inline constexpr size_t kHeaderBytes = 64;

// What a header promises; sizes are checked against the limits already.
struct FrameHeader {
  FrameKind kind;
  uint64_t epoch, step;
  uint32_t chunk, place;
  uint32_t tensor_count, scalar_count;
  uint32_t descriptor_bytes;  // follow the header, rows included
  uint64_t tensor_bytes;  // where place is 0, they follow the descriptors: each tensor's bytes, one
                          // after the other, no padding
};

// Takes the first kHeaderBytes of `bytes`. Errors (kInvalidArgument) name the field: checksum,
// magic, version, kind, counts, lengths.
absl::StatusOr<FrameHeader> ParseHeader(absl::Span<const std::byte> bytes,
                                        const FrameLimits& limits);

// Takes exactly header.descriptor_bytes. Fills in everything but the tensors' memory (data is null,
// nbytes is set; their sum equals header.tensor_bytes). Strides, where given, are dense. Prologue
// of the result gives the same bytes.
absl::StatusOr<Frame> ParseDescriptors(const FrameHeader& header, absl::Span<const std::byte> bytes,
                                       const FrameLimits& limits);

// Header and descriptors of a frame, ready to be sent before its tensors' bytes. Precondition: at
// most 255 dimensions a tensor and less than 4 GiB of descriptors. AppendPrologue keeps a caller's
// buffer in use.
std::string Prologue(const Frame& frame);
void AppendPrologue(const Frame& frame, uint32_t place, std::string* out);

// An error frame's status, and back. Texts are one line of at most 4 KiB; what is no status comes
// back as kInternal.
Frame ErrorFrame(uint64_t epoch, uint64_t step, uint32_t chunk, const absl::Status& status);
absl::Status StatusOf(const Frame& error);

}  // namespace echelon::link

#endif  // ECHELON_RUNTIME_LINK_FRAME_H_
