// echelon-operator plan: what would be done for the objects of a file, by the same function that
// acts.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "operator/commands.h"
#include "operator/controller/live.h"
#include "operator/kube/config.h"
#include "operator/kube/http_api.h"
#include "operator/reconcile/reconcile.h"
#include "operator/render/deployment_file.h"

namespace echelon::op {
namespace {

using nlohmann::json;

struct Flags {
  std::string file, kubeconfig, context;
  std::string runtime_image = "echelon-runtime", exporter_image = "echelon-exporter";
  bool json = false, live = false;
};

const char* NameOf(Verb verb) {
  switch (verb) {
    case Verb::kTry:
      return "try";
    case Verb::kApply:
      return "apply";
    case Verb::kScale:
      return "scale";
    case Verb::kDelete:
      return "delete";
    case Verb::kForceDeletePod:
      return "force-delete";
  }
  return "";
}

json ToJson(const Deployment& deployment, const Plan& plan) {
  json actions = json::array();
  for (const Action& action : plan.actions) {
    json one{{"verb", NameOf(action.verb)},
             {"wave", action.wave},
             {"kind", action.kind},
             {"name", action.name},
             {"why", action.why}};
    if (!action.object.is_null()) one["object"] = action.object;
    if (action.verb == Verb::kScale) one["replicas"] = action.replicas;
    actions.push_back(std::move(one));
  }
  return {{"namespace", deployment.ns},
          {"name", deployment.name},
          {"actions", std::move(actions)},
          {"status", op::ToJson(plan.status)}};
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "echelon-operator: %s\n", std::string(status.message()).c_str());
  return 1;
}

absl::StatusOr<std::unique_ptr<Api>> Connect(const Flags& flags) {
  StartKubeThread();
  auto config = FindCluster(flags.kubeconfig, flags.context);
  if (!config.ok()) return config.status();
  return MakeHttpApi(*config);
}

int Print(const Flags& flags, std::vector<Deployment> deployments, Api* api) {
  const Settings settings{.runtime_image = flags.runtime_image,
                          .exporter_image = flags.exporter_image};
  json all = json::array();
  for (Deployment& deployment : deployments) {
    Observed observed;
    if (api != nullptr) {
      auto read = ReadLive(api, &deployment);
      if (!read.ok()) return Fail(read.status());
      observed = *std::move(read);
    }
    const Plan plan = Reconcile(deployment, observed, settings, absl::Now());
    if (flags.json) {
      all.push_back(ToJson(deployment, plan));
    } else {
      std::printf("%s/%s\n%s\n", deployment.ns.c_str(), deployment.name.c_str(),
                  op::Print(plan).c_str());
    }
  }
  if (flags.json) std::printf("%s\n", all.dump(2).c_str());
  return 0;
}

}  // namespace

int PlanMain(int argc, char** argv) {
  CLI::App app("Prints what would be done for the PipelineDeployments of a file; changes nothing.",
               "echelon-operator plan");
  Flags flags;
  app.add_option("-f,--file", flags.file, "YAML or JSON; '-': standard input")->required();
  app.add_flag("--json", flags.json, "Actions with their whole objects, and the status");
  app.add_flag("--live", flags.live, "Compare with the cluster; default: nothing is there yet");
  app.add_option("--kubeconfig", flags.kubeconfig, "With --live; default: as for run");
  app.add_option("--context", flags.context, "Of the kubeconfig; default: its current one");
  app.add_option("--runtime-image", flags.runtime_image, "As for run")
      ->envname("RUNTIME_IMAGE")
      ->capture_default_str();
  app.add_option("--exporter-image", flags.exporter_image, "As for run")
      ->envname("EXPORTER_IMAGE")
      ->capture_default_str();
  app.footer("Example:\n  echelon-operator plan -f examples/net.yaml");
  CLI11_PARSE(app, argc, argv);
  auto deployments = ReadDeploymentFile(flags.file);
  if (!deployments.ok()) return Fail(deployments.status());
  std::unique_ptr<Api> api;
  if (flags.live) {
    auto made = Connect(flags);
    if (!made.ok()) return Fail(made.status());
    api = *std::move(made);
  }
  return Print(flags, *std::move(deployments), api.get());
}

}  // namespace echelon::op
