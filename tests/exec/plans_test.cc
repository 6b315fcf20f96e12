// Every model of the oracle in 1 to 4 stages under every policy gives what eager PyTorch gives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "runtime/plan/load.h"
#include "runtime/stage/model.h"
#include "tests/exec/oracle.h"

namespace echelon::oracle {
namespace {

using ::testing::HasSubstr;

constexpr int kMostStages = 4;
constexpr const char* kPolicies[] = {"equal-size", "threshold", "points", "balanced", "measured"};

struct Tally {
  int ran = 0;       // (policy, stages) whose plan gave the right answers
  int distinct = 0;  // plans among them
  int skipped = 0;   // no threshold or no modules give that many stages
  int refused = 0;   // more stages than legal cuts: said so
};

class Planner {
 public:
  Planner(const Case& item, const stage::Model& model)
      : item_(item), model_(model), cuts_(plan::LegalCuts(model.graph, model.schemas)) {}

  int cuts() const { return static_cast<int>(cuts_.size()); }

  absl::StatusOr<plan::Plan> Make(const plan::Options& options) const {
    return plan::MakePlan(model_.graph, model_.schemas, options);
  }

  // What gives that many stages under a policy; none where nothing does.
  std::optional<plan::Options> OptionsFor(const std::string& policy, int stages) {
    plan::Options options{.stages = stages, .policy = policy};
    if (policy == "measured") options.node_times_ns = Times();
    if (policy == "threshold") return WithThreshold(options);
    if (policy == "points") return WithPoints(options);
    return options;
  }

 private:
  const std::vector<int64_t>& Times() {
    if (!times_.empty()) return times_;
    times_.assign(model_.graph.nodes.size(), 0);
    const auto whole = StagesOf(model_.graph, {0, static_cast<int>(times_.size())});
    auto pipeline = Pipeline::Load(model_.graph, whole, {.threads = 1, .node_times_ns = &times_});
    EXPECT_TRUE(pipeline.ok()) << pipeline.status();
    if (pipeline.ok()) {
      EXPECT_TRUE(pipeline->Run(item_.runs[0].inputs).ok());
    }
    return times_;
  }

  std::optional<plan::Options> WithThreshold(plan::Options options) const {
    const plan::Load load(model_.graph);
    const int64_t total = load.WeightBytes(0, load.nodes);
    for (int part = 1; part <= 48; ++part) {
      options.threshold_bytes = std::max<int64_t>(1, total * part / 32);
      if (Make(options).ok()) return options;
    }
    return std::nullopt;
  }

  // The modules that may stand behind a cut, by the cut.
  const std::map<int, std::string>& Points() {
    if (!points_.empty()) return points_;
    std::set<std::string> paths;
    for (const graph::Node& node : model_.graph.nodes)
      for (size_t end = 0; end != std::string::npos && !node.module.empty();) {
        end = node.module.find('.', end + 1);
        paths.insert(node.module.substr(0, end));
      }
    for (const std::string& path : paths) {
      const auto plan = Make({.stages = 2, .policy = "points", .points = {path}});
      if (plan.ok()) points_.emplace(plan->stages[1].begin, path);
    }
    return points_;
  }

  // The modules nearest to where the balanced plan cuts.
  std::optional<plan::Options> WithPoints(plan::Options options) {
    std::map<int, std::string> left = Points();
    const auto balanced = Make({.stages = options.stages});
    if (!balanced.ok() || static_cast<int>(left.size()) < options.stages - 1) return std::nullopt;
    for (int s = 1; s < options.stages; ++s) {
      const auto far = [&](const auto& point) {
        return std::abs(point.first - balanced->stages[s].begin);
      };
      const auto nearest = std::min_element(
          left.begin(), left.end(), [&](const auto& a, const auto& b) { return far(a) < far(b); });
      options.points.push_back(nearest->second);
      left.erase(nearest);
    }
    return options;
  }

  const Case& item_;
  const stage::Model& model_;
  const std::vector<int> cuts_;
  std::vector<int64_t> times_;
  std::map<int, std::string> points_;
};

std::vector<int> BoundsOf(const plan::Plan& plan) {
  std::vector<int> bounds{0};
  for (const plan::Stage& stage : plan.stages) bounds.push_back(stage.end);
  return bounds;
}

void CheckPlan(const Case& item, const graph::Graph& graph, const plan::Plan& plan,
               std::set<std::vector<int>>* done, Tally* tally) {
  const auto reread = plan::FromJson(plan::ToJson(plan, graph), graph);
  ASSERT_TRUE(reread.ok()) << reread.status();
  EXPECT_EQ(reread->digest, plan.digest);
  ++tally->ran;
  if (!done->insert(BoundsOf(plan)).second) return;
  ++tally->distinct;
  EXPECT_EQ(Check(item, graph, reread->stages, item.runs.size()), "") << plan::ToText(plan, graph);
}

Tally CheckCase(const Case& item, const stage::Model& model) {
  Tally tally;
  Planner planner(item, model);
  std::set<std::vector<int>> done;
  for (int stages = 1; stages <= kMostStages; ++stages)
    for (const char* policy : kPolicies) {
      SCOPED_TRACE(absl::StrCat(policy, ", ", stages, " stages"));
      if (stages > planner.cuts() + 1) {
        const auto refused = planner.Make({.stages = stages, .policy = "balanced"});
        EXPECT_FALSE(refused.ok());
        EXPECT_THAT(std::string(refused.status().message()),
                    HasSubstr(absl::StrCat("use at most --stages ", planner.cuts() + 1)));
        ++tally.refused;
        continue;
      }
      const std::optional<plan::Options> options = planner.OptionsFor(policy, stages);
      if (!options) {
        ++tally.skipped;
        continue;
      }
      const auto plan = planner.Make(*options);
      EXPECT_TRUE(plan.ok()) << plan.status();
      if (plan.ok()) CheckPlan(item, model.graph, *plan, &done, &tally);
    }
  return tally;
}

TEST(Plans, OfEveryPolicyGiveEagersAnswers) {
  Tally sum;
  std::printf("%-28s %5s %5s %5s %8s %7s %7s\n", "case", "nodes", "cuts", "plans", "distinct",
              "skipped", "refused");
  for (const Case& item : Cases()) {
    SCOPED_TRACE(item.name);
    const auto model = stage::OpenModel(item.model);
    EXPECT_TRUE(model.ok()) << model.status();
    if (!model.ok()) continue;
    const Tally tally = CheckCase(item, *model);
    std::printf("%-28s %5zu %5zu %5d %8d %7d %7d\n", item.name.c_str(), model->graph.nodes.size(),
                plan::LegalCuts(model->graph, model->schemas).size(), tally.ran, tally.distinct,
                tally.skipped, tally.refused);
    sum.ran += tally.ran, sum.distinct += tally.distinct, sum.skipped += tally.skipped,
        sum.refused += tally.refused;
  }
  std::printf("%-28s %5s %5s %5d %8d %7d %7d\n", "all", "", "", sum.ran, sum.distinct, sum.skipped,
              sum.refused);
}

}  // namespace
}  // namespace echelon::oracle
