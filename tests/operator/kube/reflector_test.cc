#include "operator/kube/reflector.h"

#include <map>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "operator/kube/list_page.h"
#include "tests/operator/kube/fake_api.h"
#include "tests/operator/kube/sim.h"

namespace echelon::op {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Json Map(const std::string& name, const std::string& value = "1") {
  return {{"apiVersion", "v1"},
          {"kind", "ConfigMap"},
          {"metadata", {{"name", name}, {"namespace", "n"}}},
          {"data", {{"v", value}}}};
}

// A reflector of ConfigMaps and what it has told.
class Follower {
 public:
  Follower(Api* api, Timer* timer, uint64_t seed = 1, int page = 250)
      : reflector_(api, timer, kConfigMaps, {.of = {.ns = "n"}, .page = page, .seed = seed},
                   {.upsert =
                        [this](const std::string& key, const Json& object) {
                          told_.push_back("+" + key);
                          cache_[key] = object["data"].value("v", "");
                        },
                    .remove =
                        [this](const std::string& key) {
                          told_.push_back("-" + key);
                          EXPECT_EQ(cache_.erase(key), 1u) << key;
                        },
                    .synced = [this] { told_.push_back("synced"); },
                    .error = [this](const absl::Status& why) { errors_.push_back(why); }}) {
    reflector_.Start();
  }
  Reflector& reflector() { return reflector_; }
  std::vector<std::string> TakeTold() { return std::exchange(told_, {}); }
  const std::map<std::string, std::string>& cache() const { return cache_; }
  const std::vector<absl::Status>& errors() const { return errors_; }

 private:
  std::vector<std::string> told_;
  std::map<std::string, std::string> cache_;
  std::vector<absl::Status> errors_;
  Reflector reflector_;
};

// What the cache should be.
std::map<std::string, std::string> Truth(FakeApi& api) {
  std::map<std::string, std::string> truth;
  for (const auto& object : api.All(kConfigMaps)) {
    truth[KeyOf(*object)] = (*object)["data"].value("v", "");
  }
  return truth;
}

class ReflectorTest : public testing::Test {
 protected:
  Sim sim_;
  FakeApi api_{&sim_};
};

TEST_F(ReflectorTest, TellsWhatThereIsThenThatItIsAllThenEveryChange) {
  api_.Put(kConfigMaps, Map("a"));
  api_.Put(kConfigMaps, Map("b"));
  Follower follower(&api_, &sim_);
  sim_.RunFor(absl::Seconds(1));
  EXPECT_THAT(follower.TakeTold(), ElementsAre("+n/a", "+n/b", "synced"));
  api_.Put(kConfigMaps, Map("b", "2"));
  api_.Remove(kConfigMaps, "n", "a");
  sim_.RunFor(absl::Seconds(1));
  EXPECT_THAT(follower.TakeTold(), ElementsAre("+n/b", "-n/a"));
  EXPECT_THAT(follower.errors(), testing::IsEmpty());
}

TEST_F(ReflectorTest, ReadsLargeListsInPages) {
  for (int i = 0; i < 1234; ++i) api_.Put(kConfigMaps, Map(absl::StrCat("m", i)));
  Follower follower(&api_, &sim_);
  sim_.RunFor(absl::Seconds(1));
  EXPECT_EQ(follower.cache(), Truth(api_));
  EXPECT_EQ(api_.log().size(), 6u);  // five pages and a watch
}

TEST_F(ReflectorTest, LearnsOfDeletionsThatItMissedAndTellsNothingTwice) {
  for (const char* name : {"a", "b", "c"}) api_.Put(kConfigMaps, Map(name));
  Follower follower(&api_, &sim_);
  sim_.RunFor(absl::Seconds(1));
  follower.TakeTold();
  api_.SetDown(true);
  api_.Remove(kConfigMaps, "n", "b");
  api_.Put(kConfigMaps, Map("c", "2"));
  api_.Put(kConfigMaps, Map("d"));
  api_.Compact();
  sim_.RunFor(absl::Minutes(5));
  EXPECT_THAT(follower.TakeTold(), testing::IsEmpty());
  api_.SetDown(false);
  sim_.RunFor(absl::Minutes(1));
  EXPECT_THAT(follower.TakeTold(), ElementsAre("+n/c", "+n/d", "-n/b"));
  EXPECT_EQ(follower.reflector().stats().lists, 2);
}

TEST_F(ReflectorTest, ResumesWithoutAListWhenAWatchIsCut) {
  Follower follower(&api_, &sim_);
  sim_.RunFor(absl::Seconds(1));
  for (int i = 0; i < 20; ++i) {
    api_.CutWatches(i % 2 ? absl::OkStatus() : absl::UnavailableError("cut"));
    api_.Put(kConfigMaps, Map("a", absl::StrCat(i)));
    sim_.RunFor(absl::Seconds(1));
    EXPECT_EQ(follower.cache(), Truth(api_));
  }
  EXPECT_EQ(follower.reflector().stats().lists, 1);
}

TEST_F(ReflectorTest, AQuietWatchLivesOnBookmarksThroughACompaction) {
  Follower follower(&api_, &sim_);
  sim_.RunFor(absl::Seconds(1));
  // Others' objects move the version on.
  for (int i = 0; i < 50; ++i) {
    Json other = Map("x", absl::StrCat(i));
    other["metadata"]["namespace"] = "elsewhere";
    api_.Put(kConfigMaps, other);
  }
  sim_.RunFor(absl::Seconds(61));  // a bookmark
  api_.Compact();
  api_.CutWatches();
  api_.Put(kConfigMaps, Map("a"));
  sim_.RunFor(absl::Seconds(10));
  EXPECT_EQ(follower.reflector().stats().lists, 1);
  EXPECT_EQ(follower.cache().count("n/a"), 1u);
}

TEST_F(ReflectorTest, NoEventIsLostWhenTheServerFallsSilent) {
  Follower follower(&api_, &sim_);
  sim_.RunFor(absl::Seconds(1));
  api_.SetSilent(true);
  api_.Put(kConfigMaps, Map("a"));
  sim_.RunFor(absl::Seconds(10));
  api_.SetSilent(false);
  api_.Put(kConfigMaps, Map("b"));  // the watch is deaf by now
  sim_.RunFor(absl::Minutes(3));
  EXPECT_EQ(follower.cache(), Truth(api_));
}

TEST_F(ReflectorTest, AListWhoseTokenExpiresBeginsAnew) {
  for (int i = 0; i < 10; ++i) api_.Put(kConfigMaps, Map(absl::StrCat("m", i)));
  int pages = 0;
  api_.SetFaults([&](const Request& request) {
    if (request.path.find("limit=") != std::string::npos && ++pages == 3) {
      sim_.After(absl::ZeroDuration(), [&] { api_.Compact(); });
    }
    return Fault();
  });
  Follower follower(&api_, &sim_, 1, 3);
  sim_.RunFor(absl::Minutes(1));
  EXPECT_EQ(follower.cache(), Truth(api_));
  EXPECT_EQ(follower.reflector().stats().lists, 2);
  ASSERT_FALSE(follower.errors().empty());
  EXPECT_THAT(std::string(follower.errors()[0].message()),
              HasSubstr("list of configmaps: 410 Expired"));
}

TEST_F(ReflectorTest, ABusyServerIsLeftAloneForAsLongAsItAsks) {
  api_.SetFaults([](const Request&) {
    return Fault{.code = 429, .reason = "TooManyRequests", .retry_after = absl::Seconds(20)};
  });
  Follower follower(&api_, &sim_);
  sim_.RunFor(absl::Seconds(19));
  EXPECT_EQ(api_.log().size(), 1u);
  sim_.RunFor(absl::Seconds(10));
  EXPECT_EQ(api_.log().size(), 2u);
}

TEST_F(ReflectorTest, AServerThatIsDownIsAskedLessAndLess) {
  api_.SetDown(true);
  Follower follower(&api_, &sim_);
  sim_.RunFor(absl::Minutes(10));
  const auto asked = api_.log();
  EXPECT_GT(asked.size(), 20u);
  EXPECT_LT(asked.size(), 100u);
}

TEST_F(ReflectorTest, TellsNothingOnceStopped) {
  Follower follower(&api_, &sim_);
  sim_.RunFor(absl::Seconds(1));
  follower.TakeTold();
  api_.Put(kConfigMaps, Map("a"));
  follower.reflector().Stop();
  sim_.RunFor(absl::Minutes(10));
  EXPECT_THAT(follower.TakeTold(), testing::IsEmpty());
  EXPECT_EQ(api_.open_watches(), 0u);
}

// Whatever goes wrong meanwhile, once it stops going wrong the cache is the truth.
TEST(ReflectorSimulation, EveryScheduleOfFaultsEndsInTheTruth) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937_64 random(seed);
    const auto chance = [&](double p) { return std::bernoulli_distribution(p)(random); };
    Sim sim;
    FakeApi api(&sim, {.seed = seed});
    bool faulty = true;
    api.SetFaults([&](const Request&) {
      Fault fault;
      if (!faulty) return fault;
      fault.lose_request = chance(0.05);
      fault.lose_response = chance(0.05);
      if (chance(0.1)) fault.before = absl::Milliseconds(random() % 40'000);
      if (chance(0.05)) fault.after = absl::Milliseconds(random() % 40'000);
      if (chance(0.05)) fault.code = 500;
      if (chance(0.03)) {
        fault.code = 429;
        fault.retry_after = absl::Seconds(random() % 10);
      }
      if (chance(0.03)) fault.code = 410;
      return fault;
    });
    Follower follower(&api, &sim, seed, 1 + static_cast<int>(random() % 7));
    for (int i = 0; i < 300; ++i) {
      const std::string name = absl::StrCat("m", random() % 20);
      if (chance(0.3) && api.Find(kConfigMaps, "n", name) != nullptr) {
        api.Remove(kConfigMaps, "n", name);
      } else {
        api.Put(kConfigMaps, Map(name, absl::StrCat(i)));
      }
      if (chance(0.03)) api.CutWatches();
      if (chance(0.02)) api.CutWatches(absl::OkStatus());
      if (chance(0.02)) api.Compact();
      if (chance(0.01)) api.Restart();
      if (chance(0.02)) api.SetSilent(true);
      if (chance(0.2)) api.SetSilent(false);
      if (chance(0.02)) api.SetDown(true);
      if (chance(0.2)) api.SetDown(false);
      if (chance(0.05)) api.SendBookmarks();
      sim.RunFor(absl::Milliseconds(random() % 3000));
    }
    faulty = false;
    api.SetSilent(false);
    api.SetDown(false);
    // Past every time-out and every back-off.
    sim.RunFor(absl::Minutes(5));
    ASSERT_EQ(follower.cache(), Truth(api));
    ASSERT_TRUE(follower.reflector().stats().synced);
    ASSERT_EQ(api.open_watches(), 1u);
  }
}

}  // namespace
}  // namespace echelon::op
