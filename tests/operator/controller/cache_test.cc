#include "operator/controller/cache.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace echelon::op {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

const absl::Time kNow = absl::FromUnixSeconds(1'900'000'000);

Seen<SetView> Set(const std::string& name, uint64_t version, int replicas = 1) {
  Seen<SetView> seen{.key = "ns/net", .version = version};
  seen.view.kind = "StatefulSet";
  seen.view.name = name;
  seen.view.uid = "uid-" + name;
  seen.view.replicas = replicas;
  return seen;
}

Seen<PodView> Pod(const std::string& name, uint64_t version) {
  Seen<PodView> seen{.key = "ns/net", .version = version};
  seen.view.name = name;
  return seen;
}

SeenWarning Warning(const std::string& kind, const std::string& object,
                    const std::string& reason = "FailedCreate") {
  return {"ns", {.kind = kind, .object = object, .reason = reason, .last_seen = kNow}};
}

Deployment Net(const std::string& claim = "") {
  Deployment net;
  net.ns = "ns";
  net.name = "net";
  net.uid = "uid-net";
  net.spec.model.source.claim_name = claim;
  return net;
}

TEST(Cache, SaysWhoseViewChangedAndIsSilentWhenNothingDid) {
  Cache cache;
  EXPECT_EQ(cache.Put(Set("s", 5)), "ns/net");
  EXPECT_EQ(cache.Put(Set("s", 6)), std::nullopt);
  EXPECT_EQ(cache.Put(Set("s", 7, 2)), "ns/net");
  EXPECT_EQ(cache.Get("ns/net")->observed.sets[0].replicas, 2);
}

TEST(Cache, ALateWordOfAnOlderStateIsIgnored) {
  Cache cache;
  cache.PutAnswer(Set("s", 9, 3), kNow);
  EXPECT_EQ(cache.Put(Set("s", 8, 1)), std::nullopt);
  EXPECT_EQ(cache.Get("ns/net")->observed.sets[0].replicas, 3);
}

TEST(Cache, AnAnswerThatComesAfterTheDeletionBringsNothingBack) {
  Cache cache;
  cache.Put(Pod("keeps-the-entry", 1));
  cache.Put(Set("s", 5));
  cache.Remove("StatefulSet", "ns", "s", 8);
  EXPECT_EQ(cache.PutAnswer(Set("s", 5), kNow), std::nullopt);
  EXPECT_THAT(cache.Get("ns/net")->observed.sets, IsEmpty());
}

TEST(Cache, KeepsNamesInOrder) {
  Cache cache;
  for (const char* name : {"c", "a", "b"}) cache.Put(Pod(name, 1));
  const auto& pods = cache.Get("ns/net")->observed.pods;
  ASSERT_THAT(pods, SizeIs(3));
  EXPECT_EQ(pods[0].name + pods[1].name + pods[2].name, "abc");
}

TEST(Cache, WhatNoWatchConfirmsIsNamedOnce) {
  Cache cache;
  cache.PutAnswer(Set("seen", 5), kNow);
  cache.PutAnswer(Set("unseen", 6), kNow);
  cache.Put(Set("seen", 5));
  const auto names = cache.TakeUnconfirmed(kNow + absl::Seconds(1));
  ASSERT_THAT(names, SizeIs(1));
  EXPECT_EQ(names[0].name, "unseen");
  EXPECT_THAT(cache.TakeUnconfirmed(kNow + absl::Seconds(1)), IsEmpty());
}

TEST(Cache, AnEntryGoesWithItsLastObject) {
  Cache cache;
  cache.Put(Net(), 1);
  cache.Put(Set("s", 2));
  EXPECT_EQ(cache.Remove(kKind, "ns", "net", 0), "ns/net");
  EXPECT_EQ(cache.Get("ns/net")->deployment, nullptr);
  EXPECT_EQ(cache.Remove("StatefulSet", "ns", "s", 0), "ns/net");
  EXPECT_EQ(cache.Get("ns/net"), nullptr);
}

TEST(Cache, AStatusAloneIsNoNews) {
  Cache cache;
  EXPECT_EQ(cache.Put(Net(), 1), "ns/net");
  EXPECT_EQ(cache.Put(Net(), 2), std::nullopt);
  Deployment changed = Net();
  changed.generation = 2;
  EXPECT_EQ(cache.Put(changed, 3), "ns/net");
}

TEST(Cache, WarningsFindTheirDeploymentByItsSetsAlsoForPodsNotSeen) {
  Cache cache;
  cache.Put(Set("net-1-0-0", 1));
  EXPECT_EQ(cache.Put(Warning("StatefulSet", "net-1-0-0"), kNow), "ns/net");
  EXPECT_EQ(cache.Put(Warning("Pod", "net-1-0-0-3", "FailedMount"), kNow), "ns/net");
  EXPECT_EQ(cache.Put(Warning("Pod", "foreign-0", "FailedMount"), kNow), std::nullopt);
  EXPECT_EQ(cache.Put(Warning("StatefulSet", "net-1-0-0"), kNow + absl::Hours(1)), std::nullopt);
}

TEST(Cache, WarningsAboutAnExportsPodAreItsJobs) {
  Cache cache;
  Seen<JobView> job{.key = "ns/net", .version = 1};
  job.view.kind = "Job";
  job.view.name = "net-aabbccdd-export";
  cache.Put(job);
  EXPECT_EQ(cache.Put(Warning("Pod", "net-aabbccdd-export-x7k2p", "FailedScheduling"), kNow),
            "ns/net");
  EXPECT_EQ(cache.Put(Warning("Job", "net-aabbccdd-export"), kNow), "ns/net");
}

TEST(Cache, WarningsThatNobodyAsksForCrowdNothingOut) {
  Cache cache;
  cache.Put(Set("s", 1));
  cache.Put(Warning("StatefulSet", "s"), kNow);
  for (int rank = 0; rank < 100; ++rank) {
    const std::string pod = "s-" + std::to_string(rank);
    cache.Put(Pod(pod, 2));
    EXPECT_EQ(cache.Put(Warning("Pod", pod, "Unhealthy"), kNow), std::nullopt);
  }
  EXPECT_THAT(cache.Get("ns/net")->observed.warnings, SizeIs(1));
}

TEST(Cache, AClaimIsKnownMissingOnlyOnceAllAreListed) {
  Cache cache;
  cache.Put(Net("models"), 1);
  EXPECT_THAT(cache.Get("ns/net")->observed.claims, IsEmpty());
  cache.ClaimsSynced();
  ASSERT_THAT(cache.Get("ns/net")->observed.claims, SizeIs(1));
  EXPECT_TRUE(cache.Get("ns/net")->observed.claims[0].missing);
  EXPECT_THAT(cache.PutClaim("ns", {.name = "models", .access_modes = {"ReadWriteOnce"}}),
              ElementsAre("ns/net"));
  EXPECT_FALSE(cache.Get("ns/net")->observed.claims[0].missing);
  EXPECT_THAT(cache.PutClaim("ns", {.name = "other"}), IsEmpty());
}

}  // namespace
}  // namespace echelon::op
