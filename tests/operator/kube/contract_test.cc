// What the operator relies on of an API server, and of both Apis: the fake must behave as the real
// one does.
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "operator/kube/list_page.h"
#include "operator/kube/resource.h"
#include "tests/operator/kube/server.h"

namespace echelon::op {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json Map(const std::string& name, const json& data, const json& labels = json::object()) {
  return {{"apiVersion", "v1"},
          {"kind", "ConfigMap"},
          {"metadata", {{"name", name}, {"labels", labels}}},
          {"data", data}};
}

json Budget(const std::string& name, int unavailable) {
  return {{"apiVersion", "policy/v1"},
          {"kind", "PodDisruptionBudget"},
          {"metadata", {{"name", name}}},
          {"spec",
           {{"maxUnavailable", unavailable}, {"selector", {{"matchLabels", {{"app", name}}}}}}}};
}

std::string Version(const json& object) { return MetaText(object, "resourceVersion"); }

struct Kind {
  const char* name;
  std::unique_ptr<Server> (*make)();
};

class Contract : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    server_ = GetParam().make();
    if (server_ == nullptr) GTEST_SKIP() << "no API server: ECHELON_KUBE_TEST_CONFIG is not set";
  }
  const std::string& ns() { return server_->ns(); }
  json Applied(const Resource& resource, const json& object, const ApplyOptions& options = {}) {
    return server_->Must(Apply(resource, ns(), MetaText(object, "name"), object.dump(), options));
  }
  // The refusal of a request that reaches the server.
  Response Refused(const Request& request) {
    auto response = server_->Ask(request);
    EXPECT_TRUE(response.ok()) << response.status();
    if (!response.ok()) return {};
    EXPECT_FALSE(response->ok()) << response->body;
    return *std::move(response);
  }
  std::string ListVersion(const Resource& resource) {
    return Version(server_->Must({.path = ListPath(resource, {.ns = ns()}, 1)}));
  }

  std::unique_ptr<Server> server_;
};

// A watch and what it has seen.
class Watcher {
 public:
  Watcher(Server& server, const Resource& resource, Selection of, const std::string& version)
      : server_(server) {
    stream_ = server.api().Watch(
        WatchPath(resource, of, version, absl::Minutes(5)),
        [this](std::string_view line) {
          const auto read = ReadWatchLine(line, {});
          const std::lock_guard lock(mutex_);
          if (!read.ok()) return seen_.push_back(std::string(read.status().message()));
          if (read->type == "BOOKMARK") return;
          seen_.push_back(read->type == "ERROR"
                              ? absl::StrCat("ERROR ", read->object.value("code", 0))
                              : absl::StrCat(read->type, " ", MetaText(read->object, "name")));
        },
        [this](absl::Status why) {
          const std::lock_guard lock(mutex_);
          ++ends_;
          end_ = std::move(why);
        });
  }
  ~Watcher() {
    stream_->Cancel();
    EXPECT_TRUE(server_.Wait([this] { return ends() > 0; }));
    EXPECT_EQ(ends(), 1);
  }
  WatchStream& stream() { return *stream_; }
  std::vector<std::string> seen() {
    const std::lock_guard lock(mutex_);
    return seen_;
  }
  // Once there are so many.
  std::vector<std::string> Seen(size_t count) {
    server_.Wait([&] { return seen().size() >= count; });
    return seen();
  }
  int ends() {
    const std::lock_guard lock(mutex_);
    return ends_;
  }
  absl::Status End() {
    server_.Wait([this] { return ends() > 0; });
    const std::lock_guard lock(mutex_);
    return end_;
  }

 private:
  Server& server_;
  std::mutex mutex_;
  std::vector<std::string> seen_;
  int ends_ = 0;
  absl::Status end_ = absl::UnknownError("it has not ended");
  std::unique_ptr<WatchStream> stream_;
};

TEST_P(Contract, ACreatedObjectIsReadBackAndNotCreatedTwice) {
  const json made = server_->Must(Create(kConfigMaps, ns(), Map("a", {{"k", "v"}}).dump()));
  EXPECT_FALSE(MetaText(made, "uid").empty());
  EXPECT_FALSE(MetaText(made, "creationTimestamp").empty());
  const json read = server_->Must(Get(kConfigMaps, ns(), "a"));
  EXPECT_EQ(read["data"], json({{"k", "v"}}));
  EXPECT_EQ(Version(read), Version(made));

  const Response again = Refused(Create(kConfigMaps, ns(), Map("a", {}).dump()));
  EXPECT_EQ(again.code, 409);
  EXPECT_EQ(ErrorReason(again), "AlreadyExists");
  EXPECT_TRUE(absl::IsAlreadyExists(ToStatus(again)));
}

TEST_P(Contract, ARefusalIsOneLineWithReasonAndMessage) {
  const Response missing = Refused(Get(kConfigMaps, ns(), "absent"));
  EXPECT_EQ(ErrorText(missing), "404 NotFound: configmaps \"absent\" not found");
  EXPECT_TRUE(absl::IsNotFound(ToStatus(missing)));
}

TEST_P(Contract, ApplyingTheSameAgainChangesNothing) {
  const json first = Applied(kPodDisruptionBudgets, Budget("b", 1));
  EXPECT_EQ(first["metadata"]["generation"], 1);
  const json second = Applied(kPodDisruptionBudgets, Budget("b", 1));
  EXPECT_EQ(Version(second), Version(first));
  const json third = Applied(kPodDisruptionBudgets, Budget("b", 2));
  EXPECT_NE(Version(third), Version(first));
  EXPECT_EQ(third["metadata"]["generation"], 2);
  EXPECT_EQ(MetaText(third, "uid"), MetaText(first, "uid"));
}

TEST_P(Contract, ADryRunWritesNothing) {
  const json first = Applied(kPodDisruptionBudgets, Budget("b", 1));
  const json dry = Applied(kPodDisruptionBudgets, Budget("b", 7), {.dry_run = true});
  EXPECT_EQ(dry["spec"]["maxUnavailable"], 7);
  EXPECT_EQ(server_->Must(Get(kPodDisruptionBudgets, ns(), "b"))["spec"]["maxUnavailable"], 1);
  Applied(kPodDisruptionBudgets, Budget("new", 1), {.dry_run = true});
  EXPECT_EQ(Refused(Get(kPodDisruptionBudgets, ns(), "new")).code, 404);
}

TEST_P(Contract, AnAppliedObjectLosesWhatItsManagerNoLongerNamesAndNothingElse) {
  Applied(kConfigMaps, Map("a", {{"ours", "1"}, {"gone", "1"}}, {{"ours", "x"}}));
  Applied(kConfigMaps, Map("a", {{"theirs", "2"}}, {{"theirs", "y"}}), {.field_manager = "other"});
  const json both = server_->Must(Get(kConfigMaps, ns(), "a"));
  EXPECT_EQ(both["data"], json({{"ours", "1"}, {"gone", "1"}, {"theirs", "2"}}));
  const json after = Applied(kConfigMaps, Map("a", {{"ours", "1"}}, {{"ours", "x"}}));
  EXPECT_EQ(after["data"], json({{"ours", "1"}, {"theirs", "2"}}));
  EXPECT_EQ(after["metadata"]["labels"], json({{"ours", "x"}, {"theirs", "y"}}));
}

TEST_P(Contract, AFieldOfAnotherManagerIsTakenByForceAlone) {
  Applied(kConfigMaps, Map("a", {{"k", "1"}}), {.field_manager = "other"});
  const Request polite =
      Apply(kConfigMaps, ns(), "a", Map("a", {{"k", "2"}}).dump(), {.force = false});
  const Response refused = Refused(polite);
  EXPECT_EQ(refused.code, 409);
  EXPECT_TRUE(absl::IsAborted(ToStatus(refused)));
  EXPECT_EQ(Applied(kConfigMaps, Map("a", {{"k", "2"}}))["data"]["k"], "2");
}

TEST_P(Contract, StatusAndSpecDoNotTouchEachOther) {
  Applied(kPodDisruptionBudgets, Budget("b", 1));
  json status = Budget("b", 9);
  status.erase("spec");
  status["status"] = {
      {"expectedPods", 3}, {"desiredHealthy", 2}, {"currentHealthy", 1}, {"disruptionsAllowed", 0}};
  const json after = Applied(kPodDisruptionBudgets, status, {.subresource = "status"});
  EXPECT_EQ(after["status"]["expectedPods"], 3);
  EXPECT_EQ(after["spec"]["maxUnavailable"], 1);
  EXPECT_EQ(after["metadata"]["generation"], 1);

  json both = Budget("b", 2);
  both["status"] = {
      {"expectedPods", 4}, {"desiredHealthy", 2}, {"currentHealthy", 1}, {"disruptionsAllowed", 0}};
  const json main = Applied(kPodDisruptionBudgets, both);
  EXPECT_EQ(main["status"]["expectedPods"], 3);
  EXPECT_EQ(main["spec"]["maxUnavailable"], 2);
}

TEST_P(Contract, AStaleReplaceAndAWrongUidAreConflicts) {
  const json first = Applied(kConfigMaps, Map("a", {{"k", "1"}}));
  json stale = first;
  stale["data"]["k"] = "2";
  server_->Must(Replace(kConfigMaps, ns(), "a", stale.dump()));
  const Response refused = Refused(Replace(kConfigMaps, ns(), "a", stale.dump()));
  EXPECT_EQ(refused.code, 409);
  EXPECT_EQ(ErrorReason(refused), "Conflict");

  const Response other =
      Refused(Delete(kConfigMaps, ns(), "a", {.uid = "0e6f0c6e-0000-4000-8000-00000000cafe"}));
  EXPECT_EQ(other.code, 409);
  server_->Must(Delete(kConfigMaps, ns(), "a", {.uid = MetaText(first, "uid")}));
  EXPECT_EQ(Refused(Get(kConfigMaps, ns(), "a")).code, 404);
  EXPECT_EQ(Refused(Delete(kConfigMaps, ns(), "a")).code, 404);
}

TEST_P(Contract, AnApplyThatNamesAUidMakesNoNewObject) {
  json object = Map("a", {{"k", "1"}});
  object["metadata"]["uid"] = "0e6f0c6e-0000-4000-8000-00000000cafe";
  EXPECT_EQ(Refused(Apply(kConfigMaps, ns(), "a", object.dump())).code, 409);
}

TEST_P(Contract, AMergePatchChangesWhatItNames) {
  Applied(kConfigMaps, Map("a", {{"k", "1"}, {"l", "1"}}));
  const json patched = server_->Must(
      MergePatch(kConfigMaps, ns(), "a", json{{"data", {{"k", "2"}, {"l", nullptr}}}}.dump()));
  EXPECT_EQ(patched["data"], json({{"k", "2"}}));
}

TEST_P(Contract, AListComesInPagesOfOneVersion) {
  for (int i = 0; i < 7; ++i) {
    Applied(kConfigMaps, Map(absl::StrCat("m", i), {}, {{"odd", i % 2 ? "yes" : "no"}}));
  }
  std::vector<std::string> names;
  std::set<std::string> versions;
  std::string token;
  do {
    const Selection of{.ns = ns(), .label_selector = "odd in (yes,no)"};
    const json page = server_->Must({.path = ListPath(kConfigMaps, of, 3, token)});
    EXPECT_LE(page["items"].size(), 3u);
    for (const json& item : page["items"]) names.push_back(MetaText(item, "name"));
    versions.insert(Version(page));
    token = MetaText(page, "continue");
    Applied(kConfigMaps,
            Map(absl::StrCat("z", names.size()), {}, {{"odd", "yes"}}));  // too late for this list
  } while (!token.empty());
  EXPECT_THAT(names, ElementsAre("m0", "m1", "m2", "m3", "m4", "m5", "m6"));
  EXPECT_EQ(versions.size(), 1u);

  const json odd = server_->Must(
      {.path = ListPath(kConfigMaps, {.ns = ns(), .label_selector = "odd=yes,!even"}, 0)});
  EXPECT_EQ(odd["items"].size(), 6u);
  const json named = server_->Must(
      {.path = ListPath(kConfigMaps, {.ns = ns(), .field_selector = "metadata.name=m3"}, 0)});
  EXPECT_EQ(named["items"].size(), 1u);
}

TEST_P(Contract, AWatchSeesChangesInOrderFromWhereItIsToldTo) {
  Applied(kConfigMaps, Map("before", {}));
  const std::string version = ListVersion(kConfigMaps);
  Applied(kConfigMaps, Map("a", {{"k", "1"}}));
  Watcher watch(*server_, kConfigMaps, {.ns = ns()}, version);
  EXPECT_THAT(watch.Seen(1), ElementsAre("ADDED a"));
  Applied(kConfigMaps, Map("a", {{"k", "2"}}));
  Applied(kConfigMaps, Map("a", {{"k", "2"}}));  // changes nothing
  server_->Must(Delete(kConfigMaps, ns(), "a"));
  Applied(kConfigMaps, Map("b", {}));
  EXPECT_THAT(watch.Seen(4), ElementsAre("ADDED a", "MODIFIED a", "DELETED a", "ADDED b"));
}

TEST_P(Contract, AnObjectEntersAndLeavesASelection) {
  const std::string version = ListVersion(kConfigMaps);
  Watcher watch(*server_, kConfigMaps, {.ns = ns(), .label_selector = "in=yes"}, version);
  Applied(kConfigMaps, Map("a", {}, {{"in", "no"}}));
  Applied(kConfigMaps, Map("a", {}, {{"in", "yes"}}));
  Applied(kConfigMaps, Map("a", {{"k", "v"}}, {{"in", "yes"}}));
  Applied(kConfigMaps, Map("a", {}, {{"in", "no"}}));
  EXPECT_THAT(watch.Seen(3), ElementsAre("ADDED a", "MODIFIED a", "DELETED a"));
}

TEST_P(Contract, AVersionFromLongAgoIsGone) {
  Watcher watch(*server_, server_->ForgottenPast(), {.ns = ns()}, "1");
  EXPECT_THAT(watch.Seen(1), ElementsAre("ERROR 410"));
}

TEST_P(Contract, AWatchOfNoKnownResourceIsRefusedWithItsReason) {
  constexpr Resource kNonsense{"", "v1", "nonsenses", "Nonsense"};
  Watcher watch(*server_, kNonsense, {.ns = ns()}, "1");
  const absl::Status end = watch.End();
  EXPECT_TRUE(absl::IsNotFound(end)) << end;
  EXPECT_THAT(std::string(end.message()), HasSubstr("could not find the requested resource"));
  EXPECT_THAT(watch.seen(), testing::IsEmpty());
}

TEST_P(Contract, ACancelledWatchEndsOnceAndSaysSo) {
  Watcher watch(*server_, kConfigMaps, {.ns = ns()}, ListVersion(kConfigMaps));
  Applied(kConfigMaps, Map("a", {}));
  watch.Seen(1);
  watch.stream().Cancel();
  watch.stream().Cancel();
  EXPECT_TRUE(absl::IsCancelled(watch.End())) << watch.End();
}

TEST_P(Contract, AWatchEndsWhenItsConnectionBreaks) {
  Watcher watch(*server_, kConfigMaps, {.ns = ns()}, ListVersion(kConfigMaps));
  Applied(kConfigMaps, Map("a", {}));
  watch.Seen(1);
  server_->CutConnections();
  EXPECT_TRUE(absl::IsUnavailable(watch.End())) << watch.End();
  // Calls on other connections may have been cut too; the next ones serve.
  const Request again = Apply(kConfigMaps, ns(), "b", Map("b", {}).dump());
  absl::StatusOr<Response> answer = server_->Ask(again);
  for (int i = 0; i < 3 && !answer.ok(); ++i) answer = server_->Ask(again);
  EXPECT_TRUE(answer.ok() && answer->ok()) << answer.status();
}

TEST_P(Contract, ASilentServerMakesCallsAndWatchesTimeOut) {
  Watcher watch(*server_, kConfigMaps, {.ns = ns()}, ListVersion(kConfigMaps));
  Applied(kConfigMaps, Map("a", {}));
  watch.Seen(1);
  server_->SetSilent(true);
  Request get = Get(kConfigMaps, ns(), "a");
  get.timeout = absl::Seconds(1);
  const auto late = server_->Ask(get);
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status())) << late.status();
  // The fake notices once it has swallowed something.
  if (GetParam().make != MakeFakeServer) {
    EXPECT_TRUE(absl::IsDeadlineExceeded(watch.End())) << watch.End();
  }
  server_->SetSilent(false);
  server_->Must(Get(kConfigMaps, ns(), "a"));
}

TEST_P(Contract, LargeBodiesComeWholeBothWays) {
  const std::string large(900'000, 'x');
  const std::string version = ListVersion(kConfigMaps);
  std::mutex mutex;
  size_t length = 0;
  bool ended = false;
  {
    auto stream = server_->api().Watch(
        WatchPath(kConfigMaps, {.ns = ns()}, version, absl::Minutes(5)),
        [&](std::string_view line) {
          const std::lock_guard lock(mutex);
          const auto read = ReadWatchLine(line, {});
          if (read.ok() && read->type == "ADDED")
            length = read->object["data"]["k"].get<std::string>().size();
        },
        [&](const absl::Status&) {
          const std::lock_guard lock(mutex);
          ended = true;
        });
    server_->Must(Create(kConfigMaps, ns(), Map("a", {{"k", large}}).dump()));
    EXPECT_EQ(server_->Must(Get(kConfigMaps, ns(), "a"))["data"]["k"], large);
    EXPECT_TRUE(server_->Wait([&] { return std::lock_guard(mutex), length == large.size(); }));
  }
  EXPECT_TRUE(server_->Wait([&] { return std::lock_guard(mutex), ended; }));
}

TEST_P(Contract, ManyWritesAtOnceAllArriveOnce) {
  const std::string version = ListVersion(kConfigMaps);
  Watcher watch(*server_, kConfigMaps, {.ns = ns()}, version);
  std::atomic<int> next = 0, done = 0, bad = 0;
  constexpr int kWrites = 200;
  const std::function<void()> write = [&] {
    const int i = next++;
    if (i >= kWrites) return;
    const std::string name = absl::StrCat("n", i);
    server_->api().Call(Apply(kConfigMaps, ns(), name, Map(name, {{"k", name}}).dump()),
                        [&](const absl::StatusOr<Response>& response) {
                          bad += response.ok() && response->code == 201 ? 0 : 1;
                          write();
                          ++done;
                        });
  };
  for (int i = 0; i < 16; ++i) write();
  EXPECT_TRUE(server_->Wait([&] { return done == kWrites; }));
  EXPECT_EQ(bad, 0);
  const auto seen = watch.Seen(kWrites);
  EXPECT_EQ(std::set(seen.begin(), seen.end()).size(), size_t{kWrites});
  EXPECT_EQ(seen.size(), size_t{kWrites});
}

INSTANTIATE_TEST_SUITE_P(Of, Contract,
                         testing::Values(Kind{"Fake", MakeFakeServer},
                                         Kind{"Real", MakeRealServer}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace echelon::op
