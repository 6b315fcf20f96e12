#include "runtime/cli/npy.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace echelon {
namespace {

constexpr absl::string_view kMagic("\x93NUMPY", 6);
constexpr size_t kMaxHeaderBytes = 64 << 10;
constexpr size_t kMaxDimensions = 16;
constexpr size_t kAlign = 64;

struct Descr {
  DType dtype;
  absl::string_view text;  // without the byte order
};
constexpr std::array<Descr, 14> kDescrs{{{DType::kBool, "b1"},
                                         {DType::kU8, "u1"},
                                         {DType::kI8, "i1"},
                                         {DType::kI16, "i2"},
                                         {DType::kI32, "i4"},
                                         {DType::kI64, "i8"},
                                         {DType::kU16, "u2"},
                                         {DType::kU32, "u4"},
                                         {DType::kU64, "u8"},
                                         {DType::kF16, "f2"},
                                         {DType::kF32, "f4"},
                                         {DType::kF64, "f8"},
                                         {DType::kC64, "c8"},
                                         {DType::kC128, "c16"}}};

struct Header {
  DType dtype = DType::kF32;
  bool fortran = false;
  std::vector<int64_t> shape;
};

std::string Shown(absl::string_view text) {
  std::string shown;
  for (const char c : text.substr(0, 80)) shown += absl::ascii_isprint(c) ? c : '?';
  return shown;
}

absl::StatusOr<DType> ParseDescr(absl::string_view text) {
  if (absl::StartsWith(text, ">"))
    return absl::InvalidArgumentError("holds big-endian numbers; save it as little-endian");
  absl::string_view bare = text;
  if (!bare.empty() && (bare[0] == '<' || bare[0] == '|' || bare[0] == '=')) bare.remove_prefix(1);
  for (const Descr& descr : kDescrs)
    if (descr.text == bare) return descr.dtype;
  return absl::InvalidArgumentError(
      absl::StrCat("holds '", Shown(text), "', which is no plain number type"));
}

absl::StatusOr<std::vector<int64_t>> ParseShape(absl::string_view text) {
  std::vector<int64_t> shape;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    part = absl::StripAsciiWhitespace(part);
    if (part.empty()) continue;  // (3,)
    int64_t size = -1;
    if (!absl::SimpleAtoi(part, &size) || size < 0 || shape.size() == kMaxDimensions)
      return absl::InvalidArgumentError(
          absl::StrCat("has an impossible shape (", Shown(text), ")"));
    shape.push_back(size);
  }
  return shape;
}

// What follows `'key':` in the header's Python dictionary, up to `end`.
std::optional<absl::string_view> After(absl::string_view header, absl::string_view key,
                                       absl::string_view begin, absl::string_view end) {
  size_t at = header.find(absl::StrCat("'", key, "'"));
  if (at == absl::string_view::npos) return std::nullopt;
  at = header.find(':', at);
  if (at == absl::string_view::npos) return std::nullopt;
  absl::string_view rest = absl::StripLeadingAsciiWhitespace(header.substr(at + 1));
  if (!absl::StartsWith(rest, begin)) return std::nullopt;
  rest.remove_prefix(begin.size());
  const size_t stop = rest.find(end);
  if (stop == absl::string_view::npos) return std::nullopt;
  return rest.substr(0, stop);
}

absl::StatusOr<Header> ParseHeader(absl::string_view text) {
  const auto descr = After(text, "descr", "'", "'");
  const auto fortran = After(text, "fortran_order", "", ",");
  const auto shape = After(text, "shape", "(", ")");
  if (!fortran || !shape) return absl::InvalidArgumentError("has a broken header");
  if (!descr) return absl::InvalidArgumentError("holds no plain array of numbers");
  Header header;
  header.fortran = absl::StripAsciiWhitespace(*fortran) == "True";
  const auto dtype = ParseDescr(*descr);
  if (!dtype.ok()) return dtype.status();
  header.dtype = *dtype;
  auto sizes = ParseShape(*shape);
  if (!sizes.ok()) return sizes.status();
  header.shape = *std::move(sizes);
  return header;
}

absl::StatusOr<Tensor> Parse(absl::string_view bytes) {
  if (!absl::StartsWith(bytes, kMagic) || bytes.size() < 10)
    return absl::InvalidArgumentError("is not a .npy file");
  const auto byte = [&](size_t at) {
    return static_cast<uint32_t>(static_cast<uint8_t>(bytes[at]));
  };
  const uint32_t major = byte(6);
  if (major < 1 || major > 3)
    return absl::InvalidArgumentError(
        absl::StrCat("is of .npy version ", major, "; 1 to 3 are understood"));
  const size_t start = major == 1 ? 10 : 12;
  if (bytes.size() < start) return absl::InvalidArgumentError("is cut short");
  size_t length = byte(8) | byte(9) << 8;
  if (major > 1) length |= byte(10) << 16 | byte(11) << 24;
  if (length > kMaxHeaderBytes || length > bytes.size() - start)
    return absl::InvalidArgumentError("is cut short in its header");
  auto header = ParseHeader(bytes.substr(start, length));
  if (!header.ok()) return header.status();
  const absl::string_view data = bytes.substr(start + length);
  const int64_t elements = ElementsOf(header->shape);
  const size_t element_bytes = ElementBytes(header->dtype);
  if (elements < 0 || static_cast<uint64_t>(elements) > data.size() / element_bytes)
    return absl::InvalidArgumentError(
        absl::StrCat("is cut short: its shape ", ShapeText(header->shape), " needs more than its ",
                     data.size(), " bytes of data"));
  Tensor tensor = Tensor::Empty(header->dtype, header->shape);
  std::memcpy(tensor.data, data.data(), tensor.nbytes);
  if (header->fortran && header->shape.size() > 1 && elements > 0) {
    int64_t stride = 1;
    for (const int64_t size : header->shape) {
      tensor.strides.push_back(stride);
      stride *= size;
    }
  }
  return tensor;
}

std::string DescrOf(DType dtype) {
  for (const Descr& descr : kDescrs)
    if (descr.dtype == dtype) return absl::StrCat(ElementBytes(dtype) == 1 ? "|" : "<", descr.text);
  return ElementBytes(dtype) == 2 ? "<u2" : "|u1";
}

}  // namespace

absl::StatusOr<Tensor> ParseNpy(absl::string_view bytes, const std::string& name) {
  auto tensor = Parse(bytes);
  if (tensor.ok()) return tensor;
  return absl::InvalidArgumentError(absl::StrCat(name, " ", tensor.status().message()));
}

absl::StatusOr<Tensor> ReadNpy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path, ": ", strerror(errno)));
  std::ostringstream bytes;
  bytes << file.rdbuf();
  if (file.bad() || bytes.fail())
    return absl::InvalidArgumentError(absl::StrCat("cannot read ", path, ": it holds no bytes"));
  return ParseNpy(bytes.str(), path);
}

std::string NpyBytes(const Tensor& tensor) {
  const std::string comma = tensor.shape.size() == 1 ? "," : "";
  std::string header =
      absl::StrCat("{'descr': '", DescrOf(tensor.dtype), "', 'fortran_order': False, 'shape': (",
                   absl::StrJoin(tensor.shape, ", "), comma, "), }");
  // The data starts at a multiple of 64 bytes, and the header ends with a newline.
  const size_t prefix = kMagic.size() + 4;
  header.append((kAlign - (prefix + header.size() + 1) % kAlign) % kAlign, ' ');
  header += '\n';
  std::string bytes(kMagic.data(), kMagic.size());
  bytes += {'\x01', '\x00', static_cast<char>(header.size() & 0xff),
            static_cast<char>(header.size() >> 8)};
  bytes += header;
  bytes.append(reinterpret_cast<const char*>(tensor.data), tensor.nbytes);
  return bytes;
}

absl::Status WriteNpy(const std::string& path, const Tensor& tensor) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  const std::string bytes = NpyBytes(tensor);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file)
    return absl::PermissionDeniedError(absl::StrCat("cannot write ", path, ": ", strerror(errno)));
  return absl::OkStatus();
}

}  // namespace echelon
