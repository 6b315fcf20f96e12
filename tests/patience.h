// How many times longer a thing may take under a sanitizer than without: real deadlines of tests on
// real clocks are multiplied by it.
#ifndef ECHELON_TESTS_PATIENCE_H_
#define ECHELON_TESTS_PATIENCE_H_

namespace echelon {

#if defined(__SANITIZE_THREAD__)
inline constexpr int kPatience = 8;
#elif defined(__SANITIZE_ADDRESS__)
inline constexpr int kPatience = 4;
#else
inline constexpr int kPatience = 1;
#endif

}  // namespace echelon

#endif  // ECHELON_TESTS_PATIENCE_H_
