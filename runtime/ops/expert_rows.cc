#include "runtime/ops/expert_rows.h"

#include <algorithm>

#include "runtime/ops/lanes.h"

namespace echelon::ops {
namespace {

// The matrix's columns lie dense: sums over lanes of k, added up at the end.
template <int R, int N, typename T>
ECHELON_INLINE void Dots(const RowsTimesMatrix& p, int64_t row, int64_t column) {
  const float* x = p.x + row * p.x_stride;
  const T* w = static_cast<const T*>(p.w) + column * p.output_stride;
  Lanes sums[R][N] = {};
  int64_t k = 0;
  for (; k + kLanes <= p.inputs; k += kLanes) {
    Lanes weights[N];
    for (int n = 0; n < N; ++n) weights[n] = Load(w + n * p.output_stride + k);
    for (int r = 0; r < R; ++r) {
      const Lanes values = Load(x + r * p.x_stride + k);
      for (int n = 0; n < N; ++n) sums[r][n] += values * weights[n];
    }
  }
  if (k < p.inputs) {
    for (int n = 0; n < N; ++n) {
      const Lanes weights = LoadFirst(w + n * p.output_stride + k, static_cast<int>(p.inputs - k));
      for (int r = 0; r < R; ++r) sums[r][n] += Load(x + r * p.x_stride + k) * weights;
    }
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) p.y[(row + r) * p.outputs + column + n] = Sum(sums[r][n]);
}

// The matrix's rows lie dense: k after k, a vector of columns at a time.
template <int R, int N, typename T>
ECHELON_INLINE void Columns(const RowsTimesMatrix& p, int64_t row, int64_t column, int count) {
  const float* x = p.x + row * p.x_stride;
  const T* w = static_cast<const T*>(p.w) + column;
  Lanes sums[R][N] = {};
  for (int64_t k = 0; k < p.inputs; ++k) {
    Lanes weights[N];
    for (int n = 0; n < N; ++n)
      weights[n] = count < kLanes ? LoadFirst(w + k * p.input_stride, count)
                                  : Load(w + k * p.input_stride + n * kLanes);
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) sums[r][n] += x[r * p.x_stride + k] * weights[n];
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) {
      float* to = p.y + (row + r) * p.outputs + column + n * kLanes;
      if (count < kLanes) {
        float values[kLanes];
        Store(sums[r][n], values);
        std::copy_n(values, count, to);
      } else {
        Store(sums[r][n], to);
      }
    }
}

template <typename T>
ECHELON_INLINE void MultiplyDots(const RowsTimesMatrix& p) {
  for (int64_t column = p.begin; column < p.end;) {
    const bool is_four = column + 4 <= p.end;
    int64_t row = 0;
    if (is_four) {
      for (; row + 4 <= p.rows; row += 4) Dots<4, 4, T>(p, row, column);
      for (; row < p.rows; ++row) Dots<1, 4, T>(p, row, column);
    } else {
      for (; row + 4 <= p.rows; row += 4) Dots<4, 1, T>(p, row, column);
      for (; row < p.rows; ++row) Dots<1, 1, T>(p, row, column);
    }
    column += is_four ? 4 : 1;
  }
}

template <typename T>
ECHELON_INLINE void MultiplyColumns(const RowsTimesMatrix& p) {
  for (int64_t column = p.begin; column < p.end;) {
    const bool is_four = column + 4 * kLanes <= p.end;
    const int count = static_cast<int>(std::min<int64_t>(kLanes, p.end - column));
    int64_t row = 0;
    if (is_four) {
      for (; row + 4 <= p.rows; row += 4) Columns<4, 4, T>(p, row, column, kLanes);
      for (; row < p.rows; ++row) Columns<1, 4, T>(p, row, column, kLanes);
    } else {
      for (; row + 4 <= p.rows; row += 4) Columns<4, 1, T>(p, row, column, count);
      for (; row < p.rows; ++row) Columns<1, 1, T>(p, row, column, count);
    }
    column += is_four ? 4 * kLanes : count;
  }
}

ECHELON_CLONES void DotsF32(const RowsTimesMatrix& p) { MultiplyDots<float>(p); }
ECHELON_CLONES void DotsBf16(const RowsTimesMatrix& p) { MultiplyDots<uint16_t>(p); }
ECHELON_CLONES void ColumnsF32(const RowsTimesMatrix& p) { MultiplyColumns<float>(p); }
ECHELON_CLONES void ColumnsBf16(const RowsTimesMatrix& p) { MultiplyColumns<uint16_t>(p); }

}  // namespace

int64_t StrideOf(int64_t inputs) { return (inputs + kLanes - 1) / kLanes * kLanes; }

void Multiply(const RowsTimesMatrix& product) {
  const bool is_narrow = product.dtype == DType::kBF16;
  if (product.input_stride == 1) {
    (is_narrow ? DotsBf16 : DotsF32)(product);
  } else {
    (is_narrow ? ColumnsBf16 : ColumnsF32)(product);
  }
}

}  // namespace echelon::ops
