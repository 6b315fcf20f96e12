// .npy files: any bytes. What reads as row-major must read the same after it has been written.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "runtime/cli/npy.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto tensor =
      echelon::ParseNpy(absl::string_view(reinterpret_cast<const char*>(data), size), "fuzz.npy");
  if (!tensor.ok() || !tensor->strides.empty()) return 0;
  const auto again = echelon::ParseNpy(echelon::NpyBytes(*tensor), "again.npy");
  if (!again.ok() || again->shape != tensor->shape || again->dtype != tensor->dtype) std::abort();
  if (tensor->nbytes != 0 && std::memcmp(again->data, tensor->data, tensor->nbytes) != 0)
    std::abort();
  return 0;
}
