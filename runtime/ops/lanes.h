// Sixteen floats at once, whatever the processor has: GCC's vector types, and functions compiled
// once for each kind of processor. Every lane is computed alike and in one order.
#ifndef ECHELON_RUNTIME_OPS_LANES_H_
#define ECHELON_RUNTIME_OPS_LANES_H_

#include <cstdint>
#include <cstring>

// The best of these is chosen when the program starts.
#if defined(ECHELON_CLONES)  // one kind, told by the compiler's flags
#elif defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define ECHELON_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ECHELON_CLONES
#endif
#define ECHELON_INLINE inline __attribute__((always_inline))

namespace echelon::ops {

inline constexpr int kLanes = 16;
typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t IntLanes __attribute__((vector_size(64)));
typedef uint32_t BitLanes __attribute__((vector_size(64)));
typedef uint16_t HalfLanes __attribute__((vector_size(32)));

template <typename Floats>
ECHELON_INLINE Floats LoadFloats(const float* from) {
  Floats lanes;
  __builtin_memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

template <typename Floats, typename Bits, typename Narrow>
ECHELON_INLINE Floats LoadBf16(const uint16_t* from) {
  Narrow narrow;
  __builtin_memcpy(&narrow, from, sizeof narrow);
  const Bits bits = __builtin_convertvector(narrow, Bits) << 16;
  Floats lanes;
  __builtin_memcpy(&lanes, &bits, sizeof lanes);
  return lanes;
}

ECHELON_INLINE Lanes Load(const float* from) { return LoadFloats<Lanes>(from); }
ECHELON_INLINE Lanes Load(const uint16_t* from) {
  return LoadBf16<Lanes, BitLanes, HalfLanes>(from);
}

// Where the processor has no vectors of sixteen GCC keeps such in memory: what runs there for long
// takes eight at a time.
typedef float Eight __attribute__((vector_size(32)));
typedef uint32_t EightBits __attribute__((vector_size(32)));
typedef uint16_t EightHalves __attribute__((vector_size(16)));

ECHELON_INLINE Eight LoadEight(const float* from) { return LoadFloats<Eight>(from); }
ECHELON_INLINE Eight LoadEight(const uint16_t* from) {
  return LoadBf16<Eight, EightBits, EightHalves>(from);
}

// The first `count` of what would be loaded, and zeros; reads nothing behind them.
template <typename T>
ECHELON_INLINE Lanes LoadFirst(const T* from, int count) {
  T padded[kLanes] = {};
  __builtin_memcpy(padded, from, sizeof(T) * count);
  return Load(padded);
}

template <typename Floats>
ECHELON_INLINE void Store(Floats lanes, float* to) {
  __builtin_memcpy(to, &lanes, sizeof lanes);
}

inline bool HasSixteen() {
#ifdef __x86_64__
  return __builtin_cpu_supports("avx512f");
#else
  return false;
#endif
}

ECHELON_INLINE float ToFloat(float value) { return value; }
ECHELON_INLINE float ToFloat(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  __builtin_memcpy(&value, &wide, sizeof value);
  return value;
}

// To nearest even; what is no number stays none.
ECHELON_INLINE uint16_t ToBf16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FC0;
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

ECHELON_INLINE Lanes Splat(float value) { return value - Lanes{}; }

// Lane i of the result is lane i + distance, for the first lanes.
template <int kDistance>
ECHELON_INLINE Lanes Down(Lanes x) {
  constexpr int kD = kDistance;
  return __builtin_shufflevector(x, x, kD, kD + 1, kD + 2, kD + 3, kD + 4, kD + 5, kD + 6, kD + 7,
                                 kD + 8, kD + 9, kD + 10, kD + 11, kD + 12, kD + 13, kD + 14,
                                 kD + 15);
}

ECHELON_INLINE float Sum(Lanes x) {  // by halves: one order
  x = x + Down<8>(x);
  x = x + Down<4>(x);
  x = x + Down<2>(x);
  return x[0] + x[1];
}

ECHELON_INLINE Lanes Greater(Lanes a, Lanes b) { return a > b ? a : b; }

ECHELON_INLINE float Greatest(Lanes x) {
  x = Greater(x, Down<8>(x));
  x = Greater(x, Down<4>(x));
  x = Greater(x, Down<2>(x));
  return x[0] > x[1] ? x[0] : x[1];
}

// e^x, at most 2 units in the last place off; 0 below -87. Cephes' expf.
ECHELON_INLINE Lanes Exp(Lanes x) {
  const Lanes magic = Splat(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer
  const Lanes rounded = x * 1.44269504088896341F + magic;
  const Lanes n = rounded - magic;
  const Lanes r = (x - n * 0.693359375F) - n * -2.12194440E-4F;
  Lanes sum = Splat(1.9875691500E-4F);
  sum = sum * r + 1.3981999507E-3F;
  sum = sum * r + 8.3334519073E-3F;
  sum = sum * r + 4.1665795894E-2F;
  sum = sum * r + 1.6666665459E-1F;
  sum = sum * r + 5.0000001201E-1F;
  sum = sum * (r * r) + r + 1.0F;
  IntLanes bits, power;
  __builtin_memcpy(&bits, &rounded, sizeof bits);
  power = (bits + 127) << 23;  // 2^n: the low bits of `rounded` hold n
  Lanes scale;
  __builtin_memcpy(&scale, &power, sizeof scale);
  const Lanes zero = {};
  return x < -87.0F ? zero : sum * scale;
}

// Cephes' tanhf.
ECHELON_INLINE Lanes Tanh(Lanes x) {
  const Lanes z = x * x;
  Lanes small = Splat(-5.70498872745E-3F);
  small = small * z + 2.06390887954E-2F;
  small = small * z - 5.37397155531E-2F;
  small = small * z + 1.33314422036E-1F;
  small = small * z - 3.33332819422E-1F;
  small = small * z * x + x;
  const Lanes limit = Splat(10.0F);
  const Lanes bounded = x > limit ? limit : (x < -limit ? -limit : x);
  const Lanes large = 1.0F - 2.0F / (Exp(bounded + bounded) + 1.0F);
  return z < 0.390625F ? small : large;
}

}  // namespace echelon::ops

#endif  // ECHELON_RUNTIME_OPS_LANES_H_
