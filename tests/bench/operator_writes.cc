// A bare client of the API server, to compare the operator with: it writes what the operator would
// write for the PipelineDeployments of a namespace, a fixed number of requests in flight, watches
// nothing and thinks about nothing.
//
//   echelon-operator-writes --kubeconfig FILE --namespace NS deployments --count N --template FILE
//   echelon-operator-writes --kubeconfig FILE --namespace NS objects
#include <CLI/CLI.hpp>
#include <cstdio>
#include <deque>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "operator/api/deployment.h"
#include "operator/kube/config.h"
#include "operator/kube/http_api.h"
#include "operator/kube/resource.h"
#include "operator/render/render.h"

namespace echelon::op {
namespace {

using Json = nlohmann::json;

struct Flags {
  std::string kubeconfig, ns, template_file;
  int count = 0, in_flight = 16;
};

// One answer, waited for.
absl::StatusOr<Json> Read(Api* api, Request request) {
  absl::Notification done;
  absl::StatusOr<Response> answer;
  api->Call(std::move(request), [&](absl::StatusOr<Response> got) {
    answer = std::move(got);
    done.Notify();
  });
  done.WaitForNotification();
  if (!answer.ok()) return answer.status();
  if (!answer->ok()) return ToStatus(*answer);
  return Json::parse(answer->body);
}

// Sends all of them, `in_flight` at a time; the first failure, if any.
class Sender {
 public:
  Sender(Api* api, std::vector<Request> requests) : api_(api), requests_(std::move(requests)) {}

  absl::Status Run(int in_flight) {
    for (int i = 0; i < in_flight; ++i) Next();
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](Sender* self) { return self->answered_ == self->requests_.size(); }, this));
    return failure_;
  }

 private:
  void Next() {
    Request request;
    {
      absl::MutexLock lock(&mutex_);
      if (sent_ == requests_.size()) return;
      request = std::move(requests_[sent_++]);
    }
    api_->Call(std::move(request), [this](absl::StatusOr<Response> got) {
      const absl::Status status = got.ok() ? ToStatus(*got) : got.status();
      Next();
      absl::MutexLock lock(&mutex_);
      if (failure_.ok()) failure_ = status;
      ++answered_;
    });
  }

  Api* const api_;
  absl::Mutex mutex_;
  std::vector<Request> requests_;
  size_t sent_ = 0, answered_ = 0;
  absl::Status failure_;
};

Request Make(const Json& object) {
  const Resource* resource = FindResource(object.at("apiVersion").get<std::string>(),
                                          object.at("kind").get<std::string>());
  return Create(*resource, object.at("metadata").at("namespace").get<std::string>(), object.dump());
}

absl::StatusOr<std::vector<Request>> DeploymentsOf(const Flags& flags) {
  std::ifstream file(flags.template_file);
  Json object = Json::parse(file, nullptr, false);
  if (object.is_discarded())
    return absl::InvalidArgumentError(absl::StrCat(flags.template_file, " is no JSON"));
  std::vector<Request> requests;
  for (int i = 0; i < flags.count; ++i) {
    object["metadata"] = {{"name", absl::StrFormat("p%04d", i)}, {"namespace", flags.ns}};
    requests.push_back(Make(object));
  }
  return requests;
}

// What the operator makes for one PipelineDeployment.
absl::Status AddObjects(const Deployment& wanted, std::vector<Request>* requests) {
  const Revision revision =
      MakeRevision(wanted.spec, "localhost/runtime:1", "localhost/exporter:1");
  for (const Json& object : {HeadService(wanted), RanksService(wanted), DisruptionBudget(wanted),
                             NetworkPolicy(wanted), ControllerRevision(wanted, revision, 1)})
    requests->push_back(Make(object));
  for (int group = 0; group < wanted.spec.replicas; ++group) {
    for (const echelon::op::Run& run : EqualRuns(wanted.spec)) {
      absl::StatusOr<Json> set = StatefulSet(wanted, revision, group, run);
      if (!set.ok()) return set.status();
      requests->push_back(Make(*set));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Request>> ObjectsOf(Api* api, const Flags& flags) {
  std::vector<Request> requests;
  std::string next;
  do {
    absl::StatusOr<Json> page =
        Read(api, Request{.path = ListPath(kPipelineDeployments, {.ns = flags.ns}, 250, next)});
    if (!page.ok()) return page.status();
    for (const Json& item : page->at("items")) {
      absl::StatusOr<Deployment> wanted = FromJson(item);
      if (!wanted.ok()) return wanted.status();
      if (absl::Status status = AddObjects(*wanted, &requests); !status.ok()) return status;
    }
    next = page->at("metadata").value("continue", "");
  } while (!next.empty());
  return requests;
}

absl::Status Write(const Flags& flags, bool deployments) {
  absl::StatusOr<ClusterConfig> cluster = ReadKubeconfig(flags.kubeconfig);
  if (!cluster.ok()) return cluster.status();
  absl::StatusOr<std::unique_ptr<Api>> api = MakeHttpApi(*cluster);
  if (!api.ok()) return api.status();
  absl::StatusOr<std::vector<Request>> requests =
      deployments ? DeploymentsOf(flags) : ObjectsOf(api->get(), flags);
  if (!requests.ok()) return requests.status();
  const size_t count = requests->size();
  const absl::Time began = absl::Now();
  if (absl::Status status = Sender(api->get(), *std::move(requests)).Run(flags.in_flight);
      !status.ok())
    return status;
  std::printf("{\"requests\": %zu, \"seconds\": %.3f}\n", count,
              absl::ToDoubleSeconds(absl::Now() - began));
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  StartKubeThread();
  Flags flags;
  CLI::App app("Writes what the operator would write, without an operator.");
  app.add_option("--kubeconfig", flags.kubeconfig, "whom to write to")->required();
  app.add_option("--namespace", flags.ns, "where")->required();
  app.add_option("--in-flight", flags.in_flight, "requests at a time")->capture_default_str();
  CLI::App* deployments =
      app.add_subcommand("deployments", "PipelineDeployments p0000, p0001, ...");
  deployments->add_option("--count", flags.count, "how many")->required();
  deployments->add_option("--template", flags.template_file, "one of them, as JSON")->required();
  app.add_subcommand("objects", "all that is made for those of the namespace");
  app.require_subcommand(1);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Write(flags, deployments->parsed());
  if (status.ok()) return 0;
  std::fprintf(stderr, "echelon-operator-writes: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace echelon::op

int main(int argc, char** argv) { return echelon::op::Main(argc, argv); }
