// A stage of a model of 1 GB reads and keeps its own weights, not more.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "runtime/stage/model.h"
#include "tests/exec/oracle.h"

namespace echelon::oracle {
namespace {

constexpr uint64_t kBaseBytes =
    16 << 20;  // what loading leaves behind besides the weights: threads, compiled nodes

uint64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

void CheckStage(const graph::Graph& graph, const plan::Stage& stage) {
  const auto weight_bytes = static_cast<uint64_t>(stage.weight_bytes);
  const uint64_t before = ResidentBytes();
  const auto source = weights::LocalFiles();
  const auto module = exec::LoadStage(graph, stage, *source, {});
  ASSERT_TRUE(module.ok()) << module.status();
  const uint64_t resident = ResidentBytes() - before;
  std::printf("stage %d: weights %.1f MB, read %.1f MB, resident %.1f MB\n", stage.rank,
              weight_bytes / 1e6, source->bytes_read() / 1e6, resident / 1e6);
  EXPECT_LE(source->bytes_read(), weight_bytes + weight_bytes / 20);
  EXPECT_GE(source->bytes_read(), weight_bytes);
  EXPECT_LE(resident, weight_bytes + weight_bytes / 20 + kBaseBytes);
}

TEST(Big, StagesReadAndKeepTheirOwnWeightsAlone) {
  const auto item = ReadCase("big");
  if (absl::IsNotFound(item.status())) GTEST_SKIP() << "made by tests/oracle/make_models.py --big";
  ASSERT_TRUE(item.ok()) << item.status();
  const auto model = stage::OpenModel(item->model);
  ASSERT_TRUE(model.ok()) << model.status();
  for (const int stages : {2, 4}) {
    const auto plan = plan::MakePlan(model->graph, model->schemas, {.stages = stages});
    ASSERT_TRUE(plan.ok()) << plan.status();
    for (const plan::Stage& stage : plan->stages) CheckStage(model->graph, stage);
    exec::SetThreads(1);
    EXPECT_EQ(Check(*item, model->graph, plan->stages, item->runs.size()), "")
        << stages << " stages";
  }
}

}  // namespace
}  // namespace echelon::oracle
