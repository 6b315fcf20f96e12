// Every model of the oracle gives, with its linear layers packed, what eager PyTorch gives within
// 1e-5, in one stage and in several.
#include <gtest/gtest.h>

#include "runtime/stage/model.h"
#include "tests/exec/oracle.h"

namespace echelon::oracle {
namespace {

TEST(Packed, ModelsAnswerAsEagerDoes) {
  // As served; and with the smallest layers packed too, whose weights are drawn without a scale.
  for (const auto& [least, tolerance] :
       {std::pair{exec::LoadOptions().least_packed_elements, 1e-5}, {int64_t{1}, 1e-4}})
    for (const Case& item : Cases()) {
      SCOPED_TRACE(item.name);
      const exec::LoadOptions packed{.threads = 1, .least_packed_elements = least};
      const auto model = stage::OpenModel(item.model);
      ASSERT_TRUE(model.ok()) << model.status();
      const int nodes = static_cast<int>(model->graph.nodes.size());
      const auto cuts = plan::LegalCuts(model->graph, model->schemas);
      std::vector<std::vector<int>> all_bounds{{0, nodes}};
      if (!cuts.empty()) all_bounds.push_back({0, cuts[cuts.size() / 2], nodes});
      for (const auto& bounds : all_bounds) {
        auto pipeline = Pipeline::Load(model->graph, StagesOf(model->graph, bounds), packed);
        ASSERT_TRUE(pipeline.ok()) << pipeline.status();
        for (const oracle::Run& run : item.runs) {
          const auto got = pipeline->Run(run.inputs);
          ASSERT_TRUE(got.ok()) << got.status();
          EXPECT_EQ(Difference(run.outputs, *got, false, std::max(item.tolerance, tolerance)), "");
        }
      }
    }
}

}  // namespace
}  // namespace echelon::oracle
