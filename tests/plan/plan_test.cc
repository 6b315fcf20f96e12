#include "runtime/plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/plan/cost.h"
#include "tests/graph/testing.h"

namespace echelon::plan {
namespace {

using graph::Graph;
using graph::ValueId;
using graph::testing::D;
using graph::testing::GraphMaker;
using graph::testing::Net;
using graph::testing::Schemas;
using graph::testing::V;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Linear layers of the given widths, f32, batch 4, in modules "layers.0", "layers.1"...
Graph Layers(const std::vector<int64_t>& widths) {
  GraphMaker make;
  ValueId x = make.Input("x", {D("s0"), D(widths[0])});
  for (size_t i = 0; i + 1 < widths.size(); ++i) {
    const std::string module = "layers." + std::to_string(i);
    const ValueId weight = make.Stored(module + ".weight", {widths[i + 1], widths[i]});
    x = make.Node("linear", {V(x), V(weight)}, {D("s0"), D(widths[i + 1])}, module);
  }
  make.Output("output", V(x));
  make.graph().name = "layers";
  return make.graph();
}

std::vector<int> Bounds(const absl::StatusOr<Plan>& plan) {
  std::vector<int> bounds{0};
  if (!plan.ok()) {
    ADD_FAILURE() << plan.status();
    return bounds;
  }
  for (const Stage& stage : plan->stages) bounds.push_back(stage.end);
  return bounds;
}
std::string ErrorOf(const Graph& graph, const Options& options) {
  const auto plan = MakePlan(graph, Schemas(), options);
  return plan.ok() ? "ok" : std::string(plan.status().message());
}

TEST(EqualSize, PutsTheReluOfNetInTheSecondStage) {
  const auto plan = MakePlan(Net(), Schemas(), {.stages = 2, .policy = "equal-size"});
  EXPECT_THAT(Bounds(plan), ElementsAre(0, 1, 3));
  const Stage &first = plan->stages[0], &second = plan->stages[1];
  EXPECT_EQ(first.parameters, 128 * 128 + 128);
  EXPECT_EQ(first.weight_bytes, 4 * first.parameters);
  EXPECT_EQ(first.send_bytes, 4 * 128 * 4);
  EXPECT_THAT(first.modules, ElementsAre("net1"));
  EXPECT_THAT(second.modules, ElementsAre("relu", "net2"));
  EXPECT_EQ(second.parameters, 128 * 8 + 8);
  EXPECT_EQ(second.send_bytes, 0);
  EXPECT_EQ(second.receives, first.sends);
}

TEST(EqualSize, FillsBucketsLikePiPPy) {
  // Total 4 x 100: two layers a stage.
  EXPECT_THAT(Bounds(MakePlan(Layers({10, 10, 10, 10, 10}), Schemas(),
                              {.stages = 2, .policy = "equal-size"})),
              ElementsAre(0, 2, 4));
  // 100, 1000, 100, 100: the big one does not fit behind the first and fills a bucket alone.
  EXPECT_THAT(Bounds(MakePlan(Layers({10, 10, 100, 1, 100}), Schemas(),
                              {.stages = 3, .policy = "equal-size"})),
              ElementsAre(0, 1, 2, 4));
}

TEST(EqualSize, HalvesTheBiggestStageWhenBucketsAreTooFew) {
  // One big layer first, then small ones that all fit one bucket.
  EXPECT_THAT(Bounds(MakePlan(Layers({100, 100, 1, 1, 1, 1}), Schemas(),
                              {.stages = 4, .policy = "equal-size"})),
              ElementsAre(0, 1, 2, 3, 5));
}

TEST(Threshold, FollowsTheBytesAStageMayHold) {
  const Graph graph = Layers({10, 10, 10, 10, 10});  // 400 bytes a layer
  EXPECT_THAT(Bounds(MakePlan(graph, Schemas(),
                              {.stages = 2, .policy = "threshold", .threshold_bytes = 900})),
              ElementsAre(0, 2, 4));
  EXPECT_EQ(ErrorOf(graph, {.stages = 2, .policy = "threshold", .threshold_bytes = 400}),
            "policy threshold with 400 B a stage gives 4 stages, not 2; use --stages 4 or another "
            "--threshold");
  EXPECT_THAT(ErrorOf(graph, {.stages = 2, .policy = "threshold"}), HasSubstr("needs --threshold"));
}

TEST(Points, CutBeforeModules) {
  const Graph graph = Layers({10, 10, 10, 10, 10});
  EXPECT_THAT(
      Bounds(MakePlan(graph, Schemas(),
                      {.stages = 3, .policy = "points", .points = {"layers.3", "layers.1"}})),
      ElementsAre(0, 1, 3, 4));
  EXPECT_EQ(ErrorOf(graph, {.stages = 3, .policy = "points", .points = {"layers.1"}}),
            "policy points needs one module fewer than stages: 1 given for 3 stages");
  EXPECT_THAT(ErrorOf(graph, {.stages = 2, .policy = "points", .points = {"layers.9"}}),
              HasSubstr("module 'layers.9' has no nodes"));
  EXPECT_THAT(ErrorOf(graph, {.stages = 2, .policy = "points", .points = {"layers"}}),
              HasSubstr("leaves stage 0 empty"));
  EXPECT_THAT(ErrorOf(graph, {.stages = 3, .policy = "points", .points = {"layers.1", "layers.1"}}),
              HasSubstr("the same cut as another"));
}

TEST(Points, RefuseAnIllegalCutAndNameTheNearest) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(4)});
  const ValueId a = make.Node("relu", {V(x)}, {D(4)}, "first");
  const ValueId b = make.Node("relu", {V(a)}, {D(4)}, "first");
  const ValueId view = make.Node("view", {V(b)}, {D(4)}, "first");
  make.Node("relu_", {V(view)}, {D(4)}, "second");
  make.Output("output", V(make.Node("add.Tensor", {V(b), V(view)}, {D(4)}, "third")));
  EXPECT_THAT(
      ErrorOf(make.graph(), {.stages = 2, .policy = "points", .points = {"second"}}),
      HasSubstr(
          "'second': a cut before its first node, v4, would change results; the nearest legal one "
          "is before v3"));
}

TEST(Balanced, EvensOutTime) {
  const Graph graph = Layers({1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024});
  EXPECT_THAT(Bounds(MakePlan(graph, Schemas(), {.stages = 2})), ElementsAre(0, 4, 8));
  EXPECT_THAT(Bounds(MakePlan(graph, Schemas(), {.stages = 4})), ElementsAre(0, 2, 4, 6, 8));
  EXPECT_THAT(Bounds(MakePlan(graph, Schemas(), {.stages = 1})), ElementsAre(0, 8));
}

TEST(Balanced, GivesAFasterStageMore) {
  const Graph graph = Layers({1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024});
  EXPECT_THAT(Bounds(MakePlan(graph, Schemas(), {.stages = 2, .stage_speed = {1, 3}})),
              ElementsAre(0, 2, 8));
  const auto plan = MakePlan(graph, Schemas(), {.stages = 2, .stage_speed = {3, 1}});
  EXPECT_THAT(Bounds(plan), ElementsAre(0, 6, 8));
  EXPECT_NEAR(plan->stages[0].share, 1, 0.2);
  EXPECT_LE(plan->stages[1].share, 1);
}

TEST(Balanced, StaysUnderEachStagesMemory) {
  const Graph graph = Layers({1024, 1024, 1024, 1024, 1024});  // 4 MiB a layer
  constexpr int64_t kMiB = 1 << 20;
  EXPECT_THAT(Bounds(MakePlan(graph, Schemas(),
                              {.stages = 2, .stage_memory_bytes = {5 * kMiB, 64 * kMiB}})),
              ElementsAre(0, 1, 4));
  EXPECT_EQ(ErrorOf(graph, {.stages = 2, .stage_memory_bytes = {7 * kMiB}}),
            "stage 0 needs 8.0 MiB (weights) but --stage-memory gives it 7.0 MiB");
  EXPECT_EQ(
      ErrorOf(graph, {.stages = 2, .stage_memory_bytes = {11 * kMiB}, .kv_memory_bytes = 4 * kMiB}),
      "stage 0 needs 8.0 MiB (weights) and 4.0 MiB (--kv-memory) but --stage-memory gives it "
      "11.0 MiB");
  EXPECT_THAT(ErrorOf(graph, {.stages = 2, .stage_memory_bytes = {1, 2, 3}}),
              HasSubstr("--stage-memory has 3 entries for 2 stages"));
  EXPECT_THAT(
      ErrorOf(graph, {.stages = 2, .policy = "equal-size", .stage_memory_bytes = {7 * kMiB}}),
      HasSubstr("stage 0 needs 8.0 MiB"));
}

TEST(Balanced, PrefersTheCutThatSendsLeast) {
  // Equal times on both sides of two places; between nodes 1 and 2 the value is small.
  const auto plan = MakePlan(Layers({512, 512, 8, 512, 512}), Schemas(), {.stages = 2});
  EXPECT_THAT(Bounds(plan), ElementsAre(0, 2, 4));
}

TEST(Measured, UsesTheTimesGiven) {
  const Graph graph = Layers({10, 10, 10, 10, 10});
  EXPECT_THAT(Bounds(MakePlan(
                  graph, Schemas(),
                  {.stages = 2, .policy = "measured", .node_times_ns = {9000, 1000, 1000, 1000}})),
              ElementsAre(0, 1, 4));
  EXPECT_THAT(ErrorOf(graph, {.stages = 2, .policy = "measured"}),
              HasSubstr("needs a time for each of the 4 nodes, 0 given"));
}

TEST(MakePlan, NamesWhatIsWrong) {
  EXPECT_EQ(ErrorOf(Net(), {.stages = 4}),
            "policy balanced: 4 stages need 3 cuts, but the graph has 2 legal ones; use at most "
            "--stages 3");
  EXPECT_THAT(ErrorOf(Net(), {.stages = 0}), HasSubstr("--stages 0 is below 1"));
  EXPECT_THAT(ErrorOf(Net(), {.stages = 2, .policy = "magic"}),
              HasSubstr("policy 'magic' is not known"));
  EXPECT_THAT(ErrorOf(Net(), {.stages = 2, .stage_speed = {0}}), HasSubstr("is not above 0"));
}

TEST(Stages, RelaySkipsAndInputsAndReplicateTiedWeights) {
  GraphMaker make;
  const ValueId tied = make.Stored("a", {4, 4}, graph::Stored::kParameter, "record");
  const ValueId same = make.Stored("b", {4, 4}, graph::Stored::kParameter, "record");
  const ValueId x = make.Input("x", {D(4), D(4)}), late = make.Input("late", {D(4), D(4)});
  const ValueId unused = make.Input("unused", {D(4)});
  const ValueId skip = make.Node("linear", {V(x), V(tied)}, {D(4), D(4)});
  const ValueId middle = make.Node("relu", {V(skip)}, {D(4), D(4)});
  const ValueId sum = make.Node("add.Tensor", {V(middle), V(skip)}, {D(4), D(4)});
  const ValueId most = make.Node("add.Tensor", {V(sum), V(late)}, {D(4), D(4)});
  const ValueId out = make.Node("linear", {V(most), V(same)}, {D(4), D(4)});
  make.Output("output", V(out));
  make.Output("skip", V(skip));
  const auto plan =
      MakePlan(make.graph(), Schemas(),
               {.stages = 4, .policy = "measured", .node_times_ns = {100, 100, 50, 50, 100}});
  ASSERT_THAT(Bounds(plan), ElementsAre(0, 1, 2, 4, 5));
  EXPECT_THAT(plan->stages[0].receives, ElementsAre(x, late, unused));
  EXPECT_THAT(plan->stages[0].sends, ElementsAre(late, skip));
  EXPECT_THAT(plan->stages[1].sends, ElementsAre(late, skip, middle));
  EXPECT_THAT(plan->stages[2].sends, ElementsAre(skip, most));
  EXPECT_THAT(plan->stages[3].sends, ElementsAre(skip, out));
  EXPECT_EQ(plan->stages[0].weight_bytes, 64);
  EXPECT_EQ(plan->stages[3].weight_bytes, 64);
  EXPECT_EQ(plan->stages[1].send_bytes, 3 * 64);
  const auto one = MakePlan(make.graph(), Schemas(), {.stages = 1});
  EXPECT_EQ(one->stages[0].parameters, 16) << "tied parameters count once";
  EXPECT_EQ(one->stages[0].weight_bytes, 64);
}

TEST(Json, RoundTripsAndIsVerified) {
  const Graph net = Net();
  const auto plan = MakePlan(net, Schemas(), {.stages = 2, .policy = "equal-size"});
  const std::string text = ToJson(*plan, net);
  const auto back = FromJson(text, net);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->digest, plan->digest);
  EXPECT_EQ(ToJson(*back, net), text);
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["stages"][1]["nodes"], nlohmann::json({"relu", "linear_1"}));
  for (const char* key :
       {"rank", "begin", "end", "modules", "parameters", "weight_bytes", "send_bytes", "share"}) {
    EXPECT_TRUE(json["stages"][0].contains(key)) << key;
  }

  const auto error = [&](auto spoil) {
    nlohmann::json spoiled = json;
    spoil(spoiled);
    return std::string(FromJson(spoiled.dump(), net).status().message());
  };
  using J = nlohmann::json;
  EXPECT_THAT(error([](J& j) { j["graph_digest"] = "f"; }),
              HasSubstr("give all ranks the same model file"));
  EXPECT_THAT(error([](J& j) { j["digest"] = "f"; }), HasSubstr("its digest does not match"));
  EXPECT_THAT(error([](J& j) { j["policy"] = "points"; }), HasSubstr("its digest does not match"));
  EXPECT_THAT(error([](J& j) { j["stages"][1]["rank"] = 0; }),
              HasSubstr("stage 1: its rank is out of order"));
  EXPECT_THAT(error([](J& j) { j["stages"][1]["begin"] = 2; }), HasSubstr("out of order"));
  EXPECT_THAT(error([](J& j) { j["stages"][1]["end"] = 99; }), HasSubstr("out of order"));
  EXPECT_THAT(error([](J& j) { j["stages"][1]["nodes"][0] = "q"; }), HasSubstr("other names"));
  EXPECT_THAT(error([](J& j) { j["stages"][1]["share"] = 2; }), HasSubstr("share is not in 0..1"));
  EXPECT_THAT(error([](J& j) { j["stages"].erase(1); }), HasSubstr("do not cover the graph"));
  EXPECT_THAT(error([](J& j) { j = 3; }), HasSubstr("\"policy\" is missing"));
  EXPECT_FALSE(FromJson("{", net).ok());
}

TEST(Text, IsOneLineAStage) {
  const Graph graph = Layers({10, 10, 10, 10, 10});
  const auto plan = MakePlan(graph, Schemas(), {.stages = 2, .policy = "equal-size"});
  EXPECT_EQ(ToText(*plan, graph),
            "layers: 2 stages, policy equal-size\n"
            "stage  nodes  parameters  weights  sends   time  modules\n"
            "    0      2         200    800 B  160 B  100 %  layers.0-1\n"
            "    1      2         200    800 B      -   94 %  layers.2-3\n");
}

TEST(Cost, CountsFlopsOfProducts) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(4), D(8)}), w = make.Stored("w", {16, 8});
  make.Node("linear", {V(x), V(w)}, {D(4), D(16)});
  make.Node("matmul", {V(x), V(w)}, {D(4), D(16)});
  make.Node("relu", {V(x)}, {D(4), D(8)});
  EXPECT_EQ(Flops(make.graph(), make.graph().nodes[0]), 2 * 4 * 16 * 8);
  EXPECT_EQ(Flops(make.graph(), make.graph().nodes[1]), 2 * 4 * 16 * 8);
  EXPECT_EQ(Flops(make.graph(), make.graph().nodes[2]), 0);
}

TEST(Cost, SaturatesOnHugeClaims) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(INT64_MAX), D(INT64_MAX)});
  make.Node("linear", {V(x), V(x)}, {D(INT64_MAX), D(INT64_MAX)});
  make.Node("relu", {V(x)}, {D(INT64_MAX)});
  make.Output("output", V(x));
  EXPECT_GT(NodeCosts(make.graph(), Schemas())[0], 0);
  EXPECT_TRUE(MakePlan(make.graph(), Schemas(), {.stages = 2}).ok());
}

TEST(Cost, PrintsUnits) {
  EXPECT_EQ(BytesText(1023), "1023 B");
  EXPECT_EQ(BytesText(1024), "1.0 KiB");
  EXPECT_EQ(BytesText(5583457485), "5.2 GiB");
  EXPECT_EQ(CountText(17544), "17.5 k");
}

TEST(Balanced, IsFastForManyCutsAndStages) {
  const Graph graph = Layers(std::vector<int64_t>(3001, 64));
  const auto plan = MakePlan(graph, Schemas(), {.stages = 64});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->stages.size(), 64u);
  EXPECT_EQ(ErrorOf(graph, {.stages = 64, .stage_memory_bytes = {64 * 64 * 4 * 46}}),
            "stage 8 needs 752.0 KiB (weights) but --stage-memory gives it 736.0 KiB");
}

}  // namespace
}  // namespace echelon::plan
