// Old groups and new ones: what serves goes only for what may come.
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "operator/kube/resource.h"
#include "tests/operator/controller/cluster.h"

namespace echelon::op {
namespace {

using testing::HasSubstr;

const Json kInPlace{{"rollout", {{"maxSurge", 0}, {"maxUnavailable", 1}}}};

// Where there is no room for two groups the old one goes first: only for what can come.
TEST(Replacing, ATemplateThatTheServerRefusesCostsNoOldGroup) {
  Cluster cluster;
  cluster.api.SetAdmission([](const Resource* resource, Json& object) -> std::optional<Response> {
    if (resource == nullptr || resource->kind != "StatefulSet") return std::nullopt;
    const std::string set = object.dump();
    if (absl::StrContains(set, "bad key")) return Failure(422, "Invalid", "invalid: bad key");
    return std::nullopt;
  });
  cluster.AddReplica();
  cluster.Put("net", kInPlace);
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  const auto serving = cluster.Names(kStatefulSets);

  const Json in_template{{"template", {{"spec", {{"nodeSelector", {{"bad key", "x"}}}}}}}};
  const Json in_override{
      {"overrides",
       {{{"name", "all"}, {"firstRank", 0}, {"count", 2}, {"nodeSelector", {{"bad key", "x"}}}}}}};
  for (const Json& change : {in_template, in_override}) {
    Json bad = kInPlace;
    bad.update(change);
    cluster.Put("net", bad);
    ASSERT_TRUE(cluster.sim.RunUntil([&] {
      return absl::StartsWith(cluster.Condition("net", "Progressing"), "False InvalidTemplate");
    })) << cluster.Status("net").dump(1);
    cluster.sim.RunFor(absl::Minutes(1));
    EXPECT_EQ(cluster.Names(kStatefulSets), serving);
    cluster.Put("net", kInPlace);
    ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  }

  Json good = kInPlace;
  good["template"]["spec"]["nodeSelector"]["good"] = "x";
  cluster.Put("net", good);
  ASSERT_TRUE(cluster.sim.RunUntil(
      [&] { return cluster.IsDone("net") && cluster.Names(kStatefulSets) != serving; },
      absl::Minutes(10)))
      << cluster.Status("net").dump(1);
}

// Whether another group would fit beside the old one or not: with maxUnavailable 1 that one may go.
TEST(Replacing, WhatServesDoesNotGoWhileNobodyCanSayWhetherItsSuccessorMayCome) {
  for (const int surge : {0, 1}) {
    SCOPED_TRACE(surge);
    Cluster cluster;
    std::optional<Response> answer;
    cluster.api.SetAdmission([&](const Resource* resource, Json&) -> std::optional<Response> {
      if (resource == nullptr || resource->kind != "StatefulSet") return std::nullopt;
      return answer;
    });
    cluster.AddReplica();
    Json spec{{"rollout", {{"maxSurge", surge}, {"maxUnavailable", 1}}}};
    cluster.Put("net", spec);
    ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
    const auto serving = cluster.Names(kStatefulSets);
    spec["model"]["path"] = "better.pt2";
    answer = Failure(500, "InternalError", "failed calling webhook \"sets\"");
    cluster.Put("net", spec);
    const auto told = [&](const char* words) {
      return cluster.sim.RunUntil(
          [&] { return absl::StrContains(cluster.Status("net").dump(), words); }, absl::Minutes(2));
    };
    EXPECT_TRUE(told("failed calling webhook")) << cluster.Status("net").dump(1);
    // Its code says nothing about the object, and it may think better of it.
    answer = Failure(400, "BadRequest", "admission webhook \"sets\" denied the request: not now");
    EXPECT_TRUE(told("not now")) << cluster.Status("net").dump(1);
    EXPECT_EQ(cluster.Names(kStatefulSets), serving);
    answer = std::nullopt;
    EXPECT_TRUE(cluster.sim.RunUntil(
        [&] { return cluster.IsDone("net") && cluster.Names(kStatefulSets) != serving; },
        absl::Minutes(10)))
        << cluster.Status("net").dump(1);
  }
}

TEST(Replacing, ADeletionThatIsRefusedIsTriedAgainWithPauses) {
  Cluster cluster;
  cluster.AddReplica();
  cluster.Put("net", kInPlace);
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  cluster.api.SetFaults([](const Request& request) -> Fault {
    if (request.method != "DELETE") return {};
    return {.code = 403, .reason = "Forbidden"};
  });
  Json next = kInPlace;
  next["model"]["path"] = "better.pt2";
  cluster.Put("net", next);
  cluster.sim.RunFor(absl::Seconds(1));
  cluster.api.ClearLog();
  cluster.sim.RunFor(absl::Minutes(1));
  EXPECT_LT(cluster.Writes(), 30u);
  cluster.api.SetFaults(nullptr);
  EXPECT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }, absl::Minutes(10)))
      << cluster.Status("net").dump(1);
}

TEST(Replacing, AServiceThatIsRefusedCostsNoOldGroup) {
  Cluster cluster;
  bool fails = false;
  cluster.api.SetAdmission([&](const Resource* resource, Json&) -> std::optional<Response> {
    if (resource == nullptr || resource->kind != "Service" || !fails) return std::nullopt;
    return Failure(422, "Invalid", "metadata.annotations: Invalid value");
  });
  cluster.AddReplica();
  cluster.Put("net", kInPlace);
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  const auto serving = cluster.Names(kStatefulSets);
  fails = true;
  Json next = kInPlace;
  next["model"]["path"] = "better.pt2";
  next["service"]["annotations"]["a"] = "b";
  cluster.Put("net", next);
  cluster.sim.RunFor(absl::Minutes(2));
  EXPECT_THAT(cluster.Status("net").dump(), HasSubstr("metadata.annotations"));
  EXPECT_EQ(cluster.Names(kStatefulSets), serving);
}

TEST(Replacing, AQuotaIsMadeRoomInBeforeItIsAskedFor) {
  Cluster cluster;
  cluster.AddReplica();
  const Json spec{{"rollout", {{"maxSurge", 1}, {"maxUnavailable", 1}}},
                  {"template", {{"metadata", {{"labels", {{"a", "b"}}}}}}}};
  cluster.Put("net", spec);
  ASSERT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }));
  cluster.api.SetAdmission([&](const Resource* resource, Json& object) -> std::optional<Response> {
    if (resource == nullptr || resource->kind != "StatefulSet") return std::nullopt;
    int sets = 0;
    for (const Change& change : cluster.changes) {
      if (!absl::EndsWith(change.collection, "/statefulsets")) continue;
      sets += change.type == "ADDED" ? 1 : change.type == "DELETED" ? -1 : 0;
    }
    if (sets == 0 || object["metadata"].contains("uid")) return std::nullopt;
    return Failure(403, "Forbidden", "exceeded quota: sets");
  });
  Json next = spec;
  next["model"]["path"] = "better.pt2";
  cluster.Put("net", next);
  EXPECT_TRUE(cluster.sim.RunUntil([&] { return cluster.IsDone("net"); }, absl::Minutes(3)))
      << cluster.Status("net").dump(1);
}

}  // namespace
}  // namespace echelon::op
