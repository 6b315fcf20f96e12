#include "runtime/serve/compress.h"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace echelon::serve {
namespace {

constexpr int kWindowBits = 15;
constexpr int kGzip = 16;  // added to the window bits: zlib's way to say gzip
constexpr size_t kStep = 256 << 10;

int WindowBits(Encoding encoding) {
  return encoding == Encoding::kGzip ? kWindowBits + kGzip : kWindowBits;
}

uInt Chunk(size_t bytes) {
  return static_cast<uInt>(std::min<size_t>(bytes, std::numeric_limits<uInt>::max()));
}

Bytef* Input(absl::string_view bytes, size_t at) {
  return reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data() + at));
}

}  // namespace

absl::StatusOr<std::string> Inflate(absl::string_view bytes, Encoding encoding, size_t max_bytes) {
  z_stream stream{};
  if (inflateInit2(&stream, WindowBits(encoding)) != Z_OK)
    return absl::InternalError("zlib cannot start");
  const absl::Cleanup end = [&stream] { inflateEnd(&stream); };
  std::string out;
  size_t read = 0, written = 0;
  for (int code = Z_OK; code != Z_STREAM_END;) {
    if (written == out.size()) {
      if (written > max_bytes)
        return absl::OutOfRangeError(
            absl::StrCat("the body inflates to more than ", max_bytes, " bytes"));
      out.resize(std::min(max_bytes + 1, std::max(kStep, 2 * written)));
    }
    const uInt given = Chunk(bytes.size() - read), room = Chunk(out.size() - written);
    stream.next_in = Input(bytes, read);
    stream.avail_in = given;
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + written);
    stream.avail_out = room;
    code = inflate(&stream, Z_NO_FLUSH);
    read += given - stream.avail_in;
    written += room - stream.avail_out;
    const bool stuck = code == Z_BUF_ERROR || (code == Z_OK && stream.avail_out != 0);
    if ((code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) ||
        (stuck && read == bytes.size()))
      return absl::InvalidArgumentError("the body is not what its Content-Encoding says");
  }
  if (written > max_bytes)
    return absl::OutOfRangeError(
        absl::StrCat("the body inflates to more than ", max_bytes, " bytes"));
  if (read != bytes.size())
    return absl::InvalidArgumentError("bytes follow the end of the compressed body");
  out.resize(written);
  return out;
}

std::string Deflate(absl::string_view bytes, Encoding encoding) {
  z_stream stream{};
  // Level 1: tensors hardly compress, so a higher one costs time for nothing.
  if (deflateInit2(&stream, 1, Z_DEFLATED, WindowBits(encoding), 8, Z_DEFAULT_STRATEGY) != Z_OK)
    return std::string(bytes);
  const absl::Cleanup end = [&stream] { deflateEnd(&stream); };
  std::string out(deflateBound(&stream, bytes.size()) + 64, '\0');
  size_t read = 0, written = 0;
  for (int code = Z_OK; code == Z_OK;) {
    const uInt given = Chunk(bytes.size() - read), room = Chunk(out.size() - written);
    stream.next_in = Input(bytes, read);
    stream.avail_in = given;
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + written);
    stream.avail_out = room;
    code = deflate(&stream, read + given == bytes.size() ? Z_FINISH : Z_NO_FLUSH);
    read += given - stream.avail_in;
    written += room - stream.avail_out;
  }
  out.resize(written);
  return out;
}

Encoding Accepted(absl::string_view accept_encoding) {
  for (const absl::string_view item : absl::StrSplit(accept_encoding, ',')) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(item, absl::MaxSplits(';', 1));
    const std::string name = absl::AsciiStrToLower(absl::StripAsciiWhitespace(parts.first));
    absl::string_view quality = absl::StripAsciiWhitespace(parts.second);
    double weight = 1;
    if (absl::StartsWith(quality, "q=") &&
        (!absl::SimpleAtod(quality.substr(2), &weight) || weight <= 0))
      continue;
    if (name == "gzip") return Encoding::kGzip;
    if (name == "deflate") return Encoding::kDeflate;
  }
  return Encoding::kNone;
}

}  // namespace echelon::serve
