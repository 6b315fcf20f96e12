#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/api/yaml.h"
#include "operator/render/render.h"

namespace echelon::op {
namespace {

using nlohmann::json;

json Ours() {
  return ParseYaml(R"(
    metadata: {labels: {echelon.dev/group: "0"}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 45
      tolerations: [{key: lost, operator: Exists}]
      topologySpreadConstraints: [{topologyKey: a}]
      volumes: [{name: model, emptyDir: {}}, {name: tmp, emptyDir: {}}]
      containers:
      - name: stage
        image: ours
        args: [m.pt2, --world=2]
        env: [{name: RANK, value: "0"}]
        ports: [{name: http, containerPort: 8000}]
        volumeMounts: [{name: model, mountPath: /model}]
        securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}
        readinessProbe: {grpc: {port: 8003}, periodSeconds: 1}
  )")
      .value()
      .at(0);
}

// The merged template, or the error.
json Merge(const std::string& users) {
  const absl::StatusOr<json> merged = MergeTemplate(ParseYaml(users).value().at(0), Ours());
  return merged.ok() ? *merged : json(std::string(merged.status().message()));
}
json Stage(const std::string& fields) {
  const json merged = Merge("spec: {containers: [{name: stage, " + fields + "}]}");
  return merged.is_string() ? merged : merged["spec"]["containers"][0];
}

TEST(MergeTemplate, LeavesOursAloneWhereThereIsNothingToMerge) {
  EXPECT_EQ(MergeTemplate(nullptr, Ours()).value(), Ours());
  EXPECT_EQ(Merge("{}"), Ours());
  EXPECT_EQ(Merge("spec: {containers: [{name: stage}]}"), Ours());
}

TEST(MergeTemplate, LetsUsersChoose) {
  const json merged = Merge(
      "spec: {automountServiceAccountToken: true, serviceAccountName: me, nodeSelector: {a: b}}");
  EXPECT_EQ(merged["spec"]["automountServiceAccountToken"], true);
  EXPECT_EQ(merged["spec"]["serviceAccountName"], "me");
  EXPECT_EQ(merged["spec"]["nodeSelector"], json({{"a", "b"}}));
  EXPECT_EQ(Stage("image: theirs")["image"], "theirs");
  EXPECT_EQ(Stage("securityContext: {readOnlyRootFilesystem: false}")["securityContext"].dump(),
            R"({"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":false})");
  EXPECT_EQ(Stage("readinessProbe: {periodSeconds: 5}")["readinessProbe"].dump(),
            R"({"grpc":{"port":8003},"periodSeconds":5})");
}

TEST(MergeTemplate, AddsToListsByTheirKeys) {
  EXPECT_EQ(Stage("args: [--exact]")["args"].dump(), R"(["m.pt2","--world=2","--exact"])");
  EXPECT_EQ(Stage("env: [{name: A, value: b}]")["env"].dump(),
            R"([{"name":"RANK","value":"0"},{"name":"A","value":"b"}])");
  const json merged =
      Merge("spec: {containers: [{name: side, args: [a]}], initContainers: [{name: first}]}");
  EXPECT_EQ(merged["spec"]["containers"][1].dump(), R"({"args":["a"],"name":"side"})");
  EXPECT_EQ(merged["spec"]["initContainers"].size(), 1);
}

TEST(MergeTemplate, TakesAVolumeOrAnEnvWhole) {
  const json merged = Merge("spec: {volumes: [{name: tmp, hostPath: {path: /scratch}}]}");
  EXPECT_EQ(merged["spec"]["volumes"][1].dump(),
            R"({"hostPath":{"path":"/scratch"},"name":"tmp"})");
}

TEST(MergeTemplate, PutsTheUsersTolerationInPlaceOfOursOfTheSameTaint) {
  EXPECT_EQ(Merge("spec: {tolerations: [{key: gpu}]}")["spec"]["tolerations"].size(), 2);
  EXPECT_EQ(Merge("spec: {tolerations: [{key: lost, tolerationSeconds: 9}]}")["spec"]["tolerations"]
                .dump(),
            R"([{"key":"lost","tolerationSeconds":9}])");
}

TEST(MergeTemplate, PutsTheUsersSpreadInPlaceOfOurs) {
  EXPECT_EQ(Merge("spec: {topologySpreadConstraints: []}")["spec"]["topologySpreadConstraints"],
            json::array());
}

TEST(MergeTemplate, RemovesWhatIsNull) {
  EXPECT_FALSE(Merge("spec: {tolerations: null}")["spec"].contains("tolerations"));
  EXPECT_FALSE(Stage("securityContext: {readOnlyRootFilesystem: null}")["securityContext"].contains(
      "readOnlyRootFilesystem"));
}

TEST(MergeTemplate, NamesTheFieldThatIsTheOperatorsAlone) {
  const std::string stage = "template.spec.containers[stage]";
  for (const auto& [fields, message] : std::vector<std::pair<std::string, std::string>>{
           {"env: [{name: RANK, value: '1'}]", ".env[RANK] is the operator's; leave it out"},
           {"args: [--world=3]", ".args: --world is the operator's; leave it out"},
           {"args: [3]", ".args must be a list of strings"},
           {"ports: [{containerPort: 8000}]", ".ports[8000] is the operator's; leave it out"},
           {"ports: [{name: http, containerPort: 1}]",
            ".ports[http] is the operator's; leave it out"},
           {"volumeMounts: [{name: a, mountPath: /model}]",
            ".volumeMounts[/model] is the operator's; leave it out"},
           {"readinessProbe: {exec: {command: [a]}}",
            ".readinessProbe.exec is the operator's; leave it out"},
           {"readinessProbe: null", ".readinessProbe is the operator's; leave it out"},
           {"terminationMessagePath: /a",
            ".terminationMessagePath is the operator's; leave it out"}})
    EXPECT_EQ(Stage(fields), stage + message);
  for (const auto& [users, message] : std::vector<std::pair<std::string, std::string>>{
           {"metadata: {labels: {echelon.dev/group: '1'}}",
            "template.metadata.labels[echelon.dev/group] is the operator's; leave it out"},
           {"metadata: {name: a}",
            "template.metadata.name cannot be set; of a pod's metadata only labels and annotations "
            "can"},
           {"containers: []",
            "template.containers is no field of a pod template; it has metadata and spec"},
           {"spec: {terminationGracePeriodSeconds: 1}",
            "template.spec.terminationGracePeriodSeconds follows from rollout.drainSeconds; set "
            "that one"},
           {"spec: {hostname: a}", "template.spec.hostname is the operator's; leave it out"},
           {"spec: {volumes: [{name: model, emptyDir: {}}]}",
            "template.spec.volumes[model] is the operator's; leave it out"},
           {"spec: {containers: null}",
            "template.spec.containers is the operator's; leave it out"}})
    EXPECT_EQ(Merge(users), message);
}

TEST(MergeTemplate, SaysWhatOfTheExportCanBeSet) {
  EXPECT_EQ(Merge("spec: {containers: [{name: export, resources: {limits: {memory: 9Gi}}}]}"),
            Ours());
  EXPECT_EQ(Merge("spec: {containers: [{name: export, args: [x]}]}"),
            "template.spec.containers[export].args cannot be set; of the export Job's container "
            "only env, image, imagePullPolicy, resources can");
}

TEST(MergeTemplate, SaysWhatHasTheWrongShape) {
  for (const auto& [users, message] : std::vector<std::pair<std::string, std::string>>{
           {"[]", "template must be an object with fields"},
           {"spec: 1", "template.spec must be an object with fields"},
           {"spec: {containers: {name: stage}}", "template.spec.containers must be a list"},
           {"spec: {containers: [stage]}", "template.spec.containers must be a list of objects"},
           {"spec: {containers: [{image: a}]}",
            "template.spec.containers has an item without name"},
           {"spec: {containers: [{name: stage}, {name: stage}]}",
            "template.spec.containers[stage] is there twice"},
           {"spec: {containers: [{name: stage, env: {A: b}}]}",
            "template.spec.containers[stage].env must be a list"},
           {"metadata: {labels: a}", "template.metadata.labels must be an object with fields"}})
    EXPECT_EQ(Merge(users), message);
}

}  // namespace
}  // namespace echelon::op
