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

// The same for processors without vectors of sixteen.
struct Halves {
  Eight low, high;
};

template <typename T>
ECHELON_INLINE Halves LoadHalves(const T* from) {
  return {LoadEight(from), LoadEight(from + kLanes / 2)};
}

template <int R, int N, typename T>
ECHELON_INLINE void HalfDots(const RowsTimesMatrix& p, int64_t row, int64_t column) {
  const float* x = p.x + row * p.x_stride;
  const T* w = static_cast<const T*>(p.w) + column * p.output_stride;
  Halves sums[R][N] = {};
  const auto add = [&](int n, int64_t k, const Halves& weights) {
    for (int r = 0; r < R; ++r) {
      const Halves values = LoadHalves(x + r * p.x_stride + k);
      sums[r][n].low += values.low * weights.low;
      sums[r][n].high += values.high * weights.high;
    }
  };
  int64_t k = 0;
  for (; k + kLanes <= p.inputs; k += kLanes)
    for (int n = 0; n < N; ++n) add(n, k, LoadHalves(w + n * p.output_stride + k));
  for (int n = 0; k < p.inputs && n < N; ++n) {
    T last[kLanes] = {};
    __builtin_memcpy(last, w + n * p.output_stride + k, sizeof(T) * (p.inputs - k));
    add(n, k, LoadHalves(last));
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) {
      const Eight sum = sums[r][n].low + sums[r][n].high;
      p.y[(row + r) * p.outputs + column + n] =
          ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
    }
}

// A few rows stay in the nearest cache while the matrix goes by.
template <typename T>
ECHELON_INLINE void MultiplyHalfDots(const RowsTimesMatrix& p) {
  int64_t row = 0;
  for (; row + 6 <= p.rows; row += 6)
    for (int64_t column = p.begin; column < p.end; ++column) HalfDots<6, 1, T>(p, row, column);
  for (; row < p.rows; ++row) {
    int64_t column = p.begin;
    for (; column + 4 <= p.end; column += 4) HalfDots<1, 4, T>(p, row, column);
    for (; column < p.end; ++column) HalfDots<1, 1, T>(p, row, column);
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
ECHELON_CLONES void HalfDotsF32(const RowsTimesMatrix& p) { MultiplyHalfDots<float>(p); }
ECHELON_CLONES void HalfDotsBf16(const RowsTimesMatrix& p) { MultiplyHalfDots<uint16_t>(p); }
ECHELON_CLONES void ColumnsF32(const RowsTimesMatrix& p) { MultiplyColumns<float>(p); }
ECHELON_CLONES void ColumnsBf16(const RowsTimesMatrix& p) { MultiplyColumns<uint16_t>(p); }

}  // namespace

int64_t StrideOf(int64_t inputs) { return (inputs + kLanes - 1) / kLanes * kLanes; }

void Multiply(const RowsTimesMatrix& product) {
  const bool is_narrow = product.dtype == DType::kBF16;
  static const bool has_sixteen = HasSixteen();
  if (product.input_stride == 1 && has_sixteen) {
    (is_narrow ? DotsBf16 : DotsF32)(product);
  } else if (product.input_stride == 1) {
    (is_narrow ? HalfDotsBf16 : HalfDotsF32)(product);
  } else {
    (is_narrow ? ColumnsBf16 : ColumnsF32)(product);
  }
}

}  // namespace echelon::ops
