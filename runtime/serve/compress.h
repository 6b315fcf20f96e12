// gzip and deflate bodies (the zlib format, as HTTP means it).
#ifndef ECHELON_RUNTIME_SERVE_COMPRESS_H_
#define ECHELON_RUNTIME_SERVE_COMPRESS_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace echelon::serve {

enum class Encoding { kNone, kGzip, kDeflate };

// kInvalidArgument: not of that format, or cut short. kOutOfRange: more than `max_bytes` come out.
absl::StatusOr<std::string> Inflate(absl::string_view bytes, Encoding encoding, size_t max_bytes);

std::string Deflate(absl::string_view bytes, Encoding encoding);

// The first of gzip and deflate that an Accept-Encoding header names and does not give q=0.
Encoding Accepted(absl::string_view accept_encoding);

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_COMPRESS_H_
