// Copying from a mapped file that another process may cut short meanwhile.
#ifndef ECHELON_RUNTIME_WEIGHTS_GUARDED_COPY_H_
#define ECHELON_RUNTIME_WEIGHTS_GUARDED_COPY_H_

#include <cstddef>

namespace echelon::weights {

// memcpy; false when `from` is a mapping whose file ends or cannot be read where it is touched,
// which is a SIGBUS elsewhere. `to` then holds some of the bytes. Any thread. The first call
// installs a handler for SIGBUS, which leaves every other fault to the one that was there.
bool GuardedCopy(void* to, const void* from, size_t nbytes);

}  // namespace echelon::weights

#endif  // ECHELON_RUNTIME_WEIGHTS_GUARDED_COPY_H_
