#include "tests/operator/kube/server.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "operator/kube/http_api.h"
#include "operator/kube/resource.h"
#include "tests/operator/kube/fake_api.h"
#include "tests/operator/kube/proxy.h"
#include "tests/operator/kube/sim.h"

namespace echelon::op {
namespace {

class FakeServer final : public Server {
 public:
  Api& api() override { return api_; }
  Timer& timer() override { return sim_; }
  bool Wait(const std::function<bool()>& done, absl::Duration limit) override {
    return sim_.RunUntil(done, limit);
  }
  Resource ForgottenPast() override { return kConfigMaps; }
  void CutConnections() override { api_.CutWatches(); }
  void SetSilent(bool silent) override { api_.SetSilent(silent); }

 private:
  Sim sim_;
  FakeApi api_{&sim_};
};

// Passes all on, and wakes up who waits for something to come of it.
class WakingApi final : public Api {
 public:
  WakingApi(std::unique_ptr<Api> api, std::function<void()> wake)
      : api_(std::move(api)), wake_(std::move(wake)) {}
  void Call(Request request, Done done) override {
    api_->Call(std::move(request), [this, done = std::move(done)](absl::StatusOr<Response> answer) {
      done(std::move(answer));
      wake_();
    });
  }
  std::unique_ptr<WatchStream> Watch(std::string path, OnLine on_line, OnEnd on_end) override {
    return api_->Watch(
        std::move(path),
        [this, on_line = std::move(on_line)](std::string_view line) {
          on_line(line);
          wake_();
        },
        [this, on_end = std::move(on_end)](absl::Status why) {
          on_end(std::move(why));
          wake_();
        });
  }

 private:
  std::unique_ptr<Api> api_;
  std::function<void()> wake_;
};

class RealServer final : public Server {
 public:
  RealServer(const ClusterConfig& config, uint16_t port) : proxy_(port) {
    ClusterConfig via = config;
    via.server = absl::StrCat("https://127.0.0.1:", proxy_.port());
    HttpOptions options;
    options.watch_idle = absl::Seconds(2);
    auto api = MakeHttpApi(via, options);
    EXPECT_TRUE(api.ok()) << api.status();
    api_ = std::make_unique<WakingApi>(std::move(*api), [this] { Wake(); });
    timer_ = MakeTimerThread();
  }
  ~RealServer() override { api_.reset(); }

  Api& api() override { return *api_; }
  Timer& timer() override { return *timer_; }
  bool Wait(const std::function<bool()>& done, absl::Duration limit) override {
    const absl::Time deadline = timer_->Now() + limit;
    std::unique_lock lock(mutex_);
    while (!done()) {
      if (timer_->Now() >= deadline) return false;
      // What happens by the clock alone wakes nobody.
      changed_.wait_for(lock, std::chrono::milliseconds(20));
    }
    return true;
  }
  Resource ForgottenPast() override;
  void CutConnections() override { proxy_.Cut(); }
  void SetSilent(bool silent) override { proxy_.SetSilent(silent); }

 private:
  void Wake() {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }

  Proxy proxy_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<Timer> timer_;
  std::unique_ptr<Api> api_;
};

// The server remembers a kind from the moment that it is defined.
Resource RealServer::ForgottenPast() {
  const auto definition = nlohmann::json::parse(R"({
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": "relics.test.echelon.dev"},
    "spec": {"group": "test.echelon.dev", "scope": "Namespaced",
             "names": {"plural": "relics", "singular": "relic", "kind": "Relic"},
             "versions": [{"name": "v1", "served": true, "storage": true,
                           "schema": {"openAPIV3Schema": {"type": "object"}}}]}})");
  Must(Apply(kCustomResourceDefinitions, "", "relics.test.echelon.dev", definition.dump()));
  constexpr Resource kRelics{"test.echelon.dev", "v1", "relics", "Relic"};
  const absl::Time deadline = timer_->Now() + absl::Seconds(20);
  while (timer_->Now() < deadline) {
    const auto list = Ask({.path = ListPath(kRelics, {.ns = ns()})});
    if (list.ok() && list->ok()) return kRelics;
  }
  ADD_FAILURE() << "the server does not serve its new kind";
  return kRelics;
}

}  // namespace

absl::StatusOr<Response> Server::Ask(const Request& request) {
  struct Answer {
    std::mutex mutex;
    std::optional<absl::StatusOr<Response>> response;
  };
  const auto answer = std::make_shared<Answer>();
  api().Call(request, [answer](absl::StatusOr<Response> response) {
    const std::lock_guard lock(answer->mutex);
    answer->response = std::move(response);
  });
  const auto there = [answer] {
    const std::lock_guard lock(answer->mutex);
    return answer->response.has_value();
  };
  if (!Wait(there, absl::Seconds(60))) return absl::DeadlineExceededError("no callback came");
  const std::lock_guard lock(answer->mutex);
  return std::move(*answer->response);
}

nlohmann::json Server::Must(const Request& request) {
  const auto response = Ask(request);
  EXPECT_TRUE(response.ok()) << request.path << ": " << response.status();
  if (!response.ok()) return nlohmann::json::object();
  EXPECT_TRUE(response->ok()) << request.path << ": " << ErrorText(*response);
  return nlohmann::json::parse(response->body, nullptr, false);
}

const std::string& Server::ns() {
  static std::atomic<int> next = 0;
  if (ns_.empty()) {
    ns_ = absl::StrCat("test-", absl::ToUnixMillis(absl::Now()), "-", getpid(), "-", ++next);
    Must(Create(
        kNamespaces, "",
        nlohmann::json{{"apiVersion", "v1"}, {"kind", "Namespace"}, {"metadata", {{"name", ns_}}}}
            .dump()));
  }
  return ns_;
}

std::unique_ptr<Server> MakeFakeServer() { return std::make_unique<FakeServer>(); }

std::unique_ptr<Server> MakeRealServer() {
  const char* path = std::getenv("ECHELON_KUBE_TEST_CONFIG");
  if (path == nullptr) return nullptr;
  const auto config = ReadKubeconfig(path);
  EXPECT_TRUE(config.ok()) << config.status();
  if (!config.ok()) return nullptr;
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(config->server.substr(config->server.rfind(':') + 1), &port));
  return std::make_unique<RealServer>(*config, static_cast<uint16_t>(port));
}

}  // namespace echelon::op
