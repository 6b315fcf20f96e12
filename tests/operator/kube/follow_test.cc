// Reflector and lease on an API server, fake or real, whose connections break.
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "operator/kube/lease.h"
#include "operator/kube/list_page.h"
#include "operator/kube/reflector.h"
#include "operator/kube/resource.h"
#include "tests/operator/kube/server.h"

namespace echelon::op {
namespace {

using nlohmann::json;

struct Kind {
  const char* name;
  std::unique_ptr<Server> (*make)();
};

class Follow : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    server_ = GetParam().make();
    if (server_ == nullptr) GTEST_SKIP() << "no API server: ECHELON_KUBE_TEST_CONFIG is not set";
  }
  const std::string& ns() { return server_->ns(); }
  // As long as it takes: connections may have been cut.
  void Put(const std::string& name, const std::string& value) {
    const json map{{"apiVersion", "v1"},
                   {"kind", "ConfigMap"},
                   {"metadata", {{"name", name}}},
                   {"data", {{"v", value}}}};
    Insist(Apply(kConfigMaps, ns(), name, map.dump()));
  }
  void Insist(const Request& request) {
    for (int i = 0; i < 20; ++i) {
      const auto response = server_->Ask(request);
      if (!response.ok()) continue;
      EXPECT_TRUE(response->ok() || response->code == 404) << ErrorText(*response);
      return;
    }
    ADD_FAILURE() << "no answer to " << request.path;
  }

  std::unique_ptr<Server> server_;
};

class Cache {
 public:
  Cache(Server& server, int page)
      : reflector_(&server.api(), &server.timer(), kConfigMaps,
                   {.of = {.ns = server.ns()}, .page = page},
                   {.upsert =
                        [this](const std::string& key, const json& object) {
                          const std::lock_guard lock(mutex_);
                          all_[key.substr(key.find('/') + 1)] = object["data"].value("v", "");
                        },
                    .remove =
                        [this](const std::string& key) {
                          const std::lock_guard lock(mutex_);
                          all_.erase(key.substr(key.find('/') + 1));
                        },
                    .synced = nullptr,
                    .error = nullptr}) {
    reflector_.Start();
  }
  std::map<std::string, std::string> all() const {
    const std::lock_guard lock(mutex_);
    return all_;
  }
  Reflector::Stats stats() const { return reflector_.stats(); }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::string> all_;
  Reflector reflector_;
};

TEST_P(Follow, ACacheFollowsThroughCutAndSilentConnections) {
  std::map<std::string, std::string> wanted;
  for (int i = 0; i < 12; ++i) {
    Put(absl::StrCat("m", i), "0");
    wanted[absl::StrCat("m", i)] = "0";
  }
  Cache cache(*server_, 5);
  ASSERT_TRUE(server_->Wait([&] { return cache.all() == wanted; }));
  for (int round = 1; round <= 8; ++round) {
    if (round % 4 == 3) {
      server_->SetSilent(true);
      // Long enough that the watch, too, is deaf.
      Request ask = Get(kConfigMaps, ns(), "m0");
      ask.timeout = absl::Milliseconds(500);
      EXPECT_FALSE(server_->Ask(ask).ok());
      server_->SetSilent(false);
    } else {
      server_->CutConnections();
    }
    const std::string gone = absl::StrCat("m", round), changed = absl::StrCat("m", round + 1);
    Insist(Delete(kConfigMaps, ns(), gone));
    wanted.erase(gone);
    Put(changed, absl::StrCat(round));
    wanted[changed] = absl::StrCat(round);
    Put(absl::StrCat("new", round), "1");
    wanted[absl::StrCat("new", round)] = "1";
    ASSERT_TRUE(server_->Wait([&] { return cache.all() == wanted; }, absl::Minutes(3)))
        << "round " << round;
  }
  EXPECT_EQ(cache.stats().lists, 1) << "every watch went on from where the last one ended";
  EXPECT_GE(cache.stats().watches, 4);
}

TEST_P(Follow, OneOfTwoCandidatesLeadsAndTheOtherTakesOverUponARelease) {
  struct Candidate {
    Candidate(Server& server, const std::string& name)
        : lease(&server.api(), &server.timer(),
                {.ns = server.ns(),
                 .name = "leader",
                 .identity = NewIdentity(name),
                 .duration = absl::Seconds(10)},
                {}) {
      lease.Start();
    }
    Lease lease;
  };
  Candidate a(*server_, "a"), b(*server_, "b");
  ASSERT_TRUE(server_->Wait([&] { return a.lease.MayWrite() || b.lease.MayWrite(); }));
  ASSERT_NE(a.lease.MayWrite(), b.lease.MayWrite());
  Candidate& leader = a.lease.MayWrite() ? a : b;
  Candidate& other = a.lease.MayWrite() ? b : a;
  // Through a renewal or two.
  const absl::Time later = server_->timer().Now() + absl::Seconds(4);
  bool both = false;
  server_->timer().After(absl::Seconds(4), [] {});
  server_->Wait([&] {
    both |= other.lease.MayWrite();
    return server_->timer().Now() >= later;
  });
  EXPECT_FALSE(both);
  EXPECT_TRUE(leader.lease.MayWrite());

  const absl::Time released = server_->timer().Now();
  std::atomic<bool> done = false;
  leader.lease.Release(absl::Seconds(5), [&] { done = true; });
  EXPECT_FALSE(leader.lease.MayWrite());
  ASSERT_TRUE(server_->Wait([&] { return other.lease.MayWrite() && done; }));
  const absl::Duration took = server_->timer().Now() - released;
  RecordProperty("takeover_ms", static_cast<int>(absl::ToInt64Milliseconds(took)));
  // On a real server, and a machine with other work, at least not by waiting until it expires.
  EXPECT_LT(took, GetParam().make == MakeFakeServer ? absl::Seconds(1) : absl::Seconds(5));
}

INSTANTIATE_TEST_SUITE_P(Of, Follow,
                         testing::Values(Kind{"Fake", MakeFakeServer},
                                         Kind{"Real", MakeRealServer}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace echelon::op
