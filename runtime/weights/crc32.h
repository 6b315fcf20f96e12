// The CRC-32 of zip, gzip and zlib, at the speed of memory.
#ifndef ECHELON_RUNTIME_WEIGHTS_CRC32_H_
#define ECHELON_RUNTIME_WEIGHTS_CRC32_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace echelon::weights {

// Of what crc stands for followed by these bytes; 0 stands for no bytes.
uint32_t ExtendCrc32(uint32_t crc, absl::Span<const std::byte> bytes);

// memcpy, and ExtendCrc32 of what is copied: in one pass where the processor has VPCLMULQDQ.
uint32_t CopyExtendCrc32(uint32_t crc, absl::Span<std::byte> to, const std::byte* from);

// Of two stretches one after the other, of which the second has nbytes.
uint32_t JoinCrc32(uint32_t first, uint32_t second, uint64_t nbytes);

}  // namespace echelon::weights

#endif  // ECHELON_RUNTIME_WEIGHTS_CRC32_H_
