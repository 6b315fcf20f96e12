// The operator against a real API server, through a proxy that breaks what goes through it. Nobody
// makes pods there: what is looked at is what the operator writes.
#include "tests/operator/kube/server.h"

#include <cstdlib>
#include <fstream>
#include <future>
#include <map>
#include <random>
#include <sstream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "operator/api/yaml.h"
#include "operator/controller/controller.h"
#include "operator/kube/http_api.h"
#include "operator/kube/lease.h"
#include "operator/kube/resource.h"

namespace echelon::op {
namespace {

using nlohmann::json;

constexpr const Resource* kMade[] = {&kServices, &kPodDisruptionBudgets, &kNetworkPolicies,
                                     &kControllerRevisions, &kStatefulSets};

class NoHeads final : public HeadClient {
 public:
  void Get(const std::string&, Done) override { ADD_FAILURE() << "there is no pod to ask"; }
};

// As operator/run.cc wires it.
class Replica {
 public:
  Replica(Server& server, const std::string& name, uint64_t seed)
      : loop_(MakeTimerThread()), timer_(MakeTimerThread()), metrics_("test") {
    lease_ = std::make_unique<Lease>(
        &server.api(), timer_.get(),
        Lease::Options{
            .ns = server.ns(), .name = "operator", .identity = name, .duration = absl::Seconds(2)},
        Lease::Callbacks{.acquired = [this] { controller_->Lead(true); },
                         .lost = [this] { controller_->Lead(false); },
                         .error = [](const absl::Status&) {}});
    controller_ = std::make_unique<Controller>(
        Controller::World{.api = &server.api(),
                          .loop = loop_.get(),
                          .watches = timer_.get(),
                          .heads = &heads_,
                          .metrics = &metrics_,
                          .write_time = [this] { return lease_->WriteTimeLeft(); },
                          .wall_clock = [] { return absl::Now(); }},
        Controller::Options{
            .settings = {.runtime_image = "runtime:1", .exporter_image = "exporter:1"},
            .ns = server.ns(),
            .seed = seed});
    controller_->Start();
    lease_->Start();
  }

  // The process is gone without a word; what is still under way on the server's Api ends nowhere.
  void Kill() {
    if (lease_ == nullptr) return;
    std::promise<void> stopped;
    controller_->Stop([&stopped] { stopped.set_value(); });
    stopped.get_future().wait();
    lease_.reset();
  }
  Controller& controller() { return *controller_; }

 private:
  std::unique_ptr<Timer> loop_, timer_;
  Metrics metrics_;
  NoHeads heads_;
  std::unique_ptr<Lease> lease_;
  std::unique_ptr<Controller> controller_;
};

class OnAServer : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    server_ = MakeRealServer();
    if (server_ == nullptr) GTEST_SKIP() << "no API server: ECHELON_KUBE_TEST_CONFIG is not set";
    std::stringstream text;
    text << std::ifstream(ECHELON_CRD).rdbuf();
    const auto crd = ParseYaml(text.str());
    ASSERT_TRUE(crd.ok()) << crd.status();
    const std::string name = (*crd)[0]["metadata"]["name"];
    server_->Must(Apply(kCustomResourceDefinitions, "", name, (*crd)[0].dump()));
    ASSERT_TRUE(Until([&] {
      const auto list = server_->Ask({.path = CollectionPath(kPipelineDeployments, server_->ns())});
      return list.ok() && list->ok();
    }));
  }
  void TearDown() override {
    for (auto& replica : replicas_) replica->Kill();
    server_.reset();  // ends every callback before what they lead to
  }

  // Also for conditions that ask the server themselves, which may not be done within its Wait.
  bool Until(const std::function<bool()>& done, absl::Duration limit = absl::Seconds(20)) {
    const absl::Time deadline = server_->timer().Now() + limit;
    while (!done()) {
      if (server_->timer().Now() >= deadline) return false;
      const absl::Time next = server_->timer().Now() + absl::Milliseconds(50);
      server_->Wait([&] { return server_->timer().Now() >= next; });
    }
    return true;
  }
  void Start() {
    replicas_.push_back(std::make_unique<Replica>(
        *server_, absl::StrCat("replica-", replicas_.size()), GetParam() * 10 + replicas_.size()));
  }
  void Put(const std::string& name, const json& spec = json::object()) {
    json object{{"apiVersion", "echelon.dev/v1alpha1"},
                {"kind", "PipelineDeployment"},
                {"metadata", {{"name", name}}},
                {"spec",
                 {{"model",
                   {{"source", {{"type", "HostPath"}, {"hostPath", {{"path", "/models"}}}}},
                    {"path", "net.pt2"}}},
                  {"parallelism", {{"stages", 2}}}}}};
    object["spec"].merge_patch(spec);
    // Its connection may break, too.
    ASSERT_TRUE(Until([&] {
      const auto put = server_->Ask(Apply(kPipelineDeployments, server_->ns(), name, object.dump(),
                                          {.field_manager = "kubectl"}));
      return put.ok() && put->ok();
    }));
  }
  std::map<std::string, json> Made() {
    std::map<std::string, json> made;
    for (const Resource* resource : kMade) {
      const auto list = server_->Ask({.path = CollectionPath(*resource, server_->ns())});
      if (!list.ok() || !list->ok()) return {};
      const json parsed = json::parse(list->body);
      for (const json& item : parsed["items"]) {
        made[absl::StrCat(std::string(resource->kind), "/",
                          item["metadata"]["name"].get<std::string>())] = item;
      }
    }
    return made;
  }
  bool IsObserved(const std::string& name) {
    const auto answer = server_->Ask(Get(kPipelineDeployments, server_->ns(), name));
    if (!answer.ok() || !answer->ok()) return false;
    const json object = json::parse(answer->body);
    return object.value("status", json::object()).value("observedGeneration", 0) ==
           object["metadata"]["generation"];
  }

  std::unique_ptr<Server> server_;
  std::vector<std::unique_ptr<Replica>> replicas_;
};

TEST_P(OnAServer, WhatIsWantedIsMadeOnceThroughAllThatBreaks) {
  std::mt19937_64 random(GetParam());
  const auto between = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  const auto mishap = [&] {
    switch (between(0, 3)) {
      case 0:
        return server_->CutConnections();
      case 1: {
        server_->SetSilent(true);
        const absl::Time until = server_->timer().Now() + absl::Milliseconds(between(100, 2500));
        server_->Wait([&] { return server_->timer().Now() >= until; });
        server_->SetSilent(false);
        return server_->CutConnections();
      }
      case 2:
        if (replicas_.size() > 3) return;
        replicas_[between(0, static_cast<int>(replicas_.size()) - 1)]->Kill();
        return Start();
      default:
        return;
    }
  };
  Start();
  Start();
  for (const char* name : {"a", "b", "c"}) {
    Put(name);
    mishap();
  }
  Put("b", {{"service", {{"annotations", {{"owner", "b"}}}}}});
  mishap();
  // Three objects, of each: two Services, a budget, a policy, a revision and a set.
  ASSERT_TRUE(Until([&] { return Made().size() == 18; }, absl::Seconds(60))) << Made().size();
  ASSERT_TRUE(Until(
      [&] {
        return IsObserved("a") && IsObserved("b") && IsObserved("c") &&
               Made()["Service/b"]["metadata"]["annotations"].contains("owner");
      },
      absl::Seconds(60)));

  const auto before = Made();
  for (const auto& [name, object] : before) {
    EXPECT_LE(object["metadata"].value("generation", 1), 2) << name;
  }
  // A new leader finds nothing to do.
  for (auto& replica : replicas_) replica->Kill();
  Start();
  ASSERT_TRUE(Until([&] { return replicas_.back()->controller().Ready().ok(); }));
  Put("d");
  ASSERT_TRUE(Until([&] { return Made().size() == 24 && IsObserved("d"); }, absl::Seconds(60)));
  auto after = Made();
  for (const auto& [name, object] : before) {
    EXPECT_EQ(after[name]["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"])
        << name;
  }
}

TEST_P(OnAServer, AnAnnotationThatIsTakenAwayGoes) {
  Start();
  Put("net", {{"service", {{"annotations", {{"a", "1"}, {"b", "2"}}}}}});
  const auto annotations = [&] {
    const auto made = Made();
    const auto at = made.find("Service/net");
    return at == made.end() ? json::object() : at->second["metadata"]["annotations"];
  };
  ASSERT_TRUE(Until([&] { return annotations().value("b", "") == "2"; }));
  Put("net", {{"service", {{"annotations", {{"a", "3"}}}}}});
  ASSERT_TRUE(Until([&] { return annotations().value("a", "") == "3"; }));
  EXPECT_FALSE(annotations().contains("b"));
}

TEST_P(OnAServer, ATemplateThatIsNoPodMakesNothing) {
  Start();
  Put("net", {{"template", {{"spec", {{"hostnme", "x"}}}}}});
  ASSERT_TRUE(Until([&] {
    const auto answer = server_->Ask(Get(kPipelineDeployments, server_->ns(), "net"));
    return answer.ok() && answer->body.find("InvalidTemplate") != std::string::npos &&
           answer->body.find("hostnme") != std::string::npos;
  }));
  EXPECT_EQ(Made().size(), 0u);
}

// ECHELON_TEST_SEEDS=100 for a long look.
int Seeds() {
  const char* wanted = std::getenv("ECHELON_TEST_SEEDS");
  int seeds = 3;
  if (wanted != nullptr && !absl::SimpleAtoi(wanted, &seeds)) std::abort();
  return seeds;
}

INSTANTIATE_TEST_SUITE_P(Seed, OnAServer, testing::Range(1, Seeds() + 1));

}  // namespace
}  // namespace echelon::op

int main(int argc, char** argv) {
  echelon::op::StartKubeThread();
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
