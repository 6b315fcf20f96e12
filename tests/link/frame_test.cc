#include "runtime/link/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>
#include <limits>

namespace echelon::link {
namespace {

using ::testing::HasSubstr;

absl::Span<const std::byte> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

absl::StatusOr<Frame> Parse(const std::string& bytes, const FrameLimits& limits = {}) {
  auto header = ParseHeader(Bytes(bytes), limits);
  if (!header.ok()) return header.status();
  return ParseDescriptors(*header, Bytes(bytes).subspan(kHeaderBytes), limits);
}

template <typename T>
std::string With(std::string bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
  const auto sum =
      static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), 60));
  std::memcpy(bytes.data() + 60, &sum, sizeof(sum));
  return bytes;
}

// As it looks to the receiver, before its memory is there.
Frame::TensorValue Described(uint32_t value, DType dtype, std::vector<int64_t> shape,
                             std::vector<int64_t> strides = {}) {
  Tensor tensor{.dtype = dtype, .shape = std::move(shape), .strides = std::move(strides)};
  tensor.nbytes = static_cast<size_t>(tensor.elements()) * ElementBytes(dtype);
  return {value, tensor};
}

Frame Sample() {
  Frame frame{.kind = FrameKind::kStep, .epoch = 7, .step = 42, .chunk = 3};
  frame.tensors = {Described(1, DType::kF32, {4, 128}),
                   Described(9, DType::kBF16, {2, 3, 5}, {1, 10, 2}),
                   Described(10, DType::kI64, {})};
  frame.scalars = {{2, int64_t{-5}}, {3, 2.5}, {4, true}};
  frame.rows = "opaque";
  return frame;
}

TEST(Frame, ComesBackAsItWasSent) {
  const std::string bytes = Prologue(Sample());
  auto frame = Parse(bytes);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(Prologue(*frame), bytes);
  EXPECT_EQ(frame->epoch, 7u);
  EXPECT_EQ(frame->step, 42u);
  EXPECT_EQ(frame->chunk, 3u);
  EXPECT_EQ(frame->rows, "opaque");
  ASSERT_EQ(frame->tensors.size(), 3u);
  EXPECT_EQ(frame->tensors[1].value, 9u);
  EXPECT_EQ(frame->tensors[1].tensor.dtype, DType::kBF16);
  EXPECT_EQ(frame->tensors[1].tensor.shape, (std::vector<int64_t>{2, 3, 5}));
  EXPECT_EQ(frame->tensors[1].tensor.strides, (std::vector<int64_t>{1, 10, 2}));
  EXPECT_EQ(frame->tensors[1].tensor.nbytes, 60u);
  EXPECT_EQ(frame->tensors[2].tensor.nbytes, 8u);
  EXPECT_EQ(std::get<int64_t>(frame->scalars[0].scalar), -5);
  EXPECT_EQ(std::get<double>(frame->scalars[1].scalar), 2.5);
  EXPECT_EQ(std::get<bool>(frame->scalars[2].scalar), true);
}

TEST(Frame, CarriesNotANumberAndEmptyTensors) {
  Frame frame{
      .tensors = {Described(1, DType::kF32, {0, 8}), Described(2, DType::kF32, {0, 8}, {8, 1})},
      .scalars = {{3, std::numeric_limits<double>::quiet_NaN()}}};
  const std::string bytes = Prologue(frame);
  auto parsed = Parse(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(Prologue(*parsed), bytes);
}

struct BadCase {
  std::string name;
  std::string bytes;
  std::string says;
};

TEST(Frame, RefusesForeignBytesAndNamesTheField) {
  const std::string good = Prologue(Sample());
  constexpr size_t kTensor = kHeaderBytes;                 // value 1, f32, 4x128
  constexpr size_t kStrides = kHeaderBytes + 24 + 8 + 24;  // of value 9
  constexpr size_t kScalar = kHeaderBytes + 24 + 56 + 8;
  const int64_t huge = int64_t{1} << 62;
  std::string damaged = good;
  damaged[20] ^= 1;
  const std::vector<BadCase> cases = {
      {"short", good.substr(0, 63), "a header has 64 bytes, not 63"},
      {"garbage", std::string(80, 'G'), "wrong magic"},
      {"version", With(good, 4, uint8_t{9}), "version 9"},
      {"bit flip", damaged, "wrong header checksum"},
      {"kind", With(good, 5, uint8_t{77}), "no kind has number 77"},
      {"reserved", With(good, 44, uint32_t{1}), "not zero"},
      {"counts", With(good, 32, uint32_t{0xffffffff}), "4294967298 values, at most 65536"},
      {"counts past descriptors", With(good, 32, uint32_t{60000}),
       "bytes of descriptors for 60003 values"},
      {"descriptor bytes", With(good, 40, uint32_t{0xf0000000}), "bytes of descriptors"},
      {"tensor bytes", With(good, 48, ~uint64_t{0}), "length of 18446744073709551615"},
      {"sum", With(good, 48, uint64_t{2117}), "tensors of 2116 bytes, the header says 2117"},
      {"truncated", good.substr(0, good.size() - 1), "bytes of descriptors, the header says"},
      {"dtype", With(good, kTensor + 4, uint8_t{200}), "value 1: no dtype has number 200"},
      {"dimensions", With(good, kTensor + 5, uint8_t{200}), "value 1: 200 dimensions, at most 16"},
      {"layout", With(good, kTensor + 6, uint8_t{2}), "value 1: unknown layout 2"},
      {"negative size", With(good, kTensor + 8, int64_t{-4}), "impossible shape -4x128"},
      {"overflowing size", With(good, kTensor + 8, huge), "impossible shape"},
      {"stride", With(good, kStrides, int64_t{2}), "value 9: strides are not dense"},
      {"negative stride", With(good, kStrides, int64_t{-1}), "strides are not dense"},
      {"scalar type", With(good, kScalar + 4, uint8_t{9}), "value 2: no scalar type has number 9"},
      {"scalar bool", With(good, kScalar + 32 + 8, uint64_t{2}),
       "value 4: a bool is 0 or 1, not 2"},
  };
  for (const BadCase& bad : cases) {
    const auto frame = Parse(bad.bytes);
    EXPECT_EQ(frame.status().code(), absl::StatusCode::kInvalidArgument) << bad.name;
    EXPECT_THAT(std::string(frame.status().message()), HasSubstr(bad.says)) << bad.name;
  }
}

TEST(Frame, ErrorsTravelAsOneLineOfStatus) {
  const absl::Status status = absl::InvalidArgumentError("stage 1, node add_3:\nshapes differ");
  const Frame frame = ErrorFrame(1, 2, 3, status);
  EXPECT_EQ(frame.kind, FrameKind::kError);
  EXPECT_EQ(StatusOf(frame), absl::InvalidArgumentError("stage 1, node add_3: shapes differ"));
  EXPECT_LE(ErrorFrame(1, 2, 3, absl::InternalError(std::string(1 << 20, 'x'))).rows.size(), 4100u);
}

TEST(Frame, AnErrorFrameThatHoldsNoStatusIsStillAnError) {
  for (const std::string& rows :
       {std::string(), std::string("ab"), std::string(4, '\0'), std::string(8, '\x7f')}) {
    const Frame frame{.kind = FrameKind::kError, .rows = rows};
    EXPECT_TRUE(absl::IsInternal(StatusOf(frame)));
  }
}

}  // namespace
}  // namespace echelon::link
