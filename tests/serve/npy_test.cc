#include "runtime/cli/npy.h"

#include <gmock/gmock.h>

#include <cstring>

#include "runtime/cli/infer_input.h"

namespace echelon {
namespace {

using testing::HasSubstr;

Tensor Counting(DType dtype, std::vector<int64_t> shape) {
  Tensor tensor = Tensor::Empty(dtype, std::move(shape));
  for (size_t i = 0; i < tensor.nbytes; ++i) tensor.data[i] = static_cast<std::byte>(i);
  return tensor;
}

// A file of version 1 with this header and data.
std::string File(std::string header, const std::string& data) {
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 0xff);
  bytes += static_cast<char>(header.size() >> 8);
  return bytes + header + data;
}

std::string ErrorOf(const std::string& bytes) {
  const auto tensor = ParseNpy(bytes, "f.npy");
  return tensor.ok() ? "accepted" : std::string(tensor.status().message());
}

TEST(Npy, ReadsWhatItWrites) {
  for (const DType dtype : {DType::kBool, DType::kU8, DType::kI16, DType::kI64, DType::kF16,
                            DType::kF32, DType::kF64, DType::kC64}) {
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{}, {3}, {2, 5}, {0, 4}, {1, 1, 7}}) {
      const Tensor tensor = Counting(dtype, shape);
      const std::string bytes = NpyBytes(tensor);
      EXPECT_EQ((bytes.size() - tensor.nbytes) % 64, 0u);
      const auto read = ParseNpy(bytes, "f.npy");
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(read->dtype, dtype);
      EXPECT_EQ(read->shape, shape);
      EXPECT_EQ(std::memcmp(read->data, tensor.data, tensor.nbytes), 0);
    }
  }
}

TEST(Npy, KeepsFortranOrderAsStrides) {
  const auto tensor = ParseNpy(
      File("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }", "adbecf"), "f.npy");
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->strides, (std::vector<int64_t>{1, 2}));
}

TEST(Npy, NamesTheFileAndWhatIsWrong) {
  EXPECT_EQ(ErrorOf("PK\x03\x04 and more bytes"), "f.npy is not a .npy file");
  EXPECT_EQ(ErrorOf(std::string("\x93NUMPY\x09\x00\x00\x00", 10)),
            "f.npy is of .npy version 9; 1 to 3 are understood");
  EXPECT_THAT(ErrorOf(std::string("\x93NUMPY\x01\x00\xff\x00", 10)), HasSubstr("cut short"));
  EXPECT_THAT(ErrorOf(File("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", "123")),
              HasSubstr("its shape 4 needs more than its 3 bytes"));
  EXPECT_THAT(ErrorOf(File("{'descr': '<f4', 'fortran_order': False, "
                           "'shape': (9223372036854775807, 9), }",
                           "")),
              HasSubstr("cut short"));
  EXPECT_THAT(ErrorOf(File("{'descr': '>f4', 'fortran_order': False, 'shape': (0,), }", "")),
              HasSubstr("big-endian"));
  EXPECT_THAT(ErrorOf(File("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "12345678")),
              HasSubstr("'|O'"));
  EXPECT_THAT(
      ErrorOf(File("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "")),
      HasSubstr("no plain array"));
  EXPECT_THAT(ErrorOf(File("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "")),
              HasSubstr("impossible shape"));
  EXPECT_THAT(ErrorOf(File("nonsense", "")), HasSubstr("broken header"));
  EXPECT_THAT(std::string(ReadNpy("/nowhere/x.npy").status().message()),
              HasSubstr("/nowhere/x.npy"));
}

TEST(MakeInputs, MakesWhatTheArgumentsSay) {
  const std::vector<InputSpec> specs{{"x", DType::kF32, {-1, 3}}, {"ids", DType::kI64, {2}}};
  const auto inputs = MakeInputs({"x=arange:2x3", "ids=ones:2"}, specs);
  ASSERT_TRUE(inputs.ok()) << inputs.status();
  EXPECT_EQ(ElementText((*inputs)[0].tensor, 5), "5");
  EXPECT_EQ((*inputs)[1].tensor.dtype, DType::kI64);
  const auto random = MakeInputs({}, specs);
  ASSERT_TRUE(random.ok());
  EXPECT_EQ((*random)[0].tensor.shape, (std::vector<int64_t>{4, 3}));
  const auto again = MakeInputs({"x=random:4x3:0"}, specs);
  EXPECT_EQ(std::memcmp((*again)[0].tensor.data, (*random)[0].tensor.data, 48), 0);
}

TEST(MakeInputs, WritesHalfPrecisionExactly) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const auto inputs = MakeInputs({"x=arange:100"}, {{"x", dtype, {-1}}});
    ASSERT_TRUE(inputs.ok());
    for (int i = 0; i < 100; ++i) EXPECT_EQ(ElementText((*inputs)[0].tensor, i), std::to_string(i));
  }
}

TEST(MakeInputs, NamesTheArgumentAtFault) {
  const std::vector<InputSpec> specs{{"x", DType::kF32, {-1, 3}}};
  const auto error = [&](const std::string& argument) {
    return std::string(MakeInputs({argument}, specs).status().message());
  };
  EXPECT_THAT(error("y=ones:2"), HasSubstr("no such input; its inputs are x"));
  EXPECT_THAT(error("x"), HasSubstr("NAME=FILE.npy"));
  EXPECT_THAT(error("x=random:2x-3"), HasSubstr("random:4x128"));
  EXPECT_THAT(error("x=random:99999999999x99999999"), HasSubstr("more than one request"));
  EXPECT_THAT(error("x=missing.npy"), HasSubstr("missing.npy"));
}

}  // namespace
}  // namespace echelon
