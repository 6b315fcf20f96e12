#include "operator/controller/project.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "operator/controller/crd_check.h"
#include "operator/controller/executor.h"
#include "operator/controller/seen.h"

namespace echelon::op {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

absl::Time At(const char* text) {
  absl::Time time;
  std::string error;
  EXPECT_TRUE(absl::ParseTime(absl::RFC3339_full, text, &time, &error)) << error;
  return time;
}

json Pod() {
  return json::parse(R"({
    "metadata": {
      "name": "net-a-0-0-1", "namespace": "ns", "uid": "u1", "resourceVersion": "77",
      "creationTimestamp": "2026-01-01T00:00:00Z",
      "labels": {"echelon.dev/deployment": "net", "echelon.dev/revision": "aabbccdd",
                 "echelon.dev/group": "2", "apps.kubernetes.io/pod-index": "1"},
      "ownerReferences": [{"kind": "StatefulSet", "uid": "s1", "controller": true}]},
    "spec": {"nodeName": "n1"},
    "status": {
      "phase": "Running", "podIP": "10.0.0.7",
      "conditions": [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": "False"},
        {"type": "ContainersReady", "status": "False",
         "lastTransitionTime": "2026-01-01T00:01:00Z"}],
      "initContainerStatuses": [{"name": "fetch", "state": {"terminated": {"exitCode": 0}}}],
      "containerStatuses": [
        {"name": "sidecar", "restartCount": 9, "state": {"waiting": {"reason": "Other"}}},
        {"name": "stage", "restartCount": 3,
         "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
         "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "m",
                                      "finishedAt": "2026-01-01T00:02:00Z"}}}]}})");
}

TEST(Project, APodIsReadWhole) {
  const auto seen = SeePod(Pod());
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->key, "ns/net");
  EXPECT_EQ(seen->version, 77u);
  const PodView& pod = seen->view;
  EXPECT_EQ(pod.name, "net-a-0-0-1");
  EXPECT_EQ(pod.set_uid, "s1");
  EXPECT_EQ(pod.revision, "aabbccdd");
  EXPECT_EQ(pod.group, 2);
  EXPECT_EQ(pod.rank, 1);
  EXPECT_EQ(pod.ip, "10.0.0.7");
  EXPECT_TRUE(pod.scheduled);
  EXPECT_FALSE(pod.ready);
  EXPECT_EQ(pod.restarts, 3);
  EXPECT_EQ(pod.waiting_reason, "CrashLoopBackOff");
  EXPECT_EQ(pod.terminated_reason, "OOMKilled");
  EXPECT_EQ(pod.terminated_exit_code, 137);
  EXPECT_EQ(pod.reported_at, At("2026-01-01T00:02:00Z"));
}

TEST(Project, WhatKeepsAnyContainerFromStartingIsRead) {
  json object = Pod();
  json& status = object["status"];
  status["containerStatuses"][1]["state"] = {{"running", json::object()}};
  EXPECT_EQ(PodFromJson(object).waiting_reason, "Other");
  EXPECT_EQ(PodFromJson(object).waiting_message, "container sidecar: ");
  EXPECT_EQ(PodFromJson(object).restarts, 3);

  status["containerStatuses"][1]["state"] = {{"waiting", {{"reason", "PodInitializing"}}}};
  status["initContainerStatuses"] = json::parse(R"([
    {"name": "fetch", "restartCount": 4,
     "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
     "lastState": {"terminated": {"exitCode": 6, "reason": "Error", "message": "no such host"}}},
    {"name": "unpack", "state": {"waiting": {"reason": "PodInitializing"}}}])");
  const PodView pod = PodFromJson(object);
  EXPECT_EQ(pod.waiting_reason, "CrashLoopBackOff");
  EXPECT_EQ(pod.waiting_message,
            "container fetch, 4 restarts, last exit code 6: no such host: back-off 40s");
  EXPECT_TRUE(pod.waiting_beside);
}

TEST(Project, AMarkOfTheTaintManagerIsRead) {
  json object = Pod();
  object["metadata"]["deletionTimestamp"] = "2026-01-01T00:05:00Z";
  object["metadata"]["deletionGracePeriodSeconds"] = 45;
  object["status"]["conditions"].push_back({{"type", "DisruptionTarget"},
                                            {"status", "True"},
                                            {"reason", "DeletionByTaintManager"},
                                            {"lastTransitionTime", "2026-01-01T00:04:00Z"}});
  const PodView pod = PodFromJson(object);
  EXPECT_TRUE(pod.deleting);
  EXPECT_EQ(pod.grace, absl::Seconds(45));
  EXPECT_TRUE(pod.taint_evicted);
  EXPECT_EQ(pod.taint_evicted_at, At("2026-01-01T00:04:00Z"));
}

TEST(Project, PodsOfJobsAndRevisionsOfStatefulSetsAreNotOurs) {
  json object = Pod();
  object["metadata"]["ownerReferences"][0]["kind"] = "Job";
  EXPECT_FALSE(SeePod(object));
  EXPECT_FALSE(SeeRevision(Pod()));
}

TEST(Project, DamagedFieldsReadAsAbsent) {
  for (const char* text :
       {"null", "[]", "{}", R"({"metadata": 3})", R"({"metadata": {"labels": [], "name": 5}})",
        R"({"status": {"conditions": {"type": 1}, "containerStatuses": [7, null]}})",
        R"({"spec": {"replicas": "x", "ordinals": []}, "status": {"conditions": [3]}})"}) {
    const json object = json::parse(text);
    EXPECT_EQ(PodFromJson(object).name, "");
    EXPECT_EQ(SetFromJson(object).replicas, 1);
    EXPECT_EQ(JobFromJson(object).complete, false);
    EXPECT_EQ(ClaimFromJson(object).name, "");
    EXPECT_EQ(RevisionFromJson(object).number, 0);
    EXPECT_EQ(WarningFromJson(object).object, "");
    EXPECT_FALSE(SeeOwned(object, "Service"));
  }
}

TEST(Project, AHeadsAnswerIsRead) {
  const auto head = HeadFromText(R"({"model": "net", "epoch": 4, "formed": true, "ranks": [
      {"rank": 1, "phase": "loading", "incarnation": "u1", "loadedBytes": 5, "totalBytes": 9,
       "joins": 2, "lastError": "e"}]})");
  ASSERT_TRUE(head.ok());
  EXPECT_EQ(head->epoch, 4);
  EXPECT_TRUE(head->formed);
  ASSERT_EQ(head->ranks.size(), 1u);
  EXPECT_EQ(head->ranks[0].phase, "loading");
  EXPECT_EQ(head->ranks[0].loaded_bytes, 5);
  EXPECT_EQ(head->ranks[0].incarnation, "u1");
}

TEST(Project, AnAnswerThatIsNoneIsRefused) {
  for (const char* text :
       {"", "nonsense", "[]", "{}", R"({"ranks": 3})", "{\"ranks\": [", "\xff\xfe", R"("ranks")"}) {
    EXPECT_FALSE(HeadFromText(text).ok()) << text;
  }
  EXPECT_FALSE(HeadFromText(std::string(1 << 20, '[')).ok());
  const auto odd = HeadFromText(R"({"ranks": [7, {"rank": -1}, {"rank": 9999999}, {"rank": 0,
      "phase": 3, "loadedBytes": -5, "lastError": {"a": [[[[[[1]]]]]]}}]})");
  ASSERT_TRUE(odd.ok());
  ASSERT_EQ(odd->ranks.size(), 1u);
  EXPECT_EQ(odd->ranks[0].loaded_bytes, 0);
}

TEST(CheckCrd, TellsWhatToDo) {
  const auto with = [](const char* version) {
    return Response{
        .code = 200,
        .body = json{{"metadata", {{"annotations", {{kCrdVersionAnnotation, version}}}}}}.dump()};
  };
  EXPECT_TRUE(CheckCrd(with("1")).ok());
  EXPECT_TRUE(CheckCrd(with("99")).ok());
  EXPECT_TRUE(CheckCrd({.code = 403}).ok());
  for (const Response& old : {with("0"), with("x"), Response{.code = 404, .body = "{}"},
                              Response{.code = 200, .body = "{}"}}) {
    const absl::Status status = CheckCrd(old);
    EXPECT_TRUE(absl::IsFailedPrecondition(status));
    EXPECT_THAT(std::string(status.message()), HasSubstr("kubectl apply --server-side"));
  }
  EXPECT_TRUE(absl::IsUnavailable(CheckCrd({.code = 500})));
}

TEST(AppliedFields, WhatAPostHoldsBecomesTheApplys) {
  const auto entry = [](const char* manager, const char* operation) {
    return json{{"manager", manager}, {"operation", operation}, {"fieldsV1", {{"f:spec", {}}}}};
  };
  const auto object = [](json fields) {
    return json{{"metadata", {{"managedFields", std::move(fields)}}}};
  };
  const json other = entry("kubectl", "Update"), posted = entry("echelon-operator", "Update"),
             applied = entry("echelon-operator", "Apply");
  EXPECT_THAT(AppliedFields(object({other, posted})), ElementsAre(other, applied));
  EXPECT_THAT(AppliedFields(object({applied, posted})), ElementsAre(applied));
  EXPECT_TRUE(AppliedFields(object({other, applied})).is_null());
  EXPECT_TRUE(AppliedFields(json::object()).is_null());
}

}  // namespace
}  // namespace echelon::op
