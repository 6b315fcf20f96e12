#include "runtime/serve/v2_json.h"

#include <gmock/gmock.h>

#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/serve/compress.h"
#include "runtime/serve/v2_types.h"

namespace echelon::serve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

template <typename T>
std::vector<T> Values(const Tensor& tensor) {
  const T* values = reinterpret_cast<const T*>(tensor.data);
  return std::vector<T>(values, values + tensor.elements());
}

Tensor Floats(std::vector<int64_t> shape, std::vector<float> values) {
  Tensor tensor = Tensor::Empty(DType::kF32, std::move(shape));
  std::copy(values.begin(), values.end(), reinterpret_cast<float*>(tensor.data));
  return tensor;
}

std::string Input(const std::string& rest) {
  return absl::StrCat(R"({"inputs": [{"name": "x", )", rest, "}]}");
}

std::string ErrorOf(const std::string& body, std::optional<size_t> json_bytes = std::nullopt) {
  const auto request = DecodeV2Request(body, json_bytes);
  if (request.ok()) return "accepted";
  EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string text(request.status().message());
  EXPECT_EQ(text.find('\n'), std::string::npos);
  return text;
}

TEST(DecodeV2Request, TakesFlatAndNestedData) {
  for (const char* data : {"[1, 2.5, -3, 4]", "[[1, 2.5], [-3, 4]]"}) {
    const auto request = DecodeV2Request(
        Input(R"("shape": [2,2], "datatype": "FP32", "data": )" + std::string(data)), {});
    ASSERT_TRUE(request.ok()) << request.status();
    EXPECT_THAT(Values<float>(request->request.inputs[0].tensor), ElementsAre(1, 2.5, -3, 4));
  }
}

TEST(DecodeV2Request, TakesDataBeforeShapeAndDatatype) {
  const auto request =
      DecodeV2Request(Input(R"("data": [7, 8], "datatype": "INT64", "shape": [2])"), {});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(Values<int64_t>(request->request.inputs[0].tensor), ElementsAre(7, 8));
}

TEST(DecodeV2Request, KeepsEveryBitOfLargeIntegers) {
  const auto signed_one = DecodeV2Request(
      Input(
          R"("shape": [2], "datatype": "INT64", "data": [-9223372036854775808, 9007199254740993])"),
      {});
  ASSERT_TRUE(signed_one.ok());
  EXPECT_THAT(Values<int64_t>(signed_one->request.inputs[0].tensor),
              ElementsAre(std::numeric_limits<int64_t>::min(), 9007199254740993));
  const auto unsigned_one = DecodeV2Request(
      Input(R"("shape": [1], "datatype": "UINT64", "data": [18446744073709551615])"), {});
  ASSERT_TRUE(unsigned_one.ok());
  EXPECT_THAT(Values<uint64_t>(unsigned_one->request.inputs[0].tensor),
              ElementsAre(std::numeric_limits<uint64_t>::max()));
}

TEST(DecodeV2Request, TakesBooleansAsWordsOrNumbers) {
  const auto request = DecodeV2Request(
      Input(R"("shape": [4], "datatype": "BOOL", "data": [true, false, 1, 0])"), {});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(Values<bool>(request->request.inputs[0].tensor),
              ElementsAre(true, false, true, false));
}

TEST(DecodeV2Request, TakesScalarsAndEmptyTensors) {
  auto request = DecodeV2Request(Input(R"("shape": [], "datatype": "FP64", "data": [5])"), {});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->request.inputs[0].tensor.elements(), 1);
  for (const char* data : {"[]", "[[], []]"}) {
    request = DecodeV2Request(
        Input(R"("shape": [2,0], "datatype": "FP32", "data": )" + std::string(data)), {});
    ASSERT_TRUE(request.ok()) << request.status();
    EXPECT_EQ(request->request.inputs[0].tensor.nbytes, 0u);
  }
}

TEST(DecodeV2Request, TakesBinaryDataOfSeveralInputsInOrder) {
  const std::string json =
      R"({"id": "7", "inputs": [{"name": "a", "shape": [2], "datatype": "FP16",
          "parameters": {"binary_data_size": 4}}, {"name": "j", "shape": [1], "datatype": "INT8",
          "data": [3]}, {"name": "b", "shape": [3], "datatype": "UINT8",
          "parameters": {"binary_data_size": 3}}],
          "outputs": [{"name": "y", "parameters": {"binary_data": false}}],
          "parameters": {"binary_data_output": true, "timeout": 1500, "other": "x"}})";
  const auto request = DecodeV2Request(json + "\x01\x02\x03\x04" + "xyz", json.size());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->request.id, "7");
  EXPECT_THAT(Values<uint16_t>(request->request.inputs[0].tensor), ElementsAre(0x0201, 0x0403));
  EXPECT_THAT(Values<uint8_t>(request->request.inputs[2].tensor), ElementsAre('x', 'y', 'z'));
  EXPECT_THAT(request->request.outputs, ElementsAre("y"));
  EXPECT_TRUE(request->binary_outputs);
  EXPECT_FALSE(request->binary_output.at("y"));
  EXPECT_EQ(request->timeout, absl::Microseconds(1500));
}

TEST(DecodeV2Request, SkipsWhatTheProtocolDoesNotKnow) {
  const auto request = DecodeV2Request(
      R"({"extra": {"inputs": [1, {"name": 3}]}, "inputs": [{"name": "x", "note": [["a"]],
          "shape": [1], "datatype": "INT32", "data": [1]}], "outputs": null})",
      {});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->request.inputs.size(), 1u);
}

TEST(DecodeV2Request, NamesTheInputThatDoesNotFit) {
  const std::string f32 = R"("datatype": "FP32", )", i8 = R"("datatype": "INT8", )";
  EXPECT_EQ(ErrorOf(Input(f32 + R"("shape": [2,2], "data": [1,2,3])")),
            "input 'x' of shape 2x2 needs 4 elements, got 3");
  EXPECT_EQ(ErrorOf(Input(f32 + R"("shape": [2,2], "data": [[1,2],[3]])")),
            "input 'x' has data whose nested lists differ in length");
  EXPECT_EQ(ErrorOf(Input(f32 + R"("shape": [2,2], "data": [1,[2,3,4]])")),
            "input 'x' has data whose nested lists differ in length");
  EXPECT_EQ(ErrorOf(Input(f32 + R"("shape": [2,3], "data": [[1,2],[3,4],[5,6]])")),
            "input 'x' has data nested as 3x2, its shape is 2x3");
  EXPECT_EQ(ErrorOf(Input(i8 + R"("shape": [2], "data": [1, 128])")),
            "input 'x' has 128 at element 1, which is no INT8");
  EXPECT_EQ(ErrorOf(Input(i8 + R"("shape": [1], "data": [1.5])")),
            "input 'x' has 1.5 at element 0, which is no INT8");
  EXPECT_THAT(ErrorOf(Input(f32 + R"("shape": [1], "data": ["a"])")),
              HasSubstr("input 'x' has a string"));
  EXPECT_THAT(ErrorOf(Input(f32 + R"("shape": [1], "data": [null])")),
              HasSubstr("input 'x' has a null"));
  EXPECT_EQ(ErrorOf(Input(R"("datatype": "FP16", "shape": [1], "data": [1])")),
            "input 'x' of datatype FP16 must come as binary data");
  EXPECT_THAT(ErrorOf(Input(R"("datatype": "BYTES", "shape": [1], "data": ["a"])")),
              HasSubstr("input 'x'"));
  EXPECT_THAT(ErrorOf(Input(R"("datatype": "F32", "shape": [1], "data": [1])")),
              HasSubstr("unknown datatype 'F32'"));
  EXPECT_EQ(ErrorOf(Input(f32 + R"("shape": [1])")), "input 'x' has no data");
  EXPECT_EQ(ErrorOf(Input(f32 + R"("data": [1])")), "input 'x' has no shape");
  EXPECT_THAT(ErrorOf(Input(f32 + R"("shape": [-1], "data": [1])")), HasSubstr("shape"));
  EXPECT_THAT(ErrorOf(Input(f32 + R"("shape": [4294967296, 4294967296], "data": [])")),
              HasSubstr("impossible shape"));
}

TEST(DecodeV2Request, RefusesBrokenRequests) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("not JSON"));
  EXPECT_THAT(ErrorOf("{"), HasSubstr("not JSON"));
  EXPECT_THAT(ErrorOf("[1]"), HasSubstr("form"));
  EXPECT_THAT(ErrorOf("3"), HasSubstr("object"));
  EXPECT_EQ(ErrorOf("{}"), "the request has no 'inputs'");
  EXPECT_THAT(ErrorOf(R"({"inputs": {}})"), HasSubstr("'inputs'"));
  EXPECT_THAT(ErrorOf(R"({"inputs": [1]})"), HasSubstr("lists of objects"));
  EXPECT_THAT(ErrorOf(std::string(1000, '[')), HasSubstr("form"));
  EXPECT_THAT(ErrorOf(R"({"a": )" + std::string(100000, '[')), HasSubstr("nests deeper"));
  EXPECT_THAT(
      ErrorOf(Input(R"("shape": [1], "datatype": "FP32", "data": )" + std::string(99, '['))),
      HasSubstr("input 'x' nests deeper"));
  EXPECT_THAT(ErrorOf("{}", 3), HasSubstr("the body has only 2 bytes"));
  EXPECT_THAT(ErrorOf("raw tensor", 0), HasSubstr("a request without JSON"));
}

TEST(DecodeV2Request, RefusesExtensionsThatAreNotThere) {
  const std::string input =
      R"({"inputs": [{"name": "x", "shape": [1], "datatype": "INT32", "data": [1]}], "outputs": [)";
  EXPECT_EQ(ErrorOf(input + R"({"name": "y", "parameters": {"classification": 3}}]})"),
            "tensor 'y' asks for classification, which this server does not offer");
  EXPECT_EQ(ErrorOf(input + R"({"name": "y", "parameters": {"shared_memory_region": "r"}}]})"),
            "tensor 'y' asks for shared memory, which this server does not offer");
}

TEST(DecodeV2Request, RefusesBinaryDataThatDoesNotFit) {
  const auto with = [](const std::string& size) {
    return Input(R"("shape": [2], "datatype": "UINT8", "parameters": {"binary_data_size": )" +
                 size + "}");
  };
  EXPECT_THAT(ErrorOf(with("3") + "abc", with("3").size()), HasSubstr("its binary_data_size is 3"));
  EXPECT_THAT(ErrorOf(with("2") + "a", with("2").size()), HasSubstr("1 are left"));
  EXPECT_THAT(ErrorOf(with("2") + "abc", with("2").size()), HasSubstr("belong to no input"));
  EXPECT_THAT(ErrorOf(with("18446744073709551615")), HasSubstr("binary_data_size"));
  EXPECT_THAT(ErrorOf(with("-1")), HasSubstr("must be a number of bytes"));
}

TEST(EncodeV2Response, WritesFlatJsonByDefault) {
  ModelInfo model{.name = "m\"1"};
  V2Request request;
  request.request.id = "9";
  const auto body = EncodeV2Response(
      model, request, {{"y", Floats({2, 2}, {1, 0.1f, -2.5, 3e30f})}, {"z", Floats({0}, {})}});
  ASSERT_TRUE(body.ok());
  EXPECT_FALSE(body->json_bytes.has_value());
  EXPECT_EQ(body->bytes,
            R"({"model_name":"m\"1","model_version":"1","id":"9","outputs":[)"
            R"({"name":"y","datatype":"FP32","shape":[2,2],"data":[1,0.1,-2.5,3e+30]},)"
            R"({"name":"z","datatype":"FP32","shape":[0],"data":[]}]})");
}

TEST(EncodeV2Response, MixesBinaryAndJson) {
  V2Request request;
  request.binary_outputs = true;
  request.binary_output["z"] = false;
  const auto body = EncodeV2Response(ModelInfo{.name = "m"}, request,
                                     {{"y", Floats({1}, {1})}, {"z", Floats({1}, {2})}});
  ASSERT_TRUE(body.ok());
  ASSERT_TRUE(body->json_bytes.has_value());
  EXPECT_EQ(body->bytes.substr(*body->json_bytes), std::string("\x00\x00\x80\x3f", 4));
  EXPECT_THAT(body->bytes, HasSubstr(R"("parameters":{"binary_data_size":4}},)"));
  EXPECT_THAT(body->bytes, HasSubstr(R"("data":[2])"));
}

TEST(EncodeV2Response, PutsStridedTensorsInRowMajorOrder) {
  Tensor tensor = Floats({2, 3}, {1, 2, 3, 4, 5, 6});
  tensor.strides = {1, 2};
  const auto body = EncodeV2Response(ModelInfo{.name = "m"}, {}, {{"y", tensor}});
  ASSERT_TRUE(body.ok());
  EXPECT_THAT(body->bytes, HasSubstr("[1,3,5,2,4,6]"));
}

TEST(EncodeV2Response, SaysThatSomeTypesNeedBinary) {
  const auto body =
      EncodeV2Response(ModelInfo{.name = "m"}, {}, {{"y", Tensor::Empty(DType::kBF16, {2})}});
  EXPECT_THAT(std::string(body.status().message()), HasSubstr("output 'y' (BF16 2)"));
}

TEST(Compress, UndoesItself) {
  std::string text;
  for (int i = 0; i < 100000; ++i) absl::StrAppend(&text, i);
  for (const Encoding encoding : {Encoding::kGzip, Encoding::kDeflate}) {
    const std::string small = Deflate(text, encoding);
    EXPECT_LT(small.size(), text.size());
    EXPECT_EQ(*Inflate(small, encoding, text.size()), text);
    EXPECT_EQ(Inflate(small, encoding, text.size() - 1).status().code(),
              absl::StatusCode::kOutOfRange);
    EXPECT_FALSE(Inflate(small.substr(0, small.size() / 2), encoding, text.size()).ok());
    EXPECT_FALSE(Inflate(small + "x", encoding, text.size()).ok());
    EXPECT_FALSE(Inflate("garbage", encoding, text.size()).ok());
    EXPECT_FALSE(Inflate("", encoding, text.size()).ok());
    EXPECT_EQ(*Inflate(Deflate("", encoding), encoding, 10), "");
  }
}

TEST(Compress, ReadsAcceptEncoding) {
  EXPECT_EQ(Accepted("gzip, deflate"), Encoding::kGzip);
  EXPECT_EQ(Accepted("br;q=1, deflate;q=0.5"), Encoding::kDeflate);
  EXPECT_EQ(Accepted("gzip;q=0"), Encoding::kNone);
  EXPECT_EQ(Accepted(""), Encoding::kNone);
}

TEST(OneLine, HasNoControlCharactersAndAnEnd) {
  EXPECT_EQ(OneLine("a\nb\x01\n"), "a b");
  EXPECT_EQ(OneLine(std::string(10000, 'a')).size(), 2000u);
}

}  // namespace
}  // namespace echelon::serve
