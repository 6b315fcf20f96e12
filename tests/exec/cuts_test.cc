// Every cut that the planner calls legal changes no result.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "runtime/stage/model.h"
#include "tests/exec/oracle.h"

namespace echelon::oracle {
namespace {

constexpr size_t kMostCuts = 60;  // of a graph: more are sampled evenly
constexpr size_t kRuns = 2;       // of a case without state: a batch and a single row

std::vector<int> Sample(const std::vector<int>& cuts) {
  if (cuts.size() <= 200) return cuts;
  std::vector<int> sample;
  for (size_t i = 0; i < kMostCuts; ++i)
    sample.push_back(cuts[i * (cuts.size() - 1) / (kMostCuts - 1)]);
  return sample;
}

TEST(Cuts, ThatAreLegalChangeNothingOneByOne) {
  size_t tried = 0;
  for (const Case& item : Cases()) {
    SCOPED_TRACE(item.name);
    const auto model = stage::OpenModel(item.model);
    EXPECT_TRUE(model.ok()) << model.status();
    if (!model.ok()) continue;
    const graph::Graph& graph = model->graph;
    const int nodes = static_cast<int>(graph.nodes.size());
    for (const int cut : Sample(plan::LegalCuts(graph, model->schemas))) {
      EXPECT_EQ(Check(item, graph, StagesOf(graph, {0, cut, nodes}), kRuns), "")
          << "cut before node " << cut << " " << graph.nodes[cut].name;
      ++tried;
    }
  }
  std::printf("%zu cuts\n", tried);
}

// All of them at once: a stage for each stretch that cannot be cut.
TEST(Cuts, ThatAreLegalChangeNothingTogether) {
  for (const Case& item : Cases()) {
    SCOPED_TRACE(item.name);
    const auto model = stage::OpenModel(item.model);
    if (!model.ok()) continue;  // said above
    std::vector<int> bounds = plan::LegalCuts(model->graph, model->schemas);
    bounds.insert(bounds.begin(), 0);
    bounds.push_back(static_cast<int>(model->graph.nodes.size()));
    EXPECT_EQ(Check(item, model->graph, StagesOf(model->graph, bounds), item.runs.size()), "");
  }
}

// The rules are there for something: some of the cuts they forbid do change answers.
TEST(Cuts, ThatAreForbiddenWouldChangeAnswers) {
  int forbidden = 0, wrong = 0;
  for (const Case& item : Cases()) {
    const auto model = stage::OpenModel(item.model);
    if (!model.ok()) continue;  // said above
    const std::vector<int> legal = plan::LegalCuts(model->graph, model->schemas);
    const int nodes = static_cast<int>(model->graph.nodes.size());
    for (int cut = 1; cut < nodes; ++cut) {
      if (std::binary_search(legal.begin(), legal.end(), cut)) continue;
      ++forbidden;
      wrong += !Check(item, model->graph, StagesOf(model->graph, {0, cut, nodes}), kRuns).empty();
    }
  }
  std::printf("%d of %d forbidden cuts change answers\n", wrong, forbidden);
  EXPECT_GT(wrong, 0);
}

}  // namespace
}  // namespace echelon::oracle
