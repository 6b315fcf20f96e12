// Philox4x32-10: a counter-based generator. The same counter and key give the same numbers.
// Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011).
#ifndef ECHELON_RUNTIME_SAMPLING_PHILOX_H_
#define ECHELON_RUNTIME_SAMPLING_PHILOX_H_

#include <array>
#include <cstdint>

namespace echelon::sampling {

constexpr std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter,
                                         std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultipliers[2] = {0xD2511F53, 0xCD9E8D57};
  constexpr uint32_t kWeyl[2] = {0x9E3779B9, 0xBB67AE85};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = kMultipliers[0] * counter[0], b = kMultipliers[1] * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key = {key[0] + kWeyl[0], key[1] + kWeyl[1]};
  }
  return counter;
}

// [0, 1), of 53 bits.
constexpr double Uniform(uint64_t seed, uint32_t choice, uint32_t position) {
  const auto bits = Philox({position, choice, 0, 0},
                           {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return static_cast<double>((uint64_t{bits[0]} << 21) ^ (bits[1] >> 11)) * 0x1p-53;
}

}  // namespace echelon::sampling

#endif  // ECHELON_RUNTIME_SAMPLING_PHILOX_H_
