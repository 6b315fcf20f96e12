#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/api/deployment.h"

namespace echelon::op {
namespace {

using nlohmann::json;

Status Full() {
  const absl::Time time = absl::FromUnixSeconds(1'790'000'000);
  Status status;
  status.observed_generation = 4;
  status.replicas = 2;
  status.ready_replicas = 1;
  status.selector = "echelon.dev/deployment=net,apps.kubernetes.io/pod-index=0";
  status.current_revision = "0a1b2c3d";
  status.update_revision = "4e5f6a7b";
  status.endpoint = "net.default.svc:8001";
  status.ready = "3/4";
  status.reason = "RankLoading";
  status.groups = {{.name = "0a1b2c-0",
                    .revision = "0a1b2c3d",
                    .ready = "1/2",
                    .epoch = 7,
                    .retry_at = time,
                    .attempts = 2}};
  status.ranks = {{.pod = "net-0a1b2c-0-0-0",
                   .group = "0a1b2c-0",
                   .rank = 0,
                   .node = "n1",
                   .phase = "Loading",
                   .loaded_bytes = 1,
                   .total_bytes = 1LL << 40,
                   .restarts = 3,
                   .last_error = "out of memory"}};
  status.conditions = {{.type = "Available",
                        .status = Truth::kTrue,
                        .reason = "Serving",
                        .message = "1 of 2 groups answers",
                        .observed_generation = 4,
                        .last_transition = time}};
  status.failures = {{.at = time, .pod = "net-0a1b2c-0-0-1", .message = "exit code 137"}};
  return status;
}

TEST(Status, ComesBackAsItWasWritten) {
  EXPECT_EQ(StatusFromJson(ToJson(Full())), Full());
  EXPECT_EQ(StatusFromJson(ToJson(Status())), Status());
}

TEST(Status, WritesTimesAsKubernetesDoes) {
  const json object = ToJson(Full());
  EXPECT_EQ(object["conditions"][0]["lastTransitionTime"], "2026-09-21T14:13:20Z");
  EXPECT_EQ(object["groups"][0]["retryAt"], "2026-09-21T14:13:20Z");
}

TEST(Status, IsCutToWhatTheApiServerTakes) {
  Status status = Full();
  status.conditions[0].message = std::string(1023, 'a') + "\u00e9 and more";
  status.ranks[0].last_error = "broken \xff byte";
  status.failures.resize(100);
  status.failures.back().pod = "the-newest";
  status.ranks.resize(5000);
  const json object = ToJson(status);
  EXPECT_EQ(object["conditions"][0]["message"], std::string(1023, 'a'));
  EXPECT_EQ(object["ranks"][0]["lastError"], "broken ? byte");
  EXPECT_EQ(object["failures"].size(), 16);
  EXPECT_EQ(object["failures"].back()["pod"], "the-newest");
  EXPECT_EQ(object["ranks"].size(), 2048);
}

TEST(Status, ReadsDamagedFieldsAsAbsent) {
  EXPECT_EQ(StatusFromJson(json::parse(R"({
    "observedGeneration": "four", "replicas": 99999999999, "selector": 3, "groups": {"a": 1},
    "ranks": ["x", 1, null], "failures": null
  })")),
            Status());
  const Status status = StatusFromJson(
      json::parse(R"({"conditions": [{"type": "Failed", "lastTransitionTime": "soon"}]})"));
  ASSERT_EQ(status.conditions.size(), 1);
  EXPECT_EQ(status.conditions[0].status, Truth::kUnknown);
  EXPECT_EQ(StatusFromJson(json(7)), Status());
}

}  // namespace
}  // namespace echelon::op
