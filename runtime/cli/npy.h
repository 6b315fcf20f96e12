// NumPy's .npy files, versions 1 to 3. Reading is untrusted: sizes are checked against the file
// before any allocation.
#ifndef ECHELON_RUNTIME_CLI_NPY_H_
#define ECHELON_RUNTIME_CLI_NPY_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/tensor/tensor.h"

namespace echelon {

// `name` stands in errors. Fortran order comes out as strides; big-endian and structured arrays are
// refused by name. kInvalidArgument: one line naming the file and what is wrong.
absl::StatusOr<Tensor> ParseNpy(absl::string_view bytes, const std::string& name);

// kNotFound, kInvalidArgument.
absl::StatusOr<Tensor> ReadNpy(const std::string& path);

// Version 1.0, little-endian, C order. NumPy has no bfloat16 or 8-bit floats: these are written as
// unsigned integers of the same bits. Precondition: `tensor` is row-major.
std::string NpyBytes(const Tensor& tensor);
absl::Status WriteNpy(const std::string& path, const Tensor& tensor);

}  // namespace echelon

#endif  // ECHELON_RUNTIME_CLI_NPY_H_
