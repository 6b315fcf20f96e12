// Rows of batches: cutting a batch into micro-batches and putting their results together.
#ifndef ECHELON_RUNTIME_STAGE_ROWS_H_
#define ECHELON_RUNTIME_STAGE_ROWS_H_

#include "absl/status/status.h"
#include "runtime/tensor/tensor.h"

namespace echelon::stage {

// Row-major; the same memory when it is so already.
Tensor RowMajor(Tensor tensor);

Tensor Copy(const Tensor& tensor);

// Memory at a 64-byte boundary, as PyTorch's own tensors are; the same when it is so already.
// Kernels choose by a tensor's address how they sum, so that without this an answer's last bits
// would hang on where a request lay.
Tensor Aligned(Tensor tensor);

// Rows [first, first + count) of dimension 0, sharing the memory. Precondition: row-major, rows in
// range.
Tensor Rows(const Tensor& tensor, int64_t first, int64_t count);

// Writes a part to rows [first, first + part rows) of *whole, which is made for `rows` rows on the
// first call. A part that is the whole is taken as it is. kInternal: the part does not fit.
absl::Status PutRows(const Tensor& part, int64_t first, int64_t rows, Tensor* whole);

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_ROWS_H_
