// Of the whole project: CMake, images/build.sh and the tests read it here. The chart's appVersion
// and the exporter's pyproject.toml say the same.
#ifndef ECHELON_RUNTIME_VERSION_H_
#define ECHELON_RUNTIME_VERSION_H_

namespace echelon {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace echelon

#endif  // ECHELON_RUNTIME_VERSION_H_
