#include "runtime/graph/pt2_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/graph/printer.h"
#include "tests/graph/testing.h"

namespace echelon::graph {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::NodeJson;
using testing::Pt2;
using testing::SymbolJson;
using testing::TensorArg;
using testing::TensorMetaJson;

absl::StatusOr<Graph> Read(const Pt2& pt2, const ReadOptions& options = {}) {
  const std::string bytes = pt2.Bytes();
  return ReadPt2(*FromMemory(bytes, "dir/net.pt2"), options);
}
std::string ErrorOf(const Pt2& pt2) {
  const auto graph = Read(pt2);
  return graph.ok() ? "ok" : std::string(graph.status().message());
}

std::vector<std::string> OutputNamesOf(const Graph& graph) {
  std::vector<std::string> names;
  for (const Output& output : graph.outputs) names.push_back(output.name);
  return names;
}

TEST(Pt2Reader, ReadsALinearLayer) {
  const auto graph = Read(Pt2());
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ(PrintGraph(*graph),
            "# s0: 1..64\n"
            "def forward(self, x):                                      # x: f32[s0, 3]\n"
            "    linear = aten.linear(x, self.fc.weight, self.fc.bias)  # f32[s0, 2]\n"
            "    return linear\n");
  EXPECT_EQ(graph->name, "net");
  EXPECT_EQ(graph->digest.size(), 32u);
  EXPECT_EQ(graph->nodes[0].module, "fc");
  EXPECT_EQ(graph->nodes[0].name, "linear");
  ASSERT_EQ(graph->stored.size(), 2u);
  EXPECT_EQ(graph->stored[0].record, "net/data/weights/weight_0");
  EXPECT_EQ(graph->stored[0].nbytes, 24u);
  EXPECT_THAT(OutputNamesOf(*graph), ElementsAre("output"));
}

TEST(Pt2Reader, DigestsContentNotNameOrPlace) {
  Pt2 pt2, renamed, heavier, other;
  renamed.root = "elsewhere";
  heavier.records["data/weights/weight_1"] += "more";
  other.graph()["nodes"][0]["target"] = "torch.ops.aten.linear.other";
  const std::string digest = Read(pt2)->digest;
  EXPECT_EQ(Read(renamed)->digest, digest);
  EXPECT_NE(Read(heavier)->digest, digest);
  EXPECT_NE(Read(other)->digest, digest);
}

TEST(Pt2Reader, RefusesTruncationAnywhere) {
  const std::string bytes = Pt2().Bytes();
  for (size_t length = 0; length < bytes.size(); length += 7) {
    const auto graph = ReadPt2(*FromMemory(bytes.substr(0, length), "net.pt2"));
    EXPECT_FALSE(graph.ok()) << length;
  }
}

TEST(Pt2Reader, NamesTheFaultOfAProgram) {
  const std::pair<std::function<void(Pt2&)>, const char*> cases[] = {
      {[](Pt2& p) { p.program["schema_version"]["major"] = 9; },
       "dir/net.pt2: models/model.json: schema version 9 (torch '2.11.0') is not supported, only "
       "8"},
      {[](Pt2& p) { p.program.erase("schema_version"); }, "\"schema_version\" is missing"},
      {[](Pt2& p) { p.program["graph_module"] = 3; }, "\"graph_module\" is not an object"},
      {[](Pt2& p) { p.graph()["nodes"][0]["inputs"][1]["arg"] = TensorArg("y"); },
       "node  ('torch.ops.aten.linear.default'): nothing before it is named 'y'"},
      {[](Pt2& p) {
         p.graph()["nodes"][0]["inputs"][1]["arg"] = {{"as_magic", 1}};
       },
       "an argument of kind 'as_magic' is not supported"},
      {[](Pt2& p) {
         p.graph()["nodes"][0]["outputs"][0] = {{"as_magic", 1}};
       },
       "a result of kind 'as_magic' is not supported"},
      {[](Pt2& p) { p.graph()["nodes"][0]["target"] = "torch.ops.higher_order.cond"; },
       "this higher-order operator is not supported"},
      {[](Pt2& p) { p.graph()["nodes"].push_back(p.graph()["nodes"][0]); },
       "two values are named 'linear'"},
      {[](Pt2& p) { p.graph()["tensor_values"].erase("linear"); },
       "tensor 'linear' has no description"},
      {[](Pt2& p) { p.graph()["tensor_values"]["x"]["dtype"] = 9; },
       "dtype number 9 is not supported"},
      {[](Pt2& p) { p.graph()["tensor_values"]["x"]["layout"] = 1; }, "layout 1 is not strided"},
      {[](Pt2& p) {
         p.graph()["tensor_values"]["x"] = TensorMetaJson(7, {-1, 3}, {3, 1});
       },
       "a negative size, -1"},
      {[](Pt2& p) {
         p.graph()["tensor_values"]["x"] =
             TensorMetaJson(7, std::vector<json>(17, 1), std::vector<int64_t>(17, 1));
       },
       "a tensor of 17 dimensions; at most 16"},
      {[](Pt2& p) {
         p.graph()["tensor_values"]["x"]["sizes"][1] = {{"as_int", 1.5}};
       },
       "\"as_int\" is not a 64-bit integer"},
      {[](Pt2& p) {
         p.signature()["input_specs"][2] = {{"custom_obj", json::object()}};
       },
       "an input of kind 'custom_obj' is not supported"},
      {[](Pt2& p) {
         p.signature()["output_specs"][0] = {{"loss_output", json::object()}};
       },
       "an output of kind 'loss_output' is not supported"},
      {[](Pt2& p) { p.signature()["output_specs"].clear(); }, "differ in number"},
      {[](Pt2& p) { p.graph()["tensor_values"]["p_bias"]["dtype"] = 5; },
       "tensor 'fc.bias': the graph states i64 2, its record f32 2"},
  };
  for (const auto& [spoil, wanted] : cases) {
    Pt2 pt2;
    spoil(pt2);
    EXPECT_THAT(ErrorOf(pt2), HasSubstr(wanted));
    EXPECT_THAT(ErrorOf(pt2), ::testing::Not(HasSubstr("\n")));
  }
}

TEST(Pt2Reader, NamesTheFaultOfAWeight) {
  const auto meta = [](Pt2& p) -> json& { return p.weights["config"]["fc.weight"]["tensor_meta"]; };
  const std::pair<std::function<void(Pt2&)>, const char*> cases[] = {
      {[](Pt2& p) { p.weights["config"].erase("fc.weight"); },
       "dir/net.pt2: tensor 'fc.weight' is in neither weights nor constants"},
      {[](Pt2& p) { p.weights["config"]["fc.weight"]["use_pickle"] = true; },
       "tensor 'fc.weight' is pickled"},
      {[](Pt2& p) { p.records.erase("data/weights/weight_0"); },
       "record 'net/data/weights/weight_0' is missing from the archive"},
      {[](Pt2& p) { p.records["data/weights/weight_0"].resize(20); },
       "tensor 'fc.weight': shape 2x3 needs 24 bytes, its record has 20"},
      {[](Pt2& p) { p.records["data/weights/weight_0"].clear(); },
       "tensor 'fc.weight' has no values: it was exported from fake tensors"},
      {[&](Pt2& p) { meta(p)["strides"][0]["as_int"] = 4; }, "needs 28 bytes"},
      {[&](Pt2& p) { meta(p)["strides"][0]["as_int"] = -3; }, "a negative stride"},
      {[&](Pt2& p) { meta(p)["strides"][0]["as_int"] = INT64_MAX; }, "overflows"},
      {[&](Pt2& p) { meta(p)["storage_offset"]["as_int"] = 1; }, "needs 28 bytes"},
      {[&](Pt2& p) { meta(p)["storage_offset"]["as_int"] = -1; }, "a negative storage offset"},
      {[&](Pt2& p) { meta(p)["sizes"][0] = SymbolJson("s0", 2); },
       "a stored tensor of symbolic shape"},
      {[&](Pt2& p) { meta(p).erase("sizes"); }, "tensor 'fc.weight': \"sizes\" is missing"},
  };
  for (const auto& [spoil, wanted] : cases) {
    Pt2 pt2;
    spoil(pt2);
    EXPECT_THAT(ErrorOf(pt2), HasSubstr(wanted));
  }
}

TEST(Pt2Reader, AcceptsEmptyRecordsWhenAsked) {
  Pt2 pt2;
  pt2.records["data/weights/weight_0"].clear();
  const auto graph = Read(pt2, {.allow_empty_weights = true});
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ(graph->stored[0].nbytes, 0u);
}

TEST(Pt2Reader, RefusesOtherArchives) {
  const auto error = [](const testing::Entries& files) {
    return std::string(ReadPt2(*FromMemory(testing::MakeZip(files), "m.pt2")).status().message());
  };
  EXPECT_THAT(error({{"a/b", "c"}}), HasSubstr("no models/*.json inside"));
  EXPECT_THAT(error({{"serialized_exported_program.json", "{}"}}),
              HasSubstr("an older .pt2 format"));
  EXPECT_THAT(error({{"a/models/x.json", "{}"}, {"a/models/y.json", "{}"}}),
              HasSubstr("holds several models, 'x', 'y'"));
  EXPECT_THAT(error({{"a/models/x.json", "{"}}), HasSubstr("models/x.json: not valid JSON"));
  EXPECT_THAT(error({{"a/models/x.json", std::string(1000, '[')}}), HasSubstr("nested deeper"));
  EXPECT_THAT(error({{"a/models/x.json", "{}"}, {"a/byteorder", "big"}}),
              HasSubstr("not little-endian"));
}

// Adds a second node so that there is something to name.
void AddRelu(Pt2& pt2) {
  pt2.graph()["nodes"].push_back(NodeJson("torch.ops.aten.relu.default",
                                          {{"self", TensorArg("linear")}}, {TensorArg("relu")}));
  pt2.graph()["tensor_values"]["relu"] = pt2.graph()["tensor_values"]["linear"];
  pt2.graph()["outputs"].push_back(TensorArg("relu"));
  pt2.signature()["output_specs"].push_back(testing::UserOutput(TensorArg("relu")));
}

TEST(Pt2Reader, NamesOutputsByTheirPlaceInTheTree) {
  const json leaf{{"type", nullptr}, {"context", nullptr}, {"children_spec", json::array()}};
  const auto tree = [](const char* type, const json& context, const std::vector<json>& children) {
    return json{{"type", type}, {"context", context.dump()}, {"children_spec", children}};
  };
  const json pair = tree("builtins.tuple", nullptr, {leaf, leaf});
  const std::pair<json, std::vector<std::string>> cases[] = {
      {pair, {"output_0", "output_1"}},
      {tree("builtins.list", nullptr, {leaf, leaf}), {"output_0", "output_1"}},
      {tree("builtins.dict", {"a", "b"}, {leaf, leaf}), {"a", "b"}},
      {tree("builtins.dict", json::array({"a"}), {pair}), {"a.0", "a.1"}},
      {tree("builtins.dict", {3, 7}, {leaf, leaf}), {"output_3", "output_7"}},
      {tree("builtins.tuple", nullptr,
            {tree("builtins.dict", json::array({"rows"}), {leaf}), leaf}),
       {"output_0.rows", "output_1"}},
      {tree("collections.OrderedDict", {"x", "y"}, {leaf, leaf}), {"x", "y"}},
      {tree("collections.defaultdict", {{"dict_context", {"x", "y"}}}, {leaf, leaf}), {"x", "y"}},
      {tree("some.ModelOutput", {"logits", "hidden"}, {leaf, leaf}), {"logits", "hidden"}},
      {tree("some.Dataclass", {{"score", "label"}, json::array()}, {leaf, leaf}),
       {"score", "label"}},
      {{{"type", "collections.namedtuple"},
        {"context", "my.Pair"},
        {"children_spec", {leaf, leaf}}},
       {"left", "right"}},
      {{{"type", "collections.namedtuple"},
        {"context", "my.Other"},
        {"children_spec", {leaf, leaf}}},
       {"output_0", "output_1"}},
      {tree("builtins.dict", {"a", "a"}, {leaf, leaf}), {"a", "a_1"}},
  };
  for (const auto& [spec, names] : cases) {
    Pt2 pt2;
    AddRelu(pt2);
    pt2.SetOutSpec(spec);
    pt2.program["graph_module"]["treespec_namedtuple_fields"] = {
        {"my.Pair", {{"field_names", {"left", "right"}}}}};
    const auto graph = Read(pt2);
    ASSERT_TRUE(graph.ok()) << graph.status();
    EXPECT_EQ(OutputNamesOf(*graph), names);
  }
  Pt2 pt2;
  AddRelu(pt2);
  EXPECT_THAT(ErrorOf(pt2), HasSubstr("out_spec: it has 1 leaves, the graph 2 outputs"));
}

TEST(Pt2Reader, LeavesOutNoneAndTextAndKeepsNumbers) {
  Pt2 pt2;
  const json leaf{{"type", nullptr}, {"context", nullptr}, {"children_spec", json::array()}};
  pt2.graph()["outputs"] = {
      {{"as_none", true}}, {{"as_int", 3}}, {{"as_string", "x"}}, TensorArg("linear")};
  json specs = json::array();
  for (const json& output : pt2.graph()["outputs"]) specs.push_back(testing::UserOutput(output));
  pt2.signature()["output_specs"] = specs;
  pt2.SetOutSpec({{"type", "builtins.tuple"},
                  {"context", "null"},
                  {"children_spec", {leaf, leaf, leaf, leaf}}});
  const auto graph = Read(pt2);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(OutputNamesOf(*graph), ElementsAre("output_1", "output_3"));
  EXPECT_EQ(graph->outputs[0].item, Item(int64_t{3}));
}

TEST(Pt2Reader, TurnsBufferMutationsIntoWrites) {
  Pt2 pt2;
  pt2.signature()["input_specs"][1] = {
      {"buffer",
       {{"arg", {{"name", "p_bias"}}}, {"buffer_name", "fc.bias"}, {"persistent", true}}}};
  pt2.graph()["nodes"].push_back(NodeJson("torch.ops.aten.relu.default",
                                          {{"self", TensorArg("p_bias")}}, {TensorArg("relu")}));
  pt2.graph()["tensor_values"]["relu"] = pt2.graph()["tensor_values"]["p_bias"];
  pt2.graph()["outputs"] = {TensorArg("relu"), TensorArg("x"), TensorArg("linear")};
  pt2.signature()["output_specs"] = {
      {{"buffer_mutation", {{"arg", {{"name", "relu"}}}, {"buffer_name", "fc.bias"}}}},
      {{"user_input_mutation", {{"arg", {{"name", "x"}}}, {"user_input_name", "x"}}}},
      testing::UserOutput(TensorArg("linear"))};
  const auto graph = Read(pt2);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(PrintGraph(*graph), HasSubstr("p_bias_written = aten.copy_(self.fc.bias, relu)"));
  EXPECT_THAT(OutputNamesOf(*graph), ElementsAre("output"));
}

TEST(Pt2Reader, InlinesGradModeSubgraphs) {
  Pt2 pt2;
  json inner = pt2.graph();
  inner["inputs"] = {TensorArg("x"), TensorArg("p_weight"), TensorArg("p_bias")};
  pt2.graph()["nodes"] = json::array(
      {{{"target", "torch.ops.higher_order.wrap_with_set_grad_enabled"},
        {"inputs", json::array({{{"name", ""}, {"arg", {{"as_bool", false}}}},
                                {{"name", ""},
                                 {"arg", {{"as_graph", {{"name", "submod"}, {"graph", inner}}}}}},
                                {{"name", ""}, {"arg", TensorArg("x")}},
                                {{"name", ""}, {"arg", TensorArg("p_weight")}},
                                {{"name", ""}, {"arg", TensorArg("p_bias")}}})},
        {"outputs", json::array({TensorArg("getitem")})}}});
  pt2.graph()["outputs"] = json::array({TensorArg("getitem")});
  pt2.signature()["output_specs"] = json::array({testing::UserOutput(TensorArg("getitem"))});
  const auto graph = Read(pt2);
  ASSERT_TRUE(graph.ok()) << graph.status();
  ASSERT_EQ(graph->nodes.size(), 1u);
  EXPECT_EQ(graph->nodes[0].target, "torch.ops.aten.linear.default");
  EXPECT_EQ(graph->outputs[0].item, Item(ValueRef{graph->nodes[0].results[0].values[0]}));
}

TEST(Pt2Reader, ReadsEveryKindOfLiteral) {
  Pt2 pt2;
  pt2.graph()["sym_int_values"]["n"] = SymbolJson("s0", 4);
  pt2.graph()["nodes"].push_back(NodeJson("torch.ops.aten.sym_size.int",
                                          {{"a_self", TensorArg("x")}, {"b_dim", {{"as_int", 0}}}},
                                          {{{"as_sym_int", {{"as_name", "n"}}}}}));
  pt2.graph()["nodes"].push_back(NodeJson(
      "torch.ops.aten.many.default",
      {{"a", {{"as_float", "-Infinity"}}},
       {"b", {{"as_scalar_type", 13}}},
       {"c", {{"as_device", {{"type", "cuda"}, {"index", 1}}}}},
       {"d", {{"as_layout", 7}}},
       {"e", {{"as_memory_format", 2}}},
       {"f", {{"as_sym_ints", json::array({{{"as_name", "n"}}, {{"as_int", -1}}})}}},
       {"g", {{"as_optional_tensors", json::array({{{"as_none", true}}, TensorArg("x")})}}},
       {"h", {{"as_string", "mean"}}},
       {"i", {{"as_bools", {true, false}}}},
       {"j", {{"as_optional_tensor", TensorArg("x")}}},
       {"k", {{"as_none", true}}},
       {"l", {{"as_floats", {0.5, 1}}}}},
      {{{"as_tensors", json::array()}}, TensorArg("")}));
  const auto graph = Read(pt2);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(PrintGraph(*graph), HasSubstr("    n = aten.sym_size.int(x, 0)"));
  EXPECT_THAT(
      PrintGraph(*graph),
      HasSubstr("    [], unused = aten.many(float('-inf'), torch.bfloat16, torch.device('cuda:1'), "
                "torch.strided, torch.channels_last, [n, -1], [None, x], 'mean', [True, False], x, "
                "None, [0.5, 1.0])"));
}

TEST(Pt2Reader, KeepsSizesItDoesNotUnderstand) {
  Pt2 pt2;
  pt2.graph()["tensor_values"]["linear"]["sizes"][0]["as_expr"]["expr_str"] =
      "Piecewise((1, True))";
  const auto graph = Read(pt2);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(PrintGraph(*graph), HasSubstr("f32[Piecewise((1, True)), 2]"));
}

TEST(Pt2Reader, ReadsOnlyPlainSymbolsRanges) {
  Pt2 pt2;
  pt2.program["range_constraints"] = {{"s0", {{"min_val", nullptr}, {"max_val", nullptr}}},
                                      {"2*s0", {{"min_val", 2}, {"max_val", 8}}},
                                      {"s1", {{"min_val", -5}, {"max_val", 8}}}};
  const auto graph = Read(pt2);
  ASSERT_TRUE(graph.ok()) << graph.status();
  ASSERT_EQ(graph->symbols.size(), 2u);
  EXPECT_EQ(graph->symbols.at("s0").max, INT64_MAX);
  EXPECT_EQ(graph->symbols.at("s1").min, 0);
}

}  // namespace
}  // namespace echelon::graph
