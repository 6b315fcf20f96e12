#include "runtime/weights/crc32.h"

#include <isa-l/crc.h>
#include <zlib.h>

#include <cstring>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace echelon::weights {
namespace {

constexpr size_t kBlockBytes = 64 << 10;  // copied, then summed while it is in a core's own cache

#ifdef __x86_64__

constexpr size_t kSums = 8, kStepBytes = kSums * sizeof(__m256i);
constexpr size_t kPrefetchBytes = 1024;  // the processor itself stops at a page's end

// x^n modulo CRC-32's polynomial, as a carry-less multiplication of reflected numbers takes it.
constexpr int64_t PowerOfX(int n) {
  uint32_t power = 0x80000000;
  for (int i = 0; i < n; ++i) power = power >> 1 ^ (power & 1 ? 0xedb88320 : 0);
  return int64_t{power} << 1;
}

bool CanFold() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("vpclmulqdq"); }

// What is copied is summed on its way: while loads wait for memory the multiplications are free.
// Each of eight sums moves on by what all of them take, which multiplies it by a power of x, and
// takes in the next bytes; what they come to is eight times 32 bytes whose CRC is that of all. (V.
// Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", 2009.)
// nbytes: a multiple of kStepBytes, not 0.
__attribute__((target("avx2,pclmul,vpclmulqdq"))) uint32_t CopyFolding(uint32_t crc, std::byte* to,
                                                                       const std::byte* from,
                                                                       size_t nbytes) {
  const __m256i powers = _mm256_broadcastsi128_si256(
      _mm_set_epi64x(PowerOfX(8 * kStepBytes - 32), PowerOfX(8 * kStepBytes + 32)));
  __m256i sums[kSums] = {_mm256_zextsi128_si256(_mm_cvtsi32_si128(static_cast<int>(~crc)))};
  for (size_t at = 0; at < nbytes; at += kStepBytes) {
#pragma GCC unroll 8
    for (size_t i = 0; i < kSums; ++i) {
      const size_t here = at + i * sizeof(__m256i);
      if (i % 2 == 0) _mm_prefetch(from + here + kPrefetchBytes, _MM_HINT_T0);
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + here));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + here), bytes);
      const __m256i low = _mm256_clmulepi64_epi128(sums[i], powers, 0x00);
      const __m256i high = _mm256_clmulepi64_epi128(sums[i], powers, 0x11);
      const __m256i moved = at == 0 ? sums[i] : _mm256_xor_si256(low, high);
      sums[i] = _mm256_xor_si256(moved, bytes);
    }
  }
  return ::crc32_gzip_refl(~0U, reinterpret_cast<const unsigned char*>(sums), sizeof sums);
}

#endif

}  // namespace

// zlib's own runs at 3 GB/s, loading at 7 and more; ISA-L's at 40 where AVX-512 is.
uint32_t ExtendCrc32(uint32_t crc, absl::Span<const std::byte> bytes) {
  return ::crc32_gzip_refl(crc, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

uint32_t CopyExtendCrc32(uint32_t crc, absl::Span<std::byte> to, const std::byte* from) {
  size_t done = 0;
#ifdef __x86_64__
  static const bool can_fold = CanFold();
  if (can_fold && to.size() >= kStepBytes) {
    done = to.size() / kStepBytes * kStepBytes;
    crc = CopyFolding(crc, to.data(), from, done);
  }
#endif
  while (done < to.size()) {
    const absl::Span<std::byte> block = to.subspan(done, kBlockBytes);
    std::memcpy(block.data(), from + done, block.size());
    crc = ExtendCrc32(crc, block);
    done += block.size();
  }
  return crc;
}

uint32_t JoinCrc32(uint32_t first, uint32_t second, uint64_t nbytes) {
  return static_cast<uint32_t>(::crc32_combine(first, second, static_cast<z_off_t>(nbytes)));
}

}  // namespace echelon::weights
