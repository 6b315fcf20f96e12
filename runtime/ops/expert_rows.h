// Rows times a matrix, an expert's or a bf16 linear's: each element summed in one order whatever
// the number of rows.
#ifndef ECHELON_RUNTIME_OPS_EXPERT_ROWS_H_
#define ECHELON_RUNTIME_OPS_EXPERT_ROWS_H_

#include <cstdint>

#include "runtime/tensor/dtype.h"

namespace echelon::ops {

// y[r * outputs + n] = sum over k of x[r * x_stride + k] * w(k, n), for n in [begin, end).
// x_stride is StrideOf(inputs); what is behind `inputs` is zero.
struct RowsTimesMatrix {
  const float* x = nullptr;
  int64_t rows = 0, x_stride = 0;
  const void* w = nullptr;
  DType dtype = DType::kF32;                                             // of w
  int64_t inputs = 0, outputs = 0, input_stride = 0, output_stride = 0;  // one stride is 1
  int64_t begin = 0, end = 0;
  float* y = nullptr;
};
int64_t StrideOf(int64_t inputs);  // rounded up to whole vectors
void Multiply(const RowsTimesMatrix& product);

}  // namespace echelon::ops

#endif  // ECHELON_RUNTIME_OPS_EXPERT_ROWS_H_
