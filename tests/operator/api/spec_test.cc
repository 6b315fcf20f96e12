#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "operator/api/deployment.h"
#include "operator/api/yaml.h"

namespace echelon::op {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

// The object with this spec, as YAML.
json Object(const std::string& spec, const std::string& name = "net") {
  json object = ParseYaml(spec).value().at(0);
  return {{"apiVersion", "echelon.dev/v1alpha1"},
          {"kind", "PipelineDeployment"},
          {"metadata", {{"name", name}, {"namespace", "default"}}},
          {"spec", std::move(object)}};
}

constexpr char kModel[] = "model: {source: {type: PVC, pvc: {claimName: m}}, path: a/net.pt2}\n";

Deployment Read(const std::string& rest, const std::string& name = "net") {
  return FromJson(Object(kModel + rest, name)).value();
}

TEST(SpecFromJson, ReadsTheObjectsIdentity) {
  json object = Object(kModel);
  object["metadata"] = {{"name", "net"},   {"namespace", "prod"},
                        {"uid", "u-1"},    {"resourceVersion", "77"},
                        {"generation", 3}, {"deletionTimestamp", "2026-01-01T00:00:00Z"}};
  object["status"] = {{"replicas", 2}};
  const Deployment d = FromJson(object).value();
  EXPECT_EQ(d.ns, "prod");
  EXPECT_EQ(d.name, "net");
  EXPECT_EQ(d.uid, "u-1");
  EXPECT_EQ(d.resource_version, "77");
  EXPECT_EQ(d.generation, 3);
  EXPECT_TRUE(d.deleting);
  EXPECT_EQ(d.status.replicas, 2);
  EXPECT_EQ(d.invalid_reason, "");
}

TEST(SpecFromJson, RefusesWhatIsNoPipelineDeployment) {
  json object = Object(kModel);
  object["kind"] = "Pod";
  EXPECT_EQ(FromJson(object).status().message(), "kind Pod is no PipelineDeployment");
  object = Object(kModel);
  object["apiVersion"] = "echelon.dev/v2";
  EXPECT_THAT(FromJson(object).status().message(), HasSubstr("which this operator knows"));
  object = Object(kModel);
  object["metadata"].erase("name");
  EXPECT_EQ(FromJson(object).status().message(), "the object has no metadata.name");
  EXPECT_FALSE(FromJson(json::array()).ok());
}

TEST(SpecFromJson, ReadsEveryField) {
  const std::string spec = R"(
    replicas: 3
    suspend: true
    model:
      source: {type: Image, image: {reference: "models/net:1", pullPolicy: Always}}
      path: a/net.pt2
      revision: v2
    parallelism: {stages: 4, policy: equal-size, chunks: 8, ranksPerPod: 1}
    overrides:
    - name: big
      firstRank: 1
      count: 2
      resources: {limits: {cpu: 2}}
      memory: 24Gi
      speed: 2.5
      nodeSelector: {pool: big}
      tolerations: [{operator: Exists}]
      template: {spec: {priorityClassName: high}}
    template: {metadata: {labels: {team: a}}}
    scheduling: {gang: None, timeoutSeconds: 60, topologyKey: zone}
    startup: {noProgressSeconds: 30}
    failurePolicy: {onRankFailure: RestartGroup, maxRestarts: 1, windowSeconds: 2, nodeLossSeconds: 3, spares: 0}
    rollout: {maxSurge: 2, maxUnavailable: 1, drainSeconds: 4, progressDeadlineSeconds: 50}
    service: {type: LoadBalancer, ports: [{name: grpc, port: 80}], annotations: {a: b}}
    observability: {podMonitor: false}
  )";
  const json object = Object(spec);
  const Deployment d = FromJson(object).value();
  EXPECT_EQ(d.invalid_message, "");
  EXPECT_EQ(ToJson(d.spec), object["spec"]);
  EXPECT_THAT(UnknownFields(object), ElementsAre());
}

TEST(SpecFromJson, NamesUnknownFields) {
  EXPECT_THAT(UnknownFields(Object(std::string(kModel) + "parallelism: {stages: 2, stage: 3}\n" +
                                   "overrides: [{name: a, firstRank: 0, cont: 2}]\nreplica: 2")),
              testing::UnorderedElementsAre("spec.parallelism.stage", "spec.overrides[0].cont",
                                            "spec.replica"));
}

struct Refusal {
  const char *rest, *reason, *message;
};

TEST(SpecFromJson, SaysWhyAnObjectCannotBeServed) {
  for (const Refusal& want : std::vector<Refusal>{
           {"replicas: two", "InvalidSpec",
            "spec.replicas is \"two\"; it must be an integer from 0 to 256"},
           {"replicas: 1.5", "InvalidSpec", "it must be an integer"},
           {"replicas: 18446744073709551615", "InvalidSpec", "it must be an integer"},
           {"suspend: 'no'", "InvalidSpec", "true or false"},
           {"parallelism: 4", "InvalidSpec", "spec.parallelism is 4; it must be an object"},
           {"parallelism: {policy: fast}", "InvalidSpec", "one of balanced, equal-size"},
           {"parallelism: {stages: 0}", "NotSupported", "stages 0 (automatic)"},
           {"parallelism: {ranksPerPod: 2}", "NotSupported", "ranksPerPod"},
           {"scheduling: {gang: Workload}", "NotSupported", "gang"},
           {"failurePolicy: {spares: 1}", "NotSupported", "spares"},
           {"observability: {podMonitor: true}", "NotSupported", "podMonitor"},
           {"overrides: [{name: a, firstRank: 1}]", "InvalidOverrides",
            "override a is for ranks 1 to 1, but ranks go from 0 to 0"},
           {"overrides: [{name: a, firstRank: 0}, {name: b, firstRank: 0}]", "InvalidOverrides",
            "overrides a and b both cover rank 0"},
           {"overrides: [{name: a, firstRank: 0}, {name: a, firstRank: 1}]\n"
            "parallelism: {stages: 2}",
            "InvalidOverrides", "two overrides are called a"},
           {"overrides: [{name: a, firstRank: 0, memory: lots}]", "InvalidOverrides",
            "override a: memory 'lots' is no size"},
           {"overrides: [{name: a, firstRank: 0, nodeSelector: {a: 1}}]", "InvalidSpec",
            "spec.overrides[0].nodeSelector is {\"a\":1}; it must be an object of strings"},
           {"overrides: [{firstRank: 0}]", "InvalidSpec", "spec.overrides[0].name is missing"},
           {"rollout: {maxSurge: 0}", "InvalidSpec", "maxSurge or maxUnavailable"},
           {"service: {ports: []}", "InvalidSpec", "ports is empty"},
           {"service: {ports: [{name: http, port: 1}, {name: grpc, port: 1}]}", "InvalidSpec",
            "different ports"},
           {"template: []", "InvalidSpec", "spec.template is []; it must be an object"}}) {
    SCOPED_TRACE(want.rest);
    const Deployment d = Read(want.rest);
    EXPECT_EQ(d.invalid_reason, want.reason);
    EXPECT_THAT(d.invalid_message, HasSubstr(want.message));
  }
}

// As the definition counts: an object that the API server takes is not refused here for its bytes.
TEST(SpecFromJson, CountsCharactersAndNotBytes) {
  std::string umlauts;
  for (int i = 0; i < 63; ++i) umlauts += "\u00fc";
  const std::string rest = ", firstRank: 0}]";
  EXPECT_EQ(Read("overrides: [{name: " + umlauts + rest).invalid_message, "");
  EXPECT_THAT(Read("overrides: [{name: " + umlauts + "x" + rest).invalid_message,
              HasSubstr("at most 63 characters long"));
}

TEST(SpecFromJson, SaysWhatIsWrongWithTheModel) {
  const std::string pvc = "source: {type: PVC, pvc: {claimName: m}}";
  for (const Refusal& want : std::vector<Refusal>{
           {"path: /net.pt2", "BadPath", "leave out the leading '/'"},
           {"path: a/../net.pt2", "BadPath", "must not contain '.' or '..'"},
           {"path: a//net.pt2", "BadPath", "empty part"},
           {"path: a/", "BadPath", "empty part"},
           {"path: ''", "BadPath", "is empty"},
           {"path: $(POD_IP).pt2", "BadPath", "letters, digits"},
           {"path: a/.pt2", "BadPath", "names no file"},
           {"path: net.pt2, dtype: bf16", "InvalidSpec", "belong to Hugging Face directories"},
           {"path: net.pt2, digest: 'sha256:00'", "NotSupported", "digest is not verified"},
           {"path: net.pt2, secretRef: {name: s}", "NotSupported", "secretRef"}}) {
    SCOPED_TRACE(want.rest);
    const Deployment d = FromJson(Object("model: {" + pvc + ", " + want.rest + "}")).value();
    EXPECT_EQ(d.invalid_reason, want.reason);
    EXPECT_THAT(d.invalid_message, HasSubstr(want.message));
  }
  for (const Refusal& want : std::vector<Refusal>{
           {"type: PVC", "InvalidSpec", "spec.model.source.pvc goes with type PVC"},
           {"type: PVC, pvc: {}", "InvalidSpec", "claimName is missing"},
           {"type: PVC, pvc: {claimName: m}, image: {reference: i}", "InvalidSpec",
            "spec.model.source.image goes with type Image"},
           {"pvc: {claimName: m}", "InvalidSpec", "type is missing"},
           {"type: HostPath, hostPath: {path: a}", "InvalidSpec", "absolute path"},
           {"type: HostPath, hostPath: {path: /a/..}", "InvalidSpec", "absolute path"},
           {"type: Image, image: {reference: i}", "NotSupported", "an image is read-only"},
           {"type: HTTPS, https: {url: 'https://a'}", "NotSupported", "HTTPS is not built yet"}}) {
    SCOPED_TRACE(want.rest);
    const Deployment d =
        FromJson(Object(std::string("model: {path: llama, source: {") + want.rest + "}}")).value();
    EXPECT_EQ(d.invalid_reason, want.reason);
    EXPECT_THAT(d.invalid_message, HasSubstr(want.message));
  }
}

TEST(SpecFromJson, RefusesNamesThatMakeNoPods) {
  EXPECT_EQ(Read("", std::string(37, 'a')).invalid_reason, "");
  EXPECT_EQ(Read("", std::string(38, 'a')).invalid_reason, "NameTooLong");
  EXPECT_EQ(Read("", "9lives").invalid_reason, "InvalidName");
  EXPECT_EQ(Read("", "a.b").invalid_reason, "InvalidName");
  EXPECT_EQ(Read("", "net-ranks").invalid_reason, "InvalidName");
  EXPECT_EQ(Read("", "net-ranks-2").invalid_reason, "");
}

TEST(Model, IsCalledAfterTheLastPartOfItsPath) {
  Model model;
  model.path = "zoo/net.pt2";
  EXPECT_EQ(model.name(), "net");
  EXPECT_FALSE(model.is_directory());
  model.path = "SmolLM2-135M";
  EXPECT_EQ(model.name(), "SmolLM2-135M");
  EXPECT_TRUE(model.is_directory());
}

TEST(RevisionSpec, SaysTheSameForDefaultsThatAreWrittenOut) {
  EXPECT_EQ(RevisionSpec(Read("").spec), RevisionSpec(Read("parallelism: {stages: 1}").spec));
  EXPECT_EQ(RevisionSpec(Read("").spec).dump(),
            R"({"model":{"path":"a/net.pt2","source":{"pvc":{"claimName":"m"},"type":"PVC"}},)"
            R"("parallelism":{"chunks":1,"policy":"balanced","ranksPerPod":1,"stages":1}})");
}

TEST(RevisionSpec, DoesNotDependOnTheOrderOfOverrides) {
  const std::string stages = "parallelism: {stages: 2}\n";
  EXPECT_EQ(
      RevisionSpec(
          Read(stages + "overrides: [{name: a, firstRank: 0}, {name: b, firstRank: 1}]").spec),
      RevisionSpec(
          Read(stages + "overrides: [{name: b, firstRank: 1}, {name: a, firstRank: 0}]").spec));
}

TEST(RevisionSpec, LeavesOutWhatNeedsNoNewPods) {
  EXPECT_EQ(RevisionSpec(Read("").spec),
            RevisionSpec(Read("replicas: 5\nrollout: {drainSeconds: 1}\nsuspend: true").spec));
  EXPECT_NE(RevisionSpec(Read("").spec), RevisionSpec(Read("template: {spec: {}}").spec));
}

TEST(RevisionSpec, MakesASpecOfAnOlderRevisionAgain) {
  const Spec old = Read("parallelism: {stages: 3}\ntemplate: {spec: {}}").spec;
  const Spec now = Read("replicas: 7\noverrides: [{name: a, firstRank: 0}]").spec;
  const Spec mixed = WithRevisionSpec(now, RevisionSpec(old));
  EXPECT_EQ(RevisionSpec(mixed), RevisionSpec(old));
  EXPECT_EQ(mixed.replicas, 7);
}

TEST(Quantity, IsReadAsKubernetesDoes) {
  EXPECT_EQ(BytesOfQuantity("24Gi").value(), 24LL << 30);
  EXPECT_EQ(BytesOfQuantity("24GiB").value(), 24LL << 30);
  EXPECT_EQ(BytesOfQuantity("1.5G").value(), 1'500'000'000);
  EXPECT_EQ(BytesOfQuantity("1000").value(), 1000);
  for (const char* wrong : {"", "G", "-1", "1e3", "1.2.3", "1Pi", "999999T", "0"})
    EXPECT_FALSE(BytesOfQuantity(wrong).ok()) << wrong;
}

}  // namespace
}  // namespace echelon::op
