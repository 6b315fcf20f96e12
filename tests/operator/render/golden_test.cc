// All that a deployment comes to, beside what it came to before: cases/*.yaml and golden/*.json,
// which UPDATE=1 writes again. The API server sees the same files (tests/operator/crd).
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "operator/render/deployment_file.h"
#include "operator/render/render.h"

namespace echelon::op {
namespace {

using nlohmann::json;

json Everything(const Deployment& d) {
  const Revision revision = MakeRevision(d.spec, "echelon/runtime:1", "echelon/exporter:1");
  json items{HeadService(d), RanksService(d), DisruptionBudget(d), NetworkPolicy(d),
             ControllerRevision(d, revision, 1)};
  if (d.spec.model.is_directory()) items.push_back(ExportJob(d, revision).value());
  for (const Run& run : EqualRuns(d.spec)) {
    const absl::StatusOr<json> set = StatefulSet(d, revision, 0, run);
    EXPECT_TRUE(set.ok()) << set.status();
    items.push_back(set.value_or(json()));
  }
  return {{"apiVersion", "v1"}, {"kind", "List"}, {"items", std::move(items)}};
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, IsRenderedAsBefore) {
  const std::string folder = ECHELON_RENDER_TESTS, name = GetParam();
  const auto deployments = ReadDeploymentFile(folder + "/cases/" + name + ".yaml");
  ASSERT_TRUE(deployments.ok()) << deployments.status();
  ASSERT_EQ(deployments->at(0).invalid_message, "");
  const std::string rendered = Everything(deployments->at(0)).dump(2) + "\n";
  const std::string golden = folder + "/golden/" + name + ".json";
  if (std::getenv("UPDATE") != nullptr) std::ofstream(golden) << rendered;
  std::stringstream expected;
  expected << std::ifstream(golden).rdbuf();
  EXPECT_EQ(rendered, expected.str()) << "if this is meant, run again with UPDATE=1";
}

INSTANTIATE_TEST_SUITE_P(Cases, Golden, testing::Values("net", "mixed", "directory"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace echelon::op
