// The CRD and the C++ reader say the same: defaults, fields, ranges, choices.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "operator/api/deployment.h"
#include "operator/api/yaml.h"

namespace echelon::op {
namespace {

using nlohmann::json;

json Schema() {
  std::ifstream file(ECHELON_CRD);
  std::stringstream text;
  text << file.rdbuf();
  const json crd = ParseYaml(text.str()).value().at(0);
  return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
}

// Fills in defaults as the API server does.
void FillIn(const json& schema, json* value) {
  if (value->is_object() && schema.contains("properties")) {
    for (const auto& [name, field] : schema["properties"].items()) {
      if (!value->contains(name) && field.contains("default")) (*value)[name] = field["default"];
      if (value->contains(name)) FillIn(field, &(*value)[name]);
    }
  }
  if (value->is_array() && schema.contains("items"))
    for (json& item : *value) FillIn(schema["items"], &item);
}

json Minimal() {
  return ParseYaml(R"(
    apiVersion: echelon.dev/v1alpha1
    kind: PipelineDeployment
    metadata: {name: net}
    spec:
      model: {source: {type: PVC, pvc: {claimName: m}}, path: net.pt2}
      parallelism: {stages: 8}
      overrides: [{name: a, firstRank: 2}]
  )")
      .value()
      .at(0);
}

TEST(Crd, HasTheDefaultsOfTheReader) {
  json spec = Minimal()["spec"];
  FillIn(Schema()["properties"]["spec"], &spec);
  const Deployment d = FromJson(Minimal()).value();
  EXPECT_EQ(d.invalid_message, "");
  EXPECT_EQ(ToJson(d.spec), spec);
}

// Calls visit(path, schema) for every field, items of lists as 0.
void Walk(const json& schema, const json::json_pointer& path,
          const std::function<void(const json::json_pointer&, const json&)>& visit) {
  if (!path.empty()) visit(path, schema);
  if (schema.contains("items")) Walk(schema["items"], path / 0, visit);
  if (!schema.contains("properties")) return;
  for (const auto& [name, field] : schema["properties"].items()) Walk(field, path / name, visit);
}

// An object in which this field has this value, and whatever it needs beside it.
Deployment With(const json::json_pointer& path, const json& value) {
  json object = Minimal();
  json& spec = object["spec"];
  const std::string text = path.to_string();
  const char* sources[][3] = {
      {"HostPath", "hostPath", "path"}, {"Image", "image", "reference"}, {"HTTPS", "https", "url"}};
  for (const auto& [type, block, required] : sources)
    if (text.find(std::string("/") + block + "/") != std::string::npos)
      spec["model"]["source"] = {{"type", type}, {block, {{required, "/x"}}}};
  if (text.find("/ports/") != std::string::npos)
    spec["service"]["ports"] = {{{"name", "http"}, {"port", 1}}};
  spec[path] = value;
  return FromJson(object).value();
}

TEST(Crd, HasTheRangesOfTheReader) {
  int ranges = 0;
  Walk(Schema()["properties"]["spec"], json::json_pointer(),
       [&](const auto& path, const json& field) {
         if (field["type"] != "integer" || !field.contains("minimum")) return;
         SCOPED_TRACE(path.to_string());
         ++ranges;
         for (const auto& [bound, step] : {std::pair("minimum", -1), {"maximum", 1}}) {
           const int64_t last = field[bound].template get<int64_t>();
           const std::string beyond = With(path, last + step).invalid_message;
           EXPECT_THAT(beyond, testing::HasSubstr("it must be an integer from")) << bound;
           EXPECT_THAT(With(path, last).invalid_message,
                       testing::Not(testing::HasSubstr("it must be an integer from")))
               << bound;
         }
       });
  EXPECT_EQ(ranges, 18);
}

TEST(Crd, HasTheChoicesOfTheReader) {
  int choices = 0;
  Walk(Schema()["properties"]["spec"], json::json_pointer(),
       [&](const auto& path, const json& field) {
         if (!field.contains("enum") || path.to_string().find("tolerations") != std::string::npos)
           return;
         SCOPED_TRACE(path.to_string());
         ++choices;
         for (const json& choice : field["enum"])
           EXPECT_THAT(With(path, choice).invalid_message,
                       testing::Not(testing::HasSubstr("one of")));
         EXPECT_THAT(With(path, "Nonsense").invalid_message, testing::HasSubstr("one of"));
       });
  EXPECT_EQ(choices, 8);
}

TEST(Crd, HasTheFieldsOfTheReader) {
  const auto try_field = [](const json::json_pointer& path, const json& field) {
    if (field.contains("properties") || field["type"] == "array") return;
    json object = Minimal();
    object["spec"][path] = field["type"] == "object" ? json::object() : json("x");
    EXPECT_THAT(UnknownFields(object), testing::ElementsAre()) << path.to_string();
  };
  json spec = Schema()["properties"]["spec"];
  // Kubernetes' own types pass through as they are.
  for (const char* foreign : {"resources", "tolerations"})
    spec["properties"]["overrides"]["items"]["properties"].erase(foreign);
  Walk(spec, json::json_pointer(), try_field);
}

TEST(Crd, DescribesEveryFieldAndBoundsEveryListAndString) {
  Walk(Schema(), json::json_pointer(), [](const auto& path, const json& field) {
    SCOPED_TRACE(path.to_string());
    const bool is_item = path.back() == "0";
    EXPECT_TRUE(field.contains("description") || is_item || path.back() == "metadata");
    if (path.parent_pointer().empty()) return;  // apiVersion and kind have bounds of their own
    if (field["type"] == "string") {
      EXPECT_TRUE(field.contains("enum") || field.contains("maxLength"));
    }
    if (field["type"] == "array") {
      EXPECT_TRUE(field.contains("maxItems"));
      EXPECT_TRUE(field.contains("x-kubernetes-list-type"));
    }
    if (field.contains("additionalProperties")) {
      EXPECT_TRUE(field.contains("maxProperties"));
    }
  });
}

}  // namespace
}  // namespace echelon::op
