// Seeded schedules of everything that goes wrong between an operator and its API server. The state
// reached is the wanted one, nothing is made twice, and no object is written more often than a
// change of the user's asks for.
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "operator/kube/resource.h"
#include "tests/operator/controller/cluster.h"

namespace echelon::op {
namespace {

constexpr int kSeeds = 100;
constexpr int kMaxSpecWrites = 2;  // of one object for one change of the user's

class Schedule {
 public:
  explicit Schedule(uint64_t seed) : cluster_(seed), random_(seed) {}

  void Run() {
    cluster_.AddReplica();
    cluster_.AddReplica();
    cluster_.api.SetFaults([this](const Request& request) { return Break(request); });
    const auto step = [this](absl::Duration after) {
      cluster_.sim.RunFor(after);
      Mishap();
    };
    cluster_.Put("a");

    for (int i = 0; i < 6; ++i) step(absl::Seconds(Between(0, 8)));
    cluster_.Put("b", {{"replicas", 2}, {"parallelism", {{"stages", 3}}}});
    for (int i = 0; i < 4; ++i) step(absl::Seconds(Between(0, 8)));
    cluster_.Put("a", {{"replicas", 2}});
    for (int i = 0; i < 4; ++i) step(absl::Seconds(Between(0, 8)));
    cluster_.Put("a", {{"replicas", 2}, {"model", {{"path", "better.pt2"}}}});
    cluster_.Put("b", {{"replicas", 2},
                       {"parallelism", {{"stages", 3}}},
                       {"service", {{"annotations", {{"owner", "b"}}}}}});
    for (int i = 0; i < 6; ++i) step(absl::Seconds(Between(0, 8)));
    calm_ = true;
    cluster_.api.SetDown(false);
    cluster_.api.SetSilent(false);
    for (auto& replica : cluster_.replicas) replica->process->Resume();
  }

  void Check() {
    ASSERT_TRUE(cluster_.sim.RunUntil([&] { return cluster_.IsDone("a") && cluster_.IsDone("b"); },
                                      absl::Minutes(30)))
        << cluster_.Status("a").dump(1) << cluster_.Status("b").dump(1);
    cluster_.sim.RunFor(absl::Minutes(3));
    const auto versions = cluster_.Versions();
    cluster_.sim.RunFor(absl::Minutes(3));
    EXPECT_EQ(cluster_.Versions(), versions) << "it goes on writing";
    EXPECT_EQ(cluster_.Names(kPods).size(), 2u * 2 + 2u * 3);
    EXPECT_EQ(cluster_.Names(kStatefulSets).size(), 4u);
    EXPECT_EQ(cluster_.Names(kServices).size(), 4u);
    CheckWrites();
  }

 private:
  int Between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  bool Chance(double of) { return std::bernoulli_distribution(of)(random_); }

  Fault Break(const Request& request) {
    if (calm_) return {};
    Fault fault;
    if (Chance(0.2)) fault.before = absl::Milliseconds(Between(0, 3000));
    if (Chance(0.2)) fault.after = absl::Milliseconds(Between(0, 3000));
    if (!Chance(0.15)) return fault;
    switch (Between(0, 5)) {
      case 0:
        fault.lose_request = true;
        break;
      case 1:
        fault.lose_response = true;
        break;
      case 2:
        fault.code = 500;
        fault.reason = "InternalError";
        break;
      case 3:
        fault.code = 429;
        fault.reason = "TooManyRequests";
        fault.retry_after = absl::Seconds(1);
        break;
      case 4:
        if (request.method == "GET") break;
        fault.code = 409;
        fault.reason = "Conflict";
        break;
      default:
        fault.code = 503;
        fault.reason = "ServiceUnavailable";
    }
    return fault;
  }

  void Mishap() {
    FakeApi& api = cluster_.api;
    auto& replica = *cluster_.replicas[Between(0, static_cast<int>(cluster_.replicas.size()) - 1)];
    switch (Between(0, 8)) {
      case 0:
        return api.CutWatches();
      case 1:
        api.Compact();
        return api.CutWatches();
      case 2:
        return api.Restart();
      case 3:
        api.SetDown(true);
        return cluster_.sim.After(absl::Seconds(Between(1, 20)), [&api] { api.SetDown(false); });
      case 4:
        api.SetSilent(true);
        return cluster_.sim.After(absl::Seconds(Between(1, 20)), [&api] { api.SetSilent(false); });
      case 5:
      case 6: {  // SIGSTOP, at times past the lease's end
        Process* process = replica.process.get();
        process->Pause();
        return cluster_.sim.After(absl::Seconds(Between(1, 30)), [process] { process->Resume(); });
      }
      case 7:
        if (cluster_.replicas.size() > 4) return;
        cluster_.Kill(replica);
        cluster_.AddReplica();
        return;
      default:
        return;
    }
  }

  // By objects that the operator makes.
  void CheckWrites() {
    std::map<std::string, int> made, written;
    for (const Change& change : cluster_.changes) {
      bool is_ours = false;
      for (const Resource* resource : {&kServices, &kStatefulSets, &kControllerRevisions,
                                       &kNetworkPolicies, &kPodDisruptionBudgets}) {
        is_ours |=
            absl::EndsWith(change.collection, absl::StrCat("/", std::string(resource->plural)));
      }
      if (!is_ours) continue;
      const std::string name =
          absl::StrCat(change.collection, "/", (*change.after)["metadata"].value("name", ""));
      if (change.type == "ADDED") {
        EXPECT_EQ(++made[name], 1) << name << " was made twice";
      }
      if (change.type == "MODIFIED" &&
          change.before->value("spec", Json()) != change.after->value("spec", Json())) {
        EXPECT_LE(++written[name], kMaxSpecWrites) << name;
      }
    }
  }

  Cluster cluster_;
  std::mt19937_64 random_;
  bool calm_ = false;
};

class Faults : public testing::TestWithParam<int> {};

TEST_P(Faults, EndInTheWantedState) {
  Schedule schedule(GetParam());
  schedule.Run();
  schedule.Check();
}

INSTANTIATE_TEST_SUITE_P(Seed, Faults, testing::Range(1, kSeeds + 1));

}  // namespace
}  // namespace echelon::op
