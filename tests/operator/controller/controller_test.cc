// The operator as a whole, on the fake API server and turned time.
#include "operator/controller/controller.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "operator/kube/resource.h"
#include "tests/operator/controller/cluster.h"

namespace echelon::op {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::UnorderedElementsAre;

std::vector<std::string> Events(Cluster& cluster) {
  std::vector<std::string> reasons;
  for (const auto& event : cluster.api.All(kEvents)) reasons.push_back((*event)["reason"]);
  return reasons;
}

TEST(Controller, AnObjectBecomesAServingPipeline) {
  Cluster cluster;
  cluster.AddReplica();
  cluster.Put("net");
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }))
      << cluster.Status("net").dump(1);
  EXPECT_THAT(cluster.Names(kServices), UnorderedElementsAre("net", "net-ranks"));
  EXPECT_THAT(cluster.Names(kPodDisruptionBudgets), ElementsAre("net"));
  EXPECT_THAT(cluster.Names(kNetworkPolicies), ElementsAre("net"));
  EXPECT_THAT(cluster.Names(kControllerRevisions), SizeIs(1));
  EXPECT_THAT(cluster.Names(kStatefulSets), SizeIs(1));
  EXPECT_THAT(cluster.Names(kPods), SizeIs(2));
  EXPECT_EQ(cluster.Status("net").value("ready", ""), "2/2");
  EXPECT_EQ(cluster.Condition("net", "GroupFormed").substr(0, 4), "True");
}

TEST(Controller, ASecondPassChangesNothing) {
  Cluster cluster;
  cluster.AddReplica();
  cluster.Put("net");
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  cluster.sim.RunFor(absl::Minutes(1));
  const auto before = cluster.Versions();
  // A new leader looks at everything anew.
  cluster.Kill(*cluster.replicas[0]);
  cluster.AddReplica();
  cluster.api.ClearLog();
  cluster.sim.RunFor(absl::Minutes(2));
  EXPECT_EQ(cluster.Versions(), before);
  EXPECT_EQ(cluster.Writes(), 0u);
}

TEST(Controller, AnAdmissionPolicyThatRewritesPodsIsNotFought) {
  Cluster cluster;
  cluster.api.SetAdmission([](const Resource* resource, Json& object) -> std::optional<Response> {
    if (resource != nullptr && resource->kind == "StatefulSet") {
      for (Json& container : object["spec"]["template"]["spec"]["containers"]) {
        container["resources"]["requests"] = {{"cpu", "500m"}, {"memory", "2Gi"}};
      }
    }
    if (resource != nullptr && resource->kind == "Service") {
      object["metadata"]["annotations"]["cloud.example/neg"] = "{}";
    }
    return std::nullopt;
  });
  cluster.AddReplica();
  cluster.Put("net");
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  cluster.sim.RunFor(absl::Minutes(1));
  const auto before = cluster.Versions();
  cluster.sim.RunFor(absl::Minutes(10));
  EXPECT_EQ(cluster.Versions(), before);
}

TEST(Controller, ScalingAddsAndRemovesGroups) {
  Cluster cluster;
  cluster.AddReplica();
  cluster.Put("net");
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  cluster.Put("net", {{"replicas", 3}});
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }, absl::Minutes(5)))
      << cluster.Status("net").dump(1);
  EXPECT_THAT(cluster.Names(kPods), SizeIs(6));
  cluster.Put("net", {{"replicas", 1}});
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }, absl::Minutes(5)))
      << cluster.Status("net").dump(1);
  EXPECT_TRUE(cluster.sim.RunUntil([&] { return cluster.Names(kPods).size() == 2; }));
}

TEST(Controller, ANewModelIsSurgedAndTheOldGroupLeaves) {
  Cluster cluster;
  cluster.AddReplica();
  cluster.Put("net");
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  const auto old = cluster.Names(kStatefulSets);
  cluster.Put("net", {{"model", {{"path", "better.pt2"}}}});
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }, absl::Minutes(10)))
      << cluster.Status("net").dump(1);
  EXPECT_THAT(cluster.Names(kStatefulSets), SizeIs(1));
  EXPECT_NE(cluster.Names(kStatefulSets), old);
}

TEST(Controller, ADeletedObjectTakesEverythingAlong) {
  Cluster cluster;
  cluster.AddReplica();
  cluster.Put("net");
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  cluster.Delete("net");
  cluster.sim.RunFor(absl::Minutes(2));
  EXPECT_THAT(cluster.Versions(), IsEmpty());
  EXPECT_THAT(cluster.replicas[0]->controller->cache().entries(), IsEmpty());
}

TEST(Controller, TheLeaderCountsTheGroupsOfEachDeployment) {
  constexpr char kWanted[] = "echelon_operator_deployment_groups{deployment=\"net\"";
  Cluster cluster;
  cluster.AddReplica();
  cluster.AddReplica();
  cluster.Put("net", {{"replicas", 2}});
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }, absl::Minutes(5)));
  const auto of_replica = [&](int i) { return cluster.replicas[i]->metrics->Text(); };
  cluster.sim.RunFor(absl::Seconds(2));  // of which each second is counted
  const int leader = absl::StrContains(of_replica(0), "\nechelon_operator_leader 1") ? 0 : 1;
  const std::string text = of_replica(leader);
  EXPECT_THAT(text, HasSubstr(absl::StrCat(kWanted, ",deployment_namespace=\"default\"} 2")));
  EXPECT_THAT(text, HasSubstr("echelon_operator_deployment_groups_ready{deployment=\"net\","
                              "deployment_namespace=\"default\"} 2"));
  EXPECT_THAT(of_replica(1 - leader), Not(HasSubstr(kWanted)));

  cluster.Put("net", {{"suspend", true}});
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.Names(kPods).empty(); }));
  cluster.sim.RunFor(absl::Seconds(5));
  EXPECT_THAT(of_replica(leader),
              HasSubstr(absl::StrCat(kWanted, ",deployment_namespace=\"default\"} 0")));
  cluster.Delete("net");
  cluster.sim.RunFor(absl::Minutes(1));
  EXPECT_THAT(of_replica(leader), Not(HasSubstr(kWanted)));
}

TEST(Controller, AForeignServiceIsLeftAloneAndNamed) {
  Cluster cluster;
  const Json foreign{{"apiVersion", "v1"},
                     {"kind", "Service"},
                     {"metadata", {{"name", "net"}, {"namespace", "default"}}},
                     {"spec", {{"ports", {{{"port", 80}}}}}}};
  cluster.api.Put(kServices, foreign);
  const std::string version = cluster.Versions()["services/net"];
  cluster.AddReplica();
  cluster.Put("net");
  ASSERT_TRUE(cluster.sim.RunUntil([&] {
    return absl::StrContains(cluster.Status("net").dump(), "NameTaken");
  })) << cluster.Status("net").dump(1);
  cluster.sim.RunFor(absl::Minutes(2));
  EXPECT_EQ(cluster.Versions()["services/net"], version);
  EXPECT_THAT(cluster.Names(kStatefulSets), IsEmpty());

  cluster.api.Remove(kServices, "default", "net");
  EXPECT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }, absl::Minutes(5)))
      << cluster.Status("net").dump(1);
}

TEST(Controller, ATemplateThatTheServerRefusesIsAnInvalidTemplateAndMakesNothing) {
  Cluster cluster;
  cluster.api.SetAdmission([](const Resource* resource, Json& object) -> std::optional<Response> {
    if (resource == nullptr || resource->kind != "StatefulSet") return std::nullopt;
    if (!object["spec"]["template"]["spec"].contains("hostnme")) return std::nullopt;
    return Failure(400, "BadRequest", "strict decoding error: unknown field \"hostnme\"");
  });
  cluster.AddReplica();
  cluster.Put("net", {{"template", {{"spec", {{"hostnme", "x"}}}}}});
  ASSERT_TRUE(cluster.sim.RunUntil([&] {
    const std::string status = cluster.Status("net").dump();
    return absl::StrContains(status, "InvalidTemplate") && absl::StrContains(status, "hostnme");
  })) << cluster.Status("net").dump(1);
  cluster.sim.RunFor(absl::Minutes(1));
  EXPECT_THAT(cluster.Names(kServices), IsEmpty());
  EXPECT_THAT(cluster.Names(kStatefulSets), IsEmpty());

  cluster.Put("net");
  EXPECT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }))
      << cluster.Status("net").dump(1);
}

TEST(Controller, ARefusedSetIsToldInTheStatus) {
  Cluster cluster;
  cluster.api.SetAdmission([](const Resource* resource, Json&) -> std::optional<Response> {
    if (resource == nullptr || resource->kind != "StatefulSet") return std::nullopt;
    return Failure(403, "Forbidden", "exceeded quota: sets");
  });
  cluster.AddReplica();
  cluster.Put("net");
  EXPECT_TRUE(cluster.sim.RunUntil(
      [&] { return absl::StrContains(cluster.Status("net").dump(), "exceeded quota"); },
      absl::Seconds(5)))
      << cluster.Status("net").dump(1);
}

TEST(Controller, AServersOwnErrorIsToldOnceItStays) {
  Cluster cluster;
  bool fails = true;
  cluster.api.SetAdmission([&](const Resource* resource, Json&) -> std::optional<Response> {
    if (resource == nullptr || resource->kind != "StatefulSet" || !fails) return std::nullopt;
    return Failure(500, "InternalError", "failed calling webhook \"sets\"");
  });
  cluster.AddReplica();
  cluster.Put("net");
  EXPECT_TRUE(cluster.sim.RunUntil(
      [&] { return absl::StrContains(cluster.Status("net").dump(), "failed calling webhook"); },
      absl::Seconds(5)))
      << cluster.Status("net").dump(1);
  fails = false;
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }, absl::Minutes(2)));
}

TEST(Controller, AnObjectThatMayNotBeReadAgainIsToldAndNothingIsTakenAway) {
  Cluster cluster;
  cluster.AddReplica();
  cluster.Put("net");
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  cluster.api.SetFaults([](const Request& request) -> Fault {
    if (request.method != "GET" || !absl::EndsWith(request.path, "/net")) return {};
    return {.code = 403, .reason = "Forbidden"};
  });
  cluster.Put("net", {{"model", {{"path", "better.pt2"}}}});
  EXPECT_TRUE(cluster.sim.RunUntil(
      [&] { return absl::StrContains(cluster.Status("net").dump(), "PipelineDeployment net: "); },
      absl::Seconds(5)))
      << cluster.Status("net").dump(1);
  EXPECT_THAT(cluster.Names(kStatefulSets), SizeIs(1));
  cluster.api.SetFaults(nullptr);
  EXPECT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }, absl::Minutes(5)))
      << cluster.Status("net").dump(1);
}

TEST(Controller, AWriteThatIsRefusedHoldsBackNothingElse) {
  Cluster cluster;
  cluster.AddReplica();
  cluster.Put("net");
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  cluster.api.SetAdmission([](const Resource* resource, Json& object) -> std::optional<Response> {
    if (resource == nullptr || resource->kind != "StatefulSet") return std::nullopt;
    if (object["metadata"]["labels"]["echelon.dev/group"] == "0") return std::nullopt;
    return Failure(403, "Forbidden", "exceeded quota: sets");
  });
  cluster.Put("net", {{"replicas", 2}});
  cluster.sim.RunFor(absl::Minutes(5));
  EXPECT_EQ(cluster.Condition("net", "Progressing"), "True QuotaExceeded");

  cluster.pods_start = false;
  cluster.api.PutStatus(kPods, "default", cluster.Names(kPods)[0], {{"phase", "Running"}});
  EXPECT_TRUE(cluster.sim.RunUntil(
      [&] { return cluster.Condition("net", "Available") == "False TooFewReady"; },
      absl::Seconds(1)))
      << cluster.Status("net").dump(1);
  const size_t writes = cluster.Writes();
  cluster.sim.RunFor(absl::Minutes(5));
  EXPECT_LT(cluster.Writes() - writes, 20u) << "what is refused is tried ever more rarely";

  cluster.Put("net", {{"replicas", 0}});
  EXPECT_TRUE(
      cluster.sim.RunUntil([&] { return cluster.Names(kStatefulSets).empty(); }, absl::Seconds(2)));
}

TEST(Controller, AStatusThatAnotherHasWrittenIsCorrected) {
  Cluster cluster;
  cluster.AddReplica();
  cluster.Put("net");
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  cluster.sim.RunFor(absl::Minutes(1));
  const Json right = cluster.Status("net");
  Json wrong = right;
  wrong["readyReplicas"] = 0;
  wrong["ready"] = "0/2";
  cluster.api.PutStatus(kPipelineDeployments, "default", "net", wrong);
  ASSERT_EQ(cluster.Status("net"), wrong);
  EXPECT_TRUE(
      cluster.sim.RunUntil([&] { return cluster.Status("net") == right; }, absl::Seconds(15)))
      << cluster.Status("net").dump(1);
}

TEST(Controller, SilentHeadsMakeUnknownButNotUnavailable) {
  Cluster cluster;
  cluster.AddReplica();
  cluster.Put("net");
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  cluster.heads_answer = false;
  EXPECT_TRUE(cluster.sim.RunUntil([&] {
    return cluster.Condition("net", "GroupFormed") == "Unknown HeadUnreachable";
  })) << cluster.Status("net").dump(1);
  EXPECT_THAT(cluster.Condition("net", "Available"), HasSubstr("True"));
}

TEST(Controller, OnlyTheLeaderWritesAndAnotherFollowsIt) {
  Cluster cluster;
  cluster.AddReplica();
  cluster.AddReplica();
  cluster.sim.RunFor(absl::Seconds(5));
  cluster.Kill(*cluster.replicas[0]);
  cluster.Put("net");
  const absl::Time killed = cluster.sim.Now();
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  EXPECT_LT(cluster.sim.Now() - killed, absl::Seconds(14));
}

TEST(Controller, AnOutdatedCrdIsNamedAndNothingIsDone) {
  Cluster cluster;
  cluster.api.Put(kCustomResourceDefinitions,
                  {{"apiVersion", "apiextensions.k8s.io/v1"},
                   {"kind", "CustomResourceDefinition"},
                   {"metadata",
                    {{"name", "pipelinedeployments.echelon.dev"},
                     {"annotations", {{"echelon.dev/crd-version", "0"}}}}}});
  auto& replica = cluster.AddReplica();
  cluster.Put("net");
  cluster.sim.RunFor(absl::Seconds(30));
  EXPECT_THAT(std::string(replica.controller->Ready().message()),
              HasSubstr("kubectl apply --server-side"));
  EXPECT_THAT(cluster.Names(kServices), IsEmpty());

  cluster.api.Put(kCustomResourceDefinitions,
                  {{"apiVersion", "apiextensions.k8s.io/v1"},
                   {"kind", "CustomResourceDefinition"},
                   {"metadata",
                    {{"name", "pipelinedeployments.echelon.dev"},
                     {"annotations", {{"echelon.dev/crd-version", "1"}}}}}});
  EXPECT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  EXPECT_TRUE(replica.controller->Ready().ok());
}

TEST(Controller, AServiceThatChangesIsAppliedAndAPortThatGoesIsTakenAway) {
  Cluster cluster;
  cluster.AddReplica();
  cluster.Put("net", {{"service", {{"annotations", {{"a", "1"}, {"b", "2"}}}}}});
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  const auto annotation = [&](const char* name) {
    const auto service = cluster.api.Find(kServices, "default", "net");
    return (*service)["metadata"]["annotations"].value(name, "");
  };
  EXPECT_EQ(annotation("b"), "2");
  cluster.Put("net", {{"service", {{"annotations", {{"a", "3"}}}}}});
  EXPECT_TRUE(cluster.sim.RunUntil([&] { return annotation("a") == "3"; }));
}

TEST(Controller, TransitionsAreEventsAndEachIsToldOnce) {
  Cluster cluster;
  cluster.AddReplica();
  cluster.Put("net");
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  cluster.sim.RunFor(absl::Minutes(1));
  const auto events = Events(cluster);
  EXPECT_FALSE(events.empty());
  cluster.sim.RunFor(absl::Minutes(10));
  EXPECT_EQ(Events(cluster), events);
}

}  // namespace
}  // namespace echelon::op
