// The header of a safetensors file: untrusted, so every claim is checked before anything is
// allocated or read by it.
#ifndef ECHELON_RUNTIME_WEIGHTS_SAFETENSORS_H_
#define ECHELON_RUNTIME_WEIGHTS_SAFETENSORS_H_

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tensor/dtype.h"
#include "runtime/weights/source.h"

namespace echelon::weights {

struct SafeTensor {
  DType dtype;
  std::vector<int64_t> shape;       // elements, row-major
  uint64_t offset = 0, nbytes = 0;  // of the file
};

// A JSON object; kInvalidArgument, beginning with `what`, for anything else, for one nested too
// deep and for one that has a key twice.
absl::StatusOr<nlohmann::json> ParseObject(const std::string& what, const std::string& text);

// Parses the JSON header of a file of file_bytes whose data begins at data_offset. Errors name
// `path` and the tensor: unknown dtype, negative or overflowing shape, offsets outside the file,
// that disagree with the shape, overlap or leave gaps (also at the end), duplicate names.
absl::StatusOr<std::map<std::string, SafeTensor>> ParseSafetensorsHeader(const std::string& path,
                                                                         const std::string& json,
                                                                         uint64_t data_offset,
                                                                         uint64_t file_bytes);

absl::StatusOr<std::map<std::string, SafeTensor>> ReadSafetensorsHeader(const std::string& path);

}  // namespace echelon::weights

#endif  // ECHELON_RUNTIME_WEIGHTS_SAFETENSORS_H_
