#include "operator/render/deployment_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace echelon::op {
namespace {

constexpr char kNet[] =
    "apiVersion: echelon.dev/v1alpha1\nkind: PipelineDeployment\nmetadata: {name: net}\n"
    "spec: {model: {source: {type: PVC, pvc: {claimName: m}}, path: net.pt2}}\n";

std::string Error(const std::string& text) {
  return std::string(DeploymentsIn(text, "f.yaml").status().message());
}

TEST(DeploymentFile, GivesEveryDeploymentAndNothingElse) {
  const auto found = DeploymentsIn(std::string("kind: PersistentVolumeClaim\n---\n") + kNet +
                                       "---\nkind: List\nitems: []\n" + "---\n" + kNet,
                                   "f.yaml");
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->size(), 2);
  EXPECT_EQ(found->at(0).name, "net");
  EXPECT_EQ(found->at(0).ns, "default");
}

TEST(DeploymentFile, LooksIntoLists) {
  const auto found = DeploymentsIn(
      R"({"kind": "List", "items": [{"kind": "PipelineDeployment", "metadata": {"name": "a"}}]})",
      "f.json");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->at(0).invalid_message, "spec.model is missing");
}

TEST(DeploymentFile, NamesTheFileAndWhatIsWrong) {
  EXPECT_EQ(Error("a: [1"), "f.yaml: line 1, column 1: end of sequence flow not found");
  EXPECT_EQ(Error("kind: Pod"), "f.yaml: holds no object of kind PipelineDeployment");
  EXPECT_EQ(Error(""), "f.yaml: holds no object of kind PipelineDeployment");
  EXPECT_EQ(Error("a: 1"),
            "f.yaml: holds something that is no object of Kubernetes: it has no kind");
  EXPECT_EQ(Error(std::string(kNet) + "  \n---\nkind: PipelineDeployment"),
            "f.yaml: the object has no metadata.name");
  EXPECT_EQ(Error("kind: PipelineDeployment\nmetadata: {name: net}\nspec: {replica: 2}"),
            "f.yaml: net: there is no field spec.replica");
  EXPECT_EQ(ReadDeploymentFile("no/such.yaml").status().message(),
            "no/such.yaml: cannot be read: No such file or directory");
}

}  // namespace
}  // namespace echelon::op
