// Of the whole project: how an address and its port are written together.
#ifndef ECHELON_RUNTIME_HOST_PORT_H_
#define ECHELON_RUNTIME_HOST_PORT_H_

#include <string>

#include "absl/strings/str_cat.h"

namespace echelon {

// "HOST:PORT"; an IPv6 address is put into brackets, "[::1]:8001", if it is not in them already.
inline std::string JoinHostPort(const std::string& host, const absl::AlphaNum& port) {
  const bool bare_v6 = host.find(':') != std::string::npos && host.front() != '[';
  return absl::StrCat(bare_v6 ? "[" : "", host, bare_v6 ? "]:" : ":", port);
}

}  // namespace echelon

#endif  // ECHELON_RUNTIME_HOST_PORT_H_
