// A safetensors file of any bytes: a header that is taken promises ranges that lie in the file, fit
// their shapes and cover the data without overlap; one that is refused is refused in one line.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "runtime/weights/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kLengthBytes = 8;
  uint64_t header_bytes = 0;
  if (size < kLengthBytes) return 0;
  std::memcpy(&header_bytes, data, kLengthBytes);
  header_bytes = std::min<uint64_t>(header_bytes, size - kLengthBytes);
  const std::string json(reinterpret_cast<const char*>(data) + kLengthBytes, header_bytes);
  const uint64_t data_offset = kLengthBytes + header_bytes;
  const auto tensors =
      echelon::weights::ParseSafetensorsHeader("fuzz.safetensors", json, data_offset, size);
  if (!tensors.ok()) {
    if (tensors.status().message().find('\n') != std::string::npos) __builtin_trap();
    return 0;
  }
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const auto& [name, tensor] : *tensors) {
    uint64_t elements = 1;
    for (const int64_t extent : tensor.shape) elements *= static_cast<uint64_t>(extent);
    if (elements * echelon::ElementBytes(tensor.dtype) != tensor.nbytes) __builtin_trap();
    if (tensor.nbytes != 0) ranges.emplace_back(tensor.offset, tensor.offset + tensor.nbytes);
  }
  std::sort(ranges.begin(), ranges.end());
  uint64_t covered = data_offset;
  for (const auto& [begin, end] : ranges) {
    if (begin != covered || end > size) __builtin_trap();
    covered = end;
  }
  if (covered != size) __builtin_trap();
  return 0;
}
