#include "operator/kube/lease.h"

#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "operator/kube/lease_json.h"
#include "operator/kube/resource.h"
#include "tests/operator/kube/fake_api.h"
#include "tests/operator/kube/sim.h"

namespace echelon::op {
namespace {

// Another machine's clock: it starts elsewhere and runs a little fast or slow; a stopped process
// does nothing, and all that was due runs when it goes on.
class OtherClock final : public Timer {
 public:
  OtherClock(Sim* sim, double rate) : sim_(sim), began_(sim->Now()), rate_(rate) {}
  absl::Time Now() override { return absl::UnixEpoch() + (sim_->Now() - began_) * rate_; }
  void After(absl::Duration delay, std::function<void()> task) override {
    sim_->After(delay / rate_, [this, task = std::move(task)] { Run(task); });
  }
  void Run(const std::function<void()>& task) {
    if (stopped_) {
      late_.push_back(task);
    } else {
      task();
    }
  }
  void Stop() { stopped_ = true; }
  void Continue() {
    stopped_ = false;
    while (!late_.empty() && !stopped_) {
      const auto task = std::move(late_.front());
      late_.pop_front();
      task();
    }
  }
  bool stopped() const { return stopped_; }

 private:
  Sim* const sim_;
  const absl::Time began_;
  const double rate_;
  bool stopped_ = false;
  std::deque<std::function<void()>> late_;
};

// The answers of an Api as a process gets them that may be stopped.
class ProcessApi final : public Api {
 public:
  ProcessApi(Api* api, OtherClock* clock) : api_(api), clock_(clock) {}
  void Call(Request request, Done done) override {
    api_->Call(std::move(request),
               [clock = clock_, done = std::move(done)](const absl::StatusOr<Response>& response) {
                 clock->Run([done, response] { done(response); });
               });
  }
  std::unique_ptr<WatchStream> Watch(std::string, OnLine, OnEnd) override { return nullptr; }

 private:
  Api* const api_;
  OtherClock* const clock_;
};

struct Candidate {
  Candidate(const std::string& name, Api* api, Sim* sim, double rate = 1,
            absl::Duration duration = absl::Seconds(10))
      : name(name), sim(sim), clock(sim, rate), process(api, &clock) {
    lease =
        std::make_unique<Lease>(&process, &clock,
                                Lease::Options{.ns = "n",
                                               .name = "leader",
                                               .identity = name,
                                               .duration = duration,
                                               .wall = [this] { return clock.Now(); }},
                                Lease::Callbacks{.acquired = [this] { told.push_back("acquired"); },
                                                 .lost = [this] { told.push_back("lost"); },
                                                 .error = nullptr});
    lease->Start();
  }
  bool Writes() const { return !clock.stopped() && lease->MayWrite(); }

  const std::string name;
  Sim* const sim;
  OtherClock clock;
  ProcessApi process;
  std::vector<std::string> told;
  std::unique_ptr<Lease> lease;
};

class LeaseTest : public testing::Test {
 protected:
  std::string Holder() {
    const auto lease = api_.Find(kLeases, "n", "leader");
    return lease == nullptr ? "none" : (*lease)["spec"].value("holderIdentity", "");
  }
  Sim sim_;
  FakeApi api_{&sim_};
};

TEST_F(LeaseTest, AFreeLeaseIsTakenAtOnceAndKept) {
  Candidate a("a", &api_, &sim_);
  EXPECT_TRUE(sim_.RunUntil([&] { return a.Writes(); }, absl::Milliseconds(20)));
  const absl::Time end = sim_.Now() + absl::Minutes(10);
  while (sim_.Now() < end) {
    sim_.RunFor(absl::Milliseconds(100));
    ASSERT_TRUE(a.Writes());
    ASSERT_LE(a.lease->WriteTimeLeft(), absl::Seconds(8));
  }
  EXPECT_THAT(a.told, testing::ElementsAre("acquired"));
  EXPECT_EQ(a.lease->holder(), "a");
}

TEST_F(LeaseTest, ADeadHoldersLeaseIsTakenWhenItHasStoodStillForItsDuration) {
  std::deque<Candidate> all;  // with what is still on its way to them
  for (const int seconds : {10, 2}) {
    const absl::Duration duration = absl::Seconds(seconds);
    Candidate& a = all.emplace_back("a", &api_, &sim_, 1, duration);
    sim_.RunFor(absl::Minutes(1));
    Candidate& b = all.emplace_back("b", &api_, &sim_, 1, duration);
    sim_.RunFor(absl::Minutes(1));
    ASSERT_TRUE(a.Writes() && !b.Writes());
    a.clock.Stop();
    const absl::Time died = sim_.Now();
    ASSERT_TRUE(sim_.RunUntil([&] { return b.Writes(); }));
    EXPECT_LE(sim_.Now() - died, duration + absl::Seconds(1));
    EXPECT_GE(sim_.Now() - died, duration / 2);
    for (Candidate& candidate : all) candidate.lease.reset();
    api_.Remove(kLeases, "n", "leader");
  }
}

TEST_F(LeaseTest, AReleasedLeaseIsTakenWithinASecond) {
  Candidate a("a", &api_, &sim_);
  sim_.RunFor(absl::Seconds(1));
  Candidate b("b", &api_, &sim_), c("c", &api_, &sim_);
  sim_.RunFor(absl::Minutes(1));
  bool released = false;
  const absl::Time at = sim_.Now();
  a.lease->Release(absl::Seconds(5), [&] { released = true; });
  EXPECT_FALSE(a.Writes());
  EXPECT_TRUE(sim_.RunUntil([&] { return b.Writes() || c.Writes(); }));
  EXPECT_LT(sim_.Now() - at, absl::Seconds(1));
  EXPECT_TRUE(released);
  EXPECT_NE(b.Writes(), c.Writes());
  sim_.RunFor(absl::Minutes(1));
  EXPECT_FALSE(a.Writes()) << "it must not come back";
  EXPECT_THAT(a.told, testing::ElementsAre("acquired", "lost"));
}

TEST_F(LeaseTest, AReleaseEndsAlsoWhereTheServerDoesNotAnswer) {
  Candidate a("a", &api_, &sim_);
  sim_.RunFor(absl::Seconds(1));
  api_.SetDown(true);
  bool released = false;
  a.lease->Release(absl::Seconds(5), [&] { released = true; });
  sim_.RunFor(absl::Seconds(5));
  EXPECT_TRUE(released);
}

TEST_F(LeaseTest, ACandidateThatLeadsNothingReleasesAtOnce) {
  Candidate a("a", &api_, &sim_);
  sim_.RunFor(absl::Seconds(1));
  Candidate b("b", &api_, &sim_);
  sim_.RunFor(absl::Seconds(1));
  bool released = false;
  b.lease->Release(absl::Seconds(5), [&] { released = true; });
  sim_.RunFor(absl::Milliseconds(10));
  EXPECT_TRUE(released);
  EXPECT_EQ(Holder(), "a");
}

TEST_F(LeaseTest, AHolderThatCannotRenewStopsInTimeAndTakesItUpAgain) {
  Candidate a("a", &api_, &sim_);
  sim_.RunFor(absl::Minutes(1));
  api_.SetDown(true);
  sim_.RunFor(absl::Seconds(8));
  EXPECT_FALSE(a.Writes());
  EXPECT_THAT(a.told, testing::ElementsAre("acquired", "lost"));
  api_.SetDown(false);
  sim_.RunFor(absl::Seconds(5));
  EXPECT_TRUE(a.Writes());
  EXPECT_THAT(a.told, testing::ElementsAre("acquired", "lost", "acquired"));
}

TEST_F(LeaseTest, AStoppedHolderMayNotWriteWhenItWakesUp) {
  Candidate a("a", &api_, &sim_), b("b", &api_, &sim_);
  sim_.RunFor(absl::Minutes(1));
  Candidate& holder = a.Writes() ? a : b;
  Candidate& other = a.Writes() ? b : a;
  holder.clock.Stop();
  sim_.RunFor(absl::Seconds(30));
  EXPECT_TRUE(other.Writes());
  EXPECT_FALSE(holder.lease->MayWrite()) << "nothing has told it, but it reads the clock";
  holder.clock.Continue();
  sim_.RunFor(absl::Seconds(5));
  EXPECT_FALSE(holder.Writes());
  EXPECT_TRUE(other.Writes());
  EXPECT_EQ(holder.told.back(), "lost");
}

TEST_F(LeaseTest, WhatOthersWroteIntoTheLeaseStays) {
  Candidate a("a", &api_, &sim_);
  sim_.RunFor(absl::Seconds(1));
  const Response response = api_.Do(
      MergePatch(kLeases, "n", "leader", R"({"metadata":{"annotations":{"theirs":"stays"}}})"));
  ASSERT_TRUE(response.ok());
  sim_.RunFor(absl::Minutes(1));
  EXPECT_TRUE(a.Writes());
  EXPECT_EQ((*api_.Find(kLeases, "n", "leader"))["metadata"]["annotations"]["theirs"], "stays");
}

TEST(LeaseJson, ForeignFieldsAreReadWithCare) {
  EXPECT_FALSE(ReadLease(Json::array()).ok());
  const Json odd{
      {"spec", {{"holderIdentity", 7}, {"leaseDurationSeconds", "x"}, {"renewTime", "yesterday"}}}};
  EXPECT_EQ(*ReadLease(odd), (LeaseSpec{.holder = "", .duration = absl::Seconds(15)}));
  const Json endless{{"spec", {{"holderIdentity", "a"}, {"leaseDurationSeconds", 999999999}}}};
  EXPECT_EQ(ReadLease(endless)->duration, absl::Hours(1));
}

TEST(LeaseJson, WhatIsWrittenIsReadBack) {
  const LeaseSpec spec{.holder = "a",
                       .duration = absl::Seconds(10),
                       .acquired = absl::FromUnixMicros(1'900'000'000'000'001),
                       .renewed = absl::FromUnixMicros(1'900'000'000'123'456),
                       .transitions = 3};
  Json lease;
  WriteLease(spec, lease);
  EXPECT_EQ(lease["spec"]["renewTime"], "2030-03-17T17:46:40.123456Z");
  EXPECT_EQ(*ReadLease(lease), spec);
}

TEST(LeaseJson, ItsDurationIsNeverShorterThanItsHolders) {
  Json lease;
  WriteLease({.holder = "a", .duration = absl::Seconds(2.5)}, lease);
  EXPECT_EQ(ReadLease(lease)->duration, absl::Seconds(3));
}

// Three candidates whose clocks differ, an API that loses and delays, processes that stop: never
// two writers.
TEST(LeaseSimulation, NoScheduleHasTwoWriters) {
  int64_t led = 0, moments = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937_64 random(seed);
    const auto chance = [&](double p) { return std::bernoulli_distribution(p)(random); };
    Sim sim;
    FakeApi api(&sim, {.seed = seed});
    api.SetFaults([&](const Request&) {
      Fault fault;
      fault.lose_request = chance(0.05);
      fault.lose_response = chance(0.1);
      if (chance(0.2)) fault.before = absl::Milliseconds(random() % 6000);
      if (chance(0.2)) fault.after = absl::Milliseconds(random() % 6000);
      if (chance(0.03)) fault.code = 500;
      return fault;
    });
    std::vector<std::unique_ptr<Candidate>> all;
    for (const char* name : {"a", "b", "c"}) {
      const double rate = 0.95 + 0.1 * std::uniform_real_distribution<double>(0, 1)(random);
      all.push_back(std::make_unique<Candidate>(name, &api, &sim, rate));
    }
    const absl::Time end = sim.Now() + absl::Minutes(10);
    while (sim.Now() < end) {
      for (int i = 0; i < 5; ++i) sim.Step();
      const auto writers =
          std::count_if(all.begin(), all.end(), [](const auto& c) { return c->Writes(); });
      ASSERT_LE(writers, 1) << sim.Now();
      ++moments;
      led += writers;
      for (const auto& candidate : all) {
        if (chance(0.002)) candidate->clock.Stop();
        if (candidate->clock.stopped() && chance(0.01)) candidate->clock.Continue();
      }
      if (chance(0.001)) api.SetDown(true);
      if (chance(0.05)) api.SetDown(false);
    }
    for (const auto& candidate : all) candidate->clock.Continue();
    api.SetDown(false);
    api.SetFaults(nullptr);
    ASSERT_TRUE(sim.RunUntil([&] {
      return std::any_of(all.begin(), all.end(), [](const auto& c) { return c->Writes(); });
    }));
  }
  EXPECT_GT(led, moments / 2) << "mostly somebody leads";
}

}  // namespace
}  // namespace echelon::op
