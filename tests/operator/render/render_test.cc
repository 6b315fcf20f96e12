#include "operator/render/render.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/render/deployment_file.h"

namespace echelon::op {
namespace {

using nlohmann::json;

Deployment Read(const std::string& spec) {
  return DeploymentsIn(
             "apiVersion: echelon.dev/v1alpha1\nkind: PipelineDeployment\nmetadata: {name: net}\n"
             "spec:\n  model: {source: {type: PVC, pvc: {claimName: m}}, path: net.pt2}\n" +
                 spec,
             "test")
      .value()
      .at(0);
}

Revision Of(const Deployment& d) { return MakeRevision(d.spec, "runtime:1", "exporter:1"); }

std::string Runs(const std::string& overrides) {
  std::string text;
  for (const Run& run :
       EqualRuns(Read("  parallelism: {stages: 6}\n  overrides: " + overrides).spec))
    text += (text.empty() ? "" : " ") + std::to_string(run.first) + "+" + std::to_string(run.count);
  return text;
}

TEST(EqualRuns, JoinRanksWhosePodsAreEqual) {
  EXPECT_EQ(Runs("[]"), "0+6");
  EXPECT_EQ(Runs("[{name: a, firstRank: 2, count: 2, nodeSelector: {a: b}}]"), "0+2 2+2 4+2");
  EXPECT_EQ(Runs("[{name: a, firstRank: 0, nodeSelector: {a: b}},"
                 " {name: b, firstRank: 1, count: 5, nodeSelector: {a: b}}]"),
            "0+6");
  EXPECT_EQ(Runs("[{name: a, firstRank: 3, memory: 1Gi, speed: 2}]"), "0+6");
}

TEST(Revision, ChangesWithWhatPodsAreMadeFrom) {
  const std::string before = Of(Read("")).hash;
  EXPECT_EQ(before.size(), 8);
  EXPECT_EQ(Of(Read("  replicas: 4")).hash, before);
  EXPECT_EQ(Of(Read("  parallelism: {stages: 1}")).hash, before);
  EXPECT_NE(Of(Read("  parallelism: {stages: 2}")).hash, before);
  EXPECT_NE(MakeRevision(Read("").spec, "runtime:2", "exporter:1").hash, before);
}

TEST(Revision, ComesBackFromItsRecord) {
  const Deployment d = Read("  parallelism: {stages: 2}");
  const Revision revision = Of(d);
  const Revision again =
      RevisionFromData(json::parse(ControllerRevision(d, revision, 1)["data"].dump()));
  EXPECT_EQ(again.hash, revision.hash);
  EXPECT_EQ(again.image, "runtime:1");
  EXPECT_EQ(again.exporter_image, "exporter:1");
}

TEST(Revision, TakesTheImageOfTheTemplate) {
  const Deployment d =
      Read("  template: {spec: {containers: [{name: a, image: b}, {name: stage, image: mine:1}]}}");
  EXPECT_EQ(Of(d).image, "mine:1");
}

TEST(StatefulSet, OfAnOlderRevisionIsMadeFromThatOne) {
  const Deployment before = Read("  parallelism: {stages: 2}");
  const Deployment now = Read("  parallelism: {stages: 5}\n  failurePolicy: {nodeLossSeconds: 77}");
  const json set = StatefulSet(now, Of(before), 0, {.first = 0, .count = 2}).value();
  EXPECT_THAT(
      set["spec"]["template"]["spec"]["containers"][0]["args"].get<std::vector<std::string>>(),
      testing::Contains("--world=2"));
  EXPECT_EQ(set["spec"]["template"]["spec"]["tolerations"][0]["tolerationSeconds"], 77);
}

TEST(Names, AreMadeOfRevisionGroupAndFirstRank) {
  const Deployment d = Read(
      "  parallelism: {stages: 4}\n"
      "  overrides: [{name: a, firstRank: 2, count: 2, nodeSelector: {a: b}}]");
  const Revision revision = Of(d);
  EXPECT_EQ(SetName(d, revision, 1, 2), "net-" + revision.hash6() + "-1-2");
  EXPECT_EQ(PodName(d, revision, 1, 3), "net-" + revision.hash6() + "-1-2-3");
  EXPECT_EQ(PodName(d, revision, 0, 1), "net-" + revision.hash6() + "-0-0-1");
  EXPECT_EQ(JobName(d, revision), "net-" + revision.hash + "-export");
}

TEST(Names, OfTheLongestDeploymentFitALabel) {
  Deployment d = Read(
      "  parallelism: {stages: 512}\n"
      "  overrides: [{name: a, firstRank: 511, nodeSelector: {a: b}}]");
  d.name = std::string(kMaxNameLength, 'a');
  EXPECT_LE(PodName(d, Of(d), 999, 511).size(), 63);
  // A StatefulSet's pods carry its name and a hash of up to ten digits in a label.
  EXPECT_LE(SetName(d, Of(d), 999, 511).size() + 11, 63);
}

TEST(ExportedPath, NamesAllThatAnExportDependsOn) {
  Model model;
  model.path = "a/llama";
  const std::string path = ExportedPath(model);
  EXPECT_THAT(path, testing::MatchesRegex("a/llama/\\.echelon/[0-9a-f]{8}\\.pt2"));
  model.dtype = "bf16";
  EXPECT_NE(ExportedPath(model), path);
  model.path = "a/net.pt2";
  EXPECT_EQ(ExportedPath(model), "");
}

TEST(ExportJob, TakesItsContainerAndWhereItRunsFromTheTemplate) {
  Deployment d = Read(R"(
  template:
    metadata: {annotations: {gke-gcsfuse/volumes: "true", sidecar.istio.io/inject: "true"}}
    spec:
      serviceAccountName: reader
      hostNetwork: true
      affinity: {nodeAffinity: {a: b}, podAntiAffinity: {c: d}}
      securityContext: {fsGroup: 7}
      containers:
      - {name: stage, resources: {limits: {memory: 9Gi}}}
      - {name: export, resources: {requests: {memory: 8Gi}}}
      - {name: proxy, image: p})");
  d.spec.model.path = "llama";
  const json pods = ExportJob(d, Of(d)).value()["spec"]["template"];
  EXPECT_EQ(pods["metadata"]["annotations"], json({{"gke-gcsfuse/volumes", "true"}}));
  EXPECT_EQ(pods["spec"]["affinity"], json({{"nodeAffinity", {{"a", "b"}}}}));
  EXPECT_EQ(pods["spec"]["serviceAccountName"], "reader");
  EXPECT_FALSE(pods["spec"].contains("hostNetwork"));
  EXPECT_EQ(pods["spec"]["securityContext"]["fsGroup"], 7);
  EXPECT_EQ(pods["spec"]["securityContext"]["runAsNonRoot"], true);
  ASSERT_EQ(pods["spec"]["containers"].size(), 1);
  EXPECT_EQ(pods["spec"]["containers"][0]["resources"]["requests"]["memory"], "8Gi");

  const json set = StatefulSet(d, Of(d), 0, {.first = 0, .count = 2}).value();
  std::vector<std::string> names;
  for (const json& container : set["spec"]["template"]["spec"]["containers"])
    names.push_back(container["name"]);
  EXPECT_THAT(names, testing::ElementsAre("stage", "proxy"));
}

TEST(Applied, ChangesOnlyWithTheObject) {
  const auto applied = [](const json& object) {
    return object["metadata"]["annotations"]["echelon.dev/applied"];
  };
  const Deployment d = Read("");
  EXPECT_EQ(applied(HeadService(d)), applied(HeadService(Read("  replicas: 9"))));
  EXPECT_NE(applied(HeadService(d)), applied(HeadService(Read("  service: {type: NodePort}"))));
  EXPECT_EQ(applied(HeadService(d)),
            applied(HeadService(Read("  service: {annotations: {echelon.dev/applied: x}}"))));
}

TEST(Objects, BelongToTheDeployment) {
  Deployment d = Read("");
  d.uid = "u-1";
  for (const json& object : {HeadService(d), RanksService(d), DisruptionBudget(d), NetworkPolicy(d),
                             *ExportJob(d, Of(d))}) {
    const json& owner = object["metadata"]["ownerReferences"][0];
    EXPECT_EQ(owner["uid"], "u-1");
    EXPECT_EQ(owner["controller"], true);
    EXPECT_EQ(object["metadata"]["labels"]["echelon.dev/deployment"], "net");
  }
}

}  // namespace
}  // namespace echelon::op
