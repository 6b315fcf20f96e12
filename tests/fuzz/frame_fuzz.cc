// The link's frame parser on foreign bytes: it never reads past them, never promises more memory
// than its limits allow, and what it accepts it would have written in the same way.
#include <zlib.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime/link/frame.h"

using echelon::link::Frame;
using echelon::link::FrameLimits;
using echelon::link::kHeaderBytes;

namespace {

void Check(bool held, const char* what) {
  if (held) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const FrameLimits limits{.max_frame_bytes = 1 << 20,
                           .max_descriptor_bytes = 1 << 16,
                           .max_values = 100,
                           .max_dimensions = 8};
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (size >= kHeaderBytes) {
    // A fuzzer does not guess checksums, and the length of what follows is not its to say.
    const auto descriptor_bytes = static_cast<uint32_t>(size - kHeaderBytes);
    std::memcpy(bytes.data() + 40, &descriptor_bytes, sizeof(descriptor_bytes));
    const auto sum =
        static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), 60));
    std::memcpy(bytes.data() + 60, &sum, sizeof(sum));
  }
  const absl::Span<const std::byte> span(reinterpret_cast<const std::byte*>(bytes.data()),
                                         bytes.size());
  const auto header = echelon::link::ParseHeader(span, limits);
  if (!header.ok()) return 0;
  Check(header->tensor_bytes + header->descriptor_bytes <= limits.max_frame_bytes,
        "frame within limits");
  const auto frame = echelon::link::ParseDescriptors(*header, span.subspan(kHeaderBytes), limits);
  if (!frame.ok()) return 0;
  uint64_t total = 0;
  for (const Frame::TensorValue& value : frame->tensors) total += value.tensor.nbytes;
  Check(total == header->tensor_bytes, "tensors add up");
  Check(echelon::link::Prologue(*frame) == bytes, "round trip");
  (void)StatusOf(*frame);
  return 0;
}
