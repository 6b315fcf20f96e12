// What the exporter says of a language model, as it is read.
#include "runtime/graph/text_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/graph/graph.h"

namespace echelon::graph {
namespace {

using ::testing::HasSubstr;

Json Model() {
  return Json::parse(R"({"format": 1, "kind": "text", "architecture": "LlamaForCausalLM",
    "config_sha256": "ab", "dtype": "bf16", "max_model_len": 2048, "vocab_size": 128,
    "eos_token_ids": [2], "bos_token_id": null, "weights": true, "parameters": {
      "head": {"tensor": "lm_head.weight"},
      "qkv": {"op": "cat", "dim": 0, "of": [{"tensor": "q"}, {"op": "slice", "dim": 0, "start": 4,
              "length": 8, "of": {"op": "transpose", "dims": [0, 1], "of": {"tensor": "kv"}}}]},
      "gate": {"op": "cast", "dtype": "f32", "of": {"op": "reshape", "shape": [2, 2],
               "of": {"op": "stack", "dim": 0, "of": [{"tensor": "a"}, {"tensor": "b"}]}}}}})");
}

std::string ErrorOf(const Json& json) {
  const auto model = ReadTextModel(json, "m.pt2: extra/echelon.json");
  return std::string(model.status().message());
}

TEST(TextModel, SaysWhatTheExporterSaid) {
  const auto model = ReadTextModel(Model(), "m.pt2");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->dtype, DType::kBF16);
  EXPECT_EQ(model->max_model_len, 2048);
  EXPECT_EQ(model->bos_token_id, -1);
  EXPECT_EQ(model->eos_token_ids, std::vector<int64_t>{2});
  EXPECT_TRUE(model->has_weights);
  EXPECT_EQ(ToText(model->recipes.at("head")), "lm_head.weight");
  EXPECT_EQ(ToText(model->recipes.at("qkv")), "cat(0, q, slice(transpose(kv, 0, 1), 0, 4:12))");
  EXPECT_EQ(ToText(model->recipes.at("gate")), "cast(reshape(stack(0, a, b), 2x2), f32)");
}

TEST(TextModel, AnEndThatTheVocabularyLacksIsNone) {
  Json json = Model();
  json["eos_token_ids"] = {-1, 127, 128};
  const auto model = ReadTextModel(json, "m.pt2");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->eos_token_ids, std::vector<int64_t>{127});
}

TEST(TextModel, NamesTheFieldThatIsWrong) {
  const auto with = [](const char* key, Json value) {
    Json json = Model();
    json[key] = std::move(value);
    return ErrorOf(json);
  };
  EXPECT_THAT(with("format", 2), HasSubstr("format 2 is not known; export the model again"));
  EXPECT_THAT(with("kind", "image"), HasSubstr("a model of kind 'image'"));
  EXPECT_THAT(with("dtype", "f16"), HasSubstr("dtype f16 is neither bf16 nor f32"));
  EXPECT_THAT(with("vocab_size", 0), HasSubstr("a size of 0 is out of range"));
  EXPECT_THAT(with("max_model_len", int64_t{1} << 40), HasSubstr("out of range"));
  const auto recipe = [&](const char* text) {
    return with("parameters", {{"w", Json::parse(text)}});
  };
  EXPECT_THAT(recipe(R"({"op": "invert", "of": {"tensor": "a"}})"),
              HasSubstr("parameter 'w': a recipe does 'invert', which is not known"));
  EXPECT_THAT(
      recipe(R"({"op": "slice", "dim": -1, "start": 0, "length": 1, "of": {"tensor": "a"}})"),
      HasSubstr("a recipe's dimension is -1"));
  EXPECT_THAT(
      recipe(R"({"op": "slice", "dim": 0, "start": -4, "length": 1, "of": {"tensor": "a"}})"),
      HasSubstr("negative"));
  EXPECT_THAT(recipe(R"({"op": "cat", "dim": 0, "of": []})"), HasSubstr("joins nothing"));
  EXPECT_THAT(recipe(R"({"op": "transpose", "dims": [0], "of": {"tensor": "a"}})"),
              HasSubstr("swaps two dimensions"));
  EXPECT_THAT(recipe(R"({"op": "cast", "dtype": "i8", "of": {"tensor": "a"}})"),
              HasSubstr("a cast to i8"));
  Json deep = {{"tensor", "a"}};
  for (int i = 0; i < 100; ++i) deep = {{"op", "reshape"}, {"shape", {1}}, {"of", deep}};
  EXPECT_THAT(with("parameters", {{"w", deep}}), HasSubstr("nested too deeply"));
}

}  // namespace
}  // namespace echelon::graph
