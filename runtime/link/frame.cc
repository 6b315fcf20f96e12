// Byte layout, little-endian throughout.
//
//   header, 64 bytes
//      0 u32 magic "ECHF"       4 u8 version (1)        5 u8 kind          6 u16 zero
//      8 u64 epoch             16 u64 step             24 u32 chunk       28 u32 place
//     32 u32 tensor_count      36 u32 scalar_count     40 u32 descriptor_bytes
//     44 u32 zero              48 u64 tensor_bytes     56 u32 zero
//     60 u32 CRC-32 (zlib's) of bytes 0 to 59
//
//   descriptors, descriptor_bytes in all
//     each tensor:  u32 value, u8 dtype, u8 dimensions, u8 layout (0 row-major, 1 strides follow),
//     u8 zero,
//                   i64 size x dimensions, then i64 stride x dimensions where the layout is 1
//     each scalar:  u32 value, u8 type (1 i64, 2 f64, 3 bool), 3 zero bytes, 8 bytes of value
//     rows:         what is left
//
//   the tensors' bytes, tensor_bytes in all, where place is 0. Else they lie in slot place - 1 of
//   the memory that both ends share, each at the next multiple of 64.
//
// An error frame's rows are a u32 absl::StatusCode and the message.
#include "runtime/link/frame.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace echelon::link {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the frame is written as the host has it");

constexpr uint32_t kMagic = 0x46484345;  // "ECHF"
constexpr uint8_t kVersion = 1;
constexpr size_t kChecksumAt = 60;
constexpr size_t kTensorBytes = 8;   // a tensor's descriptor before its sizes
constexpr size_t kScalarBytes = 16;  // a scalar's descriptor
constexpr size_t kMaxStatusText = 4096;
enum Layout : uint8_t { kRowMajor = 0, kStrided = 1 };
enum ScalarType : uint8_t { kInt = 1, kDouble = 2, kBoolean = 3 };

template <typename T>
T Load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

template <typename T>
void Append(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
void Store(char* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}

uint32_t Checksum(const void* header) {
  return static_cast<uint32_t>(crc32(0, static_cast<const Bytef*>(header), kChecksumAt));
}

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed frame: ", what));
}

// Takes numbers off the front of the descriptors; never past their end.
class Cursor {
 public:
  explicit Cursor(absl::Span<const std::byte> bytes) : bytes_(bytes) {}
  size_t left() const { return bytes_.size(); }
  template <typename T>
  bool Take(T* value) {
    if (bytes_.size() < sizeof(T)) return false;
    *value = Load<T>(bytes_.data());
    bytes_.remove_prefix(sizeof(T));
    return true;
  }
  std::string Rest() const {
    return std::string(reinterpret_cast<const char*>(bytes_.data()), bytes_.size());
  }

 private:
  absl::Span<const std::byte> bytes_;
};

// True when the strides are those of a row-major tensor with its dimensions permuted. Dimensions of
// size 1 do not matter, nor do any when there are no elements, as long as they are not negative.
bool Dense(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  std::vector<std::pair<int64_t, int64_t>> order;  // stride, size
  bool empty = false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (strides[i] < 0) return false;
    empty |= shape[i] == 0;
    if (shape[i] != 1) order.emplace_back(strides[i], shape[i]);
  }
  if (empty) return true;
  std::sort(order.begin(), order.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : order) {
    if (stride != expected) return false;
    if (__builtin_mul_overflow(expected, size, &expected)) return false;
  }
  return true;
}

absl::Status TakeTensor(Cursor* cursor, const FrameLimits& limits, Frame::TensorValue* out) {
  uint8_t dtype, dimensions, layout, zero;
  if (!cursor->Take(&out->value) || !cursor->Take(&dtype) || !cursor->Take(&dimensions) ||
      !cursor->Take(&layout) || !cursor->Take(&zero)) {
    return Malformed("descriptors end within a tensor");
  }
  const auto fault = [out](absl::string_view what) {
    return Malformed(absl::StrCat("tensor of value ", out->value, ": ", what));
  };
  Tensor& tensor = out->tensor;
  tensor.dtype = static_cast<DType>(dtype);
  const size_t element_bytes = ElementBytes(tensor.dtype);
  if (element_bytes == 0) return fault(absl::StrCat("no dtype has number ", dtype));
  if (dimensions > limits.max_dimensions) {
    return fault(absl::StrCat(dimensions, " dimensions, at most ", limits.max_dimensions));
  }
  if (layout > kStrided || zero != 0 || (layout == kStrided && dimensions == 0)) {
    return fault(absl::StrCat("unknown layout ", layout));
  }
  const size_t numbers = size_t{dimensions} * (layout == kStrided ? 2 : 1);
  if (cursor->left() < numbers * sizeof(int64_t)) return fault("descriptors end within its sizes");
  tensor.shape.resize(dimensions);
  for (int64_t& size : tensor.shape) cursor->Take(&size);
  const int64_t elements = tensor.elements();
  uint64_t nbytes = 0;
  if (elements < 0 ||
      __builtin_mul_overflow(static_cast<uint64_t>(elements), element_bytes, &nbytes) ||
      nbytes > limits.max_frame_bytes) {
    return fault(absl::StrCat("impossible shape ", ShapeText(tensor.shape)));
  }
  tensor.nbytes = nbytes;
  if (layout == kStrided) {
    tensor.strides.resize(dimensions);
    for (int64_t& stride : tensor.strides) cursor->Take(&stride);
    if (!Dense(tensor.shape, tensor.strides)) return fault("strides are not dense");
  }
  return absl::OkStatus();
}

absl::Status TakeScalar(Cursor* cursor, Frame::ScalarValue* out) {
  uint8_t type;
  std::array<uint8_t, 3> zero;
  uint64_t bits;
  if (!cursor->Take(&out->value) || !cursor->Take(&type) || !cursor->Take(&zero) ||
      !cursor->Take(&bits)) {
    return Malformed("descriptors end within a scalar");
  }
  const auto fault = [out](absl::string_view what) {
    return Malformed(absl::StrCat("scalar of value ", out->value, ": ", what));
  };
  if (zero != std::array<uint8_t, 3>{}) return fault("reserved bytes are not zero");
  switch (type) {
    case kInt:
      out->scalar = std::bit_cast<int64_t>(bits);
      return absl::OkStatus();
    case kDouble:
      out->scalar = std::bit_cast<double>(bits);
      return absl::OkStatus();
    case kBoolean:
      if (bits > 1) return fault(absl::StrCat("a bool is 0 or 1, not ", bits));
      out->scalar = bits == 1;
      return absl::OkStatus();
    default:
      return fault(absl::StrCat("no scalar type has number ", type));
  }
}

void AppendTensor(const Frame::TensorValue& value, std::string* out) {
  const Tensor& tensor = value.tensor;
  const bool strided = !tensor.strides.empty();
  Append(out, value.value);
  Append(out, static_cast<uint8_t>(tensor.dtype));
  Append(out, static_cast<uint8_t>(tensor.shape.size()));
  Append(out, static_cast<uint8_t>(strided ? kStrided : kRowMajor));
  Append(out, uint8_t{0});
  for (const int64_t size : tensor.shape) Append(out, size);
  for (const int64_t stride : tensor.strides) Append(out, stride);
}

void AppendScalar(const Frame::ScalarValue& value, std::string* out) {
  uint8_t type = kInt;
  uint64_t bits = 0;
  if (const auto* number = std::get_if<int64_t>(&value.scalar)) {
    bits = std::bit_cast<uint64_t>(*number);
  } else if (const auto* real = std::get_if<double>(&value.scalar)) {
    type = kDouble;
    bits = std::bit_cast<uint64_t>(*real);
  } else {
    type = kBoolean;
    bits = std::get<bool>(value.scalar) ? 1 : 0;
  }
  Append(out, value.value);
  Append(out, type);
  out->append(3, '\0');
  Append(out, bits);
}

// Foreign text, made fit for one line of a log.
std::string OneLine(absl::string_view text) {
  std::string line(text.substr(0, kMaxStatusText));
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return line;
}

}  // namespace

absl::StatusOr<FrameHeader> ParseHeader(absl::Span<const std::byte> bytes,
                                        const FrameLimits& limits) {
  if (bytes.size() < kHeaderBytes) {
    return Malformed(absl::StrCat("a header has ", kHeaderBytes, " bytes, not ", bytes.size()));
  }
  const std::byte* at = bytes.data();
  if (Load<uint32_t>(at) != kMagic)
    return Malformed("wrong magic: the peer does not speak this protocol");
  if (const auto version = Load<uint8_t>(at + 4); version != kVersion) {
    return Malformed(absl::StrCat("version ", version, ", this process speaks ", kVersion));
  }
  if (Load<uint32_t>(at + kChecksumAt) != Checksum(at)) return Malformed("wrong header checksum");
  const auto kind = Load<uint8_t>(at + 5);
  if (kind < static_cast<uint8_t>(FrameKind::kHello) ||
      kind > static_cast<uint8_t>(FrameKind::kOffer)) {
    return Malformed(absl::StrCat("no kind has number ", kind));
  }
  const FrameHeader header{.kind = static_cast<FrameKind>(kind),
                           .epoch = Load<uint64_t>(at + 8),
                           .step = Load<uint64_t>(at + 16),
                           .chunk = Load<uint32_t>(at + 24),
                           .place = Load<uint32_t>(at + 28),
                           .tensor_count = Load<uint32_t>(at + 32),
                           .scalar_count = Load<uint32_t>(at + 36),
                           .descriptor_bytes = Load<uint32_t>(at + 40),
                           .tensor_bytes = Load<uint64_t>(at + 48)};
  if (Load<uint16_t>(at + 6) != 0 || Load<uint32_t>(at + 44) != 0 || Load<uint32_t>(at + 56) != 0) {
    return Malformed("reserved bytes are not zero");
  }
  const uint64_t values = uint64_t{header.tensor_count} + header.scalar_count;
  if (values > limits.max_values) {
    return Malformed(absl::StrCat(values, " values, at most ", limits.max_values));
  }
  const uint64_t least = header.tensor_count * kTensorBytes + header.scalar_count * kScalarBytes;
  if (header.descriptor_bytes < least || header.descriptor_bytes > limits.max_descriptor_bytes) {
    return Malformed(absl::StrCat(header.descriptor_bytes, " bytes of descriptors for ", values,
                                  " values, at most ", limits.max_descriptor_bytes));
  }
  if (header.descriptor_bytes > limits.max_frame_bytes ||
      header.tensor_bytes > limits.max_frame_bytes - header.descriptor_bytes) {
    return Malformed(absl::StrCat("length of ", header.tensor_bytes, " + ", header.descriptor_bytes,
                                  " bytes, at most ", limits.max_frame_bytes));
  }
  return header;
}

absl::StatusOr<Frame> ParseDescriptors(const FrameHeader& header, absl::Span<const std::byte> bytes,
                                       const FrameLimits& limits) {
  if (bytes.size() != header.descriptor_bytes) {
    return Malformed(absl::StrCat(bytes.size(), " bytes of descriptors, the header says ",
                                  header.descriptor_bytes));
  }
  Frame frame{.kind = header.kind,
              .epoch = header.epoch,
              .step = header.step,
              .chunk = header.chunk,
              .place = header.place};
  Cursor cursor(bytes);
  // ParseHeader bounded the counts by the bytes that are there.
  frame.tensors.resize(header.tensor_count);
  uint64_t tensor_bytes = 0;
  for (Frame::TensorValue& value : frame.tensors) {
    if (absl::Status status = TakeTensor(&cursor, limits, &value); !status.ok()) return status;
    if (__builtin_add_overflow(tensor_bytes, uint64_t{value.tensor.nbytes}, &tensor_bytes)) {
      return Malformed("the tensors' sizes overflow");
    }
  }
  frame.scalars.resize(header.scalar_count);
  for (Frame::ScalarValue& value : frame.scalars) {
    if (absl::Status status = TakeScalar(&cursor, &value); !status.ok()) return status;
  }
  if (tensor_bytes != header.tensor_bytes) {
    return Malformed(
        absl::StrCat("tensors of ", tensor_bytes, " bytes, the header says ", header.tensor_bytes));
  }
  frame.rows = cursor.Rest();
  return frame;
}

void AppendPrologue(const Frame& frame, uint32_t place, std::string* out) {
  const size_t start = out->size();
  out->append(kHeaderBytes, '\0');
  uint64_t tensor_bytes = 0;
  for (const Frame::TensorValue& value : frame.tensors) {
    AppendTensor(value, out);
    tensor_bytes += value.tensor.nbytes;
  }
  for (const Frame::ScalarValue& value : frame.scalars) AppendScalar(value, out);
  out->append(frame.rows);
  char* header = out->data() + start;
  Store(header, kMagic);
  Store(header + 4, kVersion);
  Store(header + 5, static_cast<uint8_t>(frame.kind));
  Store(header + 8, frame.epoch);
  Store(header + 16, frame.step);
  Store(header + 24, frame.chunk);
  Store(header + 28, place);
  Store(header + 32, static_cast<uint32_t>(frame.tensors.size()));
  Store(header + 36, static_cast<uint32_t>(frame.scalars.size()));
  Store(header + 40, static_cast<uint32_t>(out->size() - start - kHeaderBytes));
  Store(header + 48, tensor_bytes);
  Store(header + kChecksumAt, Checksum(header));
}

std::string Prologue(const Frame& frame) {
  std::string out;
  AppendPrologue(frame, frame.place, &out);
  return out;
}

Frame ErrorFrame(uint64_t epoch, uint64_t step, uint32_t chunk, const absl::Status& status) {
  Frame frame{.kind = FrameKind::kError, .epoch = epoch, .step = step, .chunk = chunk};
  Append(&frame.rows, static_cast<uint32_t>(status.raw_code()));
  frame.rows += OneLine(status.message());
  return frame;
}

absl::Status StatusOf(const Frame& error) {
  uint32_t code = 0;
  if (error.kind != FrameKind::kError || error.rows.size() < sizeof(code)) {
    return absl::InternalError("a stage failed and sent no reason");
  }
  std::memcpy(&code, error.rows.data(), sizeof(code));
  const std::string text = OneLine(absl::string_view(error.rows).substr(sizeof(code)));
  if (code == 0 || code > static_cast<uint32_t>(absl::StatusCode::kUnauthenticated)) {
    return absl::InternalError(absl::StrCat("a stage failed with no known status: ", text));
  }
  return absl::Status(static_cast<absl::StatusCode>(code), text);
}

}  // namespace echelon::link
