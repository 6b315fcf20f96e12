// Recipes against small checkpoints written here: which bytes they come to, and what is refused.
#include "runtime/weights/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace echelon::weights {
namespace {

using graph::Recipe;
using ::testing::HasSubstr;

Recipe Of(const std::string& tensor) { return {.tensor = tensor}; }

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }

  // Tensors of f32 [2, 3] whose elements count from first, in a file of the directory.
  void Write(const std::string& file, const std::vector<std::string>& names, float first = 0) {
    nlohmann::json header;
    std::string data;
    for (const std::string& name : names) {
      header[name] = {
          {"dtype", "F32"}, {"shape", {2, 3}}, {"data_offsets", {data.size(), data.size() + 24}}};
      for (int i = 0; i < 6; ++i, ++first)
        data.append(reinterpret_cast<const char*>(&first), sizeof first);
    }
    const std::string text = header.dump();
    const uint64_t size = text.size();
    std::ofstream out(folder_ / file, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&size), sizeof size);
    out << text << data;
  }
  void WriteIndex(const nlohmann::json& weight_map) {
    std::ofstream(folder_ / "model.safetensors.index.json")
        << nlohmann::json{{"weight_map", weight_map}}.dump();
  }

  absl::StatusOr<Source> Resolve(const Recipe& recipe) {
    const auto checkpoint = Checkpoint::Open(folder_);
    if (!checkpoint.ok()) return checkpoint.status();
    return checkpoint->Resolve(recipe);
  }

  // The values that the ranges come to.
  std::vector<float> Values(const Source& source) {
    std::vector<float> values;
    for (const Range& range : source.ranges) {
      std::ifstream file(range.path, std::ios::binary);
      file.seekg(static_cast<std::streamoff>(range.offset));
      for (uint64_t i = 0; i < range.nbytes; i += 4) {
        float value = -1;
        file.read(reinterpret_cast<char*>(&value), sizeof value);
        values.push_back(value);
      }
    }
    return values;
  }

  std::string ErrorOf(const Recipe& recipe) {
    return std::string(Resolve(recipe).status().message());
  }

  std::filesystem::path folder_;
};

TEST_F(CheckpointTest, ATensorIsItsRange) {
  Write("model.safetensors", {"a", "b"});
  const auto source = Resolve(Of("b"));
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(source->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(Values(*source), (std::vector<float>{6, 7, 8, 9, 10, 11}));
}

TEST_F(CheckpointTest, JoinsAndSlicesAreByteRangesInOrder) {
  Write("model.safetensors", {"a", "b"});
  const auto rows = Resolve({.op = Recipe::kCat, .dim = 0, .of = {Of("b"), Of("a")}});
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(rows->shape, (std::vector<int64_t>{4, 3}));
  EXPECT_EQ(Values(*rows), (std::vector<float>{6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5}));

  const auto columns = Resolve({.op = Recipe::kCat, .dim = 1, .of = {Of("a"), Of("b")}});
  ASSERT_TRUE(columns.ok()) << columns.status();
  EXPECT_EQ(Values(*columns), (std::vector<float>{0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11}));

  const auto slice =
      Resolve({.op = Recipe::kSlice, .dim = 1, .start = 1, .length = 2, .of = {Of("a")}});
  ASSERT_TRUE(slice.ok()) << slice.status();
  EXPECT_EQ(slice->shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(Values(*slice), (std::vector<float>{1, 2, 4, 5}));

  const auto stack = Resolve({.op = Recipe::kStack, .dim = 1, .of = {Of("a"), Of("b")}});
  ASSERT_TRUE(stack.ok()) << stack.status();
  EXPECT_EQ(stack->shape, (std::vector<int64_t>{2, 2, 3}));
  EXPECT_EQ(Values(*stack), (std::vector<float>{0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11}));
}

TEST_F(CheckpointTest, TransposesAndCastsAreComputed) {
  Write("model.safetensors", {"a"});
  const auto turned = Resolve({.op = Recipe::kTranspose, .dim = 0, .other = 1, .of = {Of("a")}});
  ASSERT_TRUE(turned.ok()) << turned.status();
  EXPECT_TRUE(turned->is_computed);
  EXPECT_EQ(turned->shape, (std::vector<int64_t>{3, 2}));
  const auto cast = Resolve({.op = Recipe::kCast, .dtype = DType::kBF16, .of = {Of("a")}});
  ASSERT_TRUE(cast.ok()) << cast.status();
  EXPECT_TRUE(cast->is_computed);
  EXPECT_EQ(cast->dtype, DType::kBF16);
  const auto same = Resolve({.op = Recipe::kCast, .dtype = DType::kF32, .of = {Of("a")}});
  EXPECT_FALSE(same->is_computed);
}

TEST_F(CheckpointTest, ShardsAreReadThroughTheIndex) {
  Write("one.safetensors", {"a"}, 100);
  Write("two.safetensors", {"b"}, 200);
  WriteIndex({{"a", "one.safetensors"}, {"b", "two.safetensors"}});
  const auto both = Resolve({.op = Recipe::kCat, .dim = 0, .of = {Of("a"), Of("b")}});
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ(Values(*both)[0], 100);
  EXPECT_EQ(Values(*both)[6], 200);
}

TEST_F(CheckpointTest, AWholeFileComesBeforeAnIndex) {
  Write("model.safetensors", {"a"}, 100);
  Write("one.safetensors", {"a"}, 200);
  WriteIndex({{"a", "one.safetensors"}});
  EXPECT_EQ(Values(*Resolve(Of("a")))[0], 100);
}

TEST_F(CheckpointTest, ATensorThatTheIndexDoesNotNameIsThereToo) {
  Write("one.safetensors", {"a", "b"}, 100);
  WriteIndex({{"a", "one.safetensors"}});
  EXPECT_EQ(Values(*Resolve(Of("b")))[0], 106);
  Write("two.safetensors", {"b", "c"});
  WriteIndex({{"a", "one.safetensors"}, {"c", "two.safetensors"}});
  EXPECT_THAT(ErrorOf(Of("a")), HasSubstr("two.safetensors: tensor b is in "));
}

TEST_F(CheckpointTest, SaysWhatIsWrong) {
  EXPECT_THAT(ErrorOf(Of("a")), HasSubstr("model.safetensors: cannot be opened"));
  Write("model.safetensors", {"a", "b"});
  EXPECT_THAT(ErrorOf(Of("c")), HasSubstr("the checkpoint has no tensor c"));
  EXPECT_THAT(ErrorOf({.op = Recipe::kReshape, .shape = {7}, .of = {Of("a")}}),
              HasSubstr("do not fit reshape(a, 7)"));
  EXPECT_THAT(ErrorOf({.op = Recipe::kSlice, .dim = 0, .start = 1, .length = 2, .of = {Of("a")}}),
              HasSubstr("do not fit slice(a, 0, 1:3)"));
  EXPECT_THAT(ErrorOf({.op = Recipe::kTranspose, .dim = 0, .other = 2, .of = {Of("a")}}),
              HasSubstr("do not fit"));
}

TEST_F(CheckpointTest, AnIndexIsNotTrusted) {
  Write("one.safetensors", {"a"});
  WriteIndex({{"a", "../one.safetensors"}});
  EXPECT_THAT(ErrorOf(Of("a")), HasSubstr("no file of this directory"));
  WriteIndex({{"a", "one.safetensors"}, {"b", "one.safetensors"}});
  EXPECT_THAT(ErrorOf(Of("a")), HasSubstr("tensor b is not in one.safetensors"));
  WriteIndex({{"a", "gone.safetensors"}});
  EXPECT_THAT(ErrorOf(Of("a")), HasSubstr("gone.safetensors: cannot be opened"));
  WriteIndex({{"a", 3}});
  EXPECT_THAT(ErrorOf(Of("a")), HasSubstr("tensor a is said to lie in ''"));
  Write("two.safetensors", {"b"});
  WriteIndex({{"a", "two.safetensors"}, {"b", "one.safetensors"}});
  EXPECT_THAT(ErrorOf(Of("a")), HasSubstr("tensor a is not in two.safetensors"));
  const auto text = [&](const char* json) {
    std::ofstream(folder_ / "model.safetensors.index.json") << json;
    return ErrorOf(Of("a"));
  };
  EXPECT_THAT(text("[]"), HasSubstr("is no JSON object"));
  EXPECT_THAT(text("{}"), HasSubstr("is no index"));
  EXPECT_THAT(text(R"({"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}})"),
              HasSubstr("model.safetensors.index.json: names a twice"));
}

}  // namespace
}  // namespace echelon::weights
