// Copying from a mapped file that another process may cut short meanwhile.
#ifndef ECHELON_RUNTIME_WEIGHTS_GUARDED_COPY_H_
#define ECHELON_RUNTIME_WEIGHTS_GUARDED_COPY_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace echelon::weights {

// memcpy, which also extends *crc32 unless it is null; false when `from` is a mapping whose file
// ends or cannot be read where it is touched, which is a SIGBUS elsewhere. `to` then holds some of
// the bytes, *crc32 what it held. Any thread. The first call installs a handler for SIGBUS, which
// leaves every other fault to the one that was there.
bool GuardedCopy(absl::Span<std::byte> to, const std::byte* from, uint32_t* crc32);

}  // namespace echelon::weights

#endif  // ECHELON_RUNTIME_WEIGHTS_GUARDED_COPY_H_
