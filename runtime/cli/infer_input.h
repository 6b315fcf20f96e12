// What `echelon infer --input` says, as tensors.
#ifndef ECHELON_RUNTIME_CLI_INFER_INPUT_H_
#define ECHELON_RUNTIME_CLI_INFER_INPUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tensor/tensor.h"

namespace echelon {

struct InputSpec {  // as ModelMetadata gives it
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // -1: dynamic
};

// One tensor for each of `arguments`: NAME=FILE.npy or NAME=random|arange|zeros|ones:SHAPE[:SEED],
// SHAPE as 4x128
// ("scalar" for none). Without arguments every input is random, its dynamic sizes being 4. Random
// floats are normal, random integers 0 to 9. kInvalidArgument, kNotFound: one line naming the
// argument.
absl::StatusOr<std::vector<NamedTensor>> MakeInputs(const std::vector<std::string>& arguments,
                                                    const std::vector<InputSpec>& specs);

// The element as people write it: "1.5", "-3", "true", "1+2i".
std::string ElementText(const Tensor& tensor, int64_t index);

}  // namespace echelon

#endif  // ECHELON_RUNTIME_CLI_INFER_INPUT_H_
