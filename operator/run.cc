// echelon-operator run: everything is wired here, by hand.
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "operator/commands.h"
#include "operator/controller/controller.h"
#include "operator/controller/head_client.h"
#include "operator/controller/metrics.h"
#include "operator/controller/pages.h"
#include "operator/kube/config.h"
#include "operator/kube/http_api.h"
#include "operator/kube/lease.h"
#include "operator/kube/timer.h"
#include "runtime/version.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace echelon::op {
namespace {

constexpr absl::Duration kReleaseWithin = absl::Milliseconds(600);  // of the second a stop may take
constexpr absl::Duration kUnresponsive = absl::Seconds(20);

struct Flags {
  std::string runtime_image, exporter_image, ns, kubeconfig, context, status_host;
  std::string lease_name = "echelon-operator", lease_namespace;
  std::string log_level = "info";
  double lease_seconds = 10;
  int health_port = 8081, metrics_port = 8080, status_port = 8000, in_flight = 16;
};

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--runtime-image", flags.runtime_image,
                 "Image of the pods of new revisions; their template may name another")
      ->envname("RUNTIME_IMAGE");
  app.add_option("--exporter-image", flags.exporter_image,
                 "Image of the Job that exports a Hugging Face directory")
      ->envname("EXPORTER_IMAGE");
  app.add_option("--namespace", flags.ns, "Only this one; default: all");
  app.add_option("--kubeconfig", flags.kubeconfig,
                 "Default: $KUBECONFIG, else the pod's service account, else ~/.kube/config");
  app.add_option("--context", flags.context, "Of the kubeconfig; default: its current one");
  app.add_option("--lease-name", flags.lease_name, "Of all replicas, its holder writes")
      ->capture_default_str();
  app.add_option("--lease-namespace", flags.lease_namespace,
                 "Default: $POD_NAMESPACE, else the kubeconfig's");
  app.add_option("--lease-seconds", flags.lease_seconds,
                 "After so long without a word from the holder another takes over")
      ->check(CLI::Range(1.0, 3600.0))
      ->capture_default_str();
  app.add_option("--workers-in-flight", flags.in_flight, "Requests at once, over all objects")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--health-port", flags.health_port, "GET /healthz, /readyz; 0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  app.add_option("--metrics-port", flags.metrics_port, "GET /metrics; 0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  app.add_option("--status-port", flags.status_port, "Where heads answer GET /status")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  app.add_option("--status-host", flags.status_host,
                 "An IP address to ask instead of each head's own, for benchmarks");
  app.add_option("--log-level", flags.log_level, "debug, info, warn or error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  app.footer(
      "Example, outside a cluster:\n"
      "  echelon-operator run --kubeconfig ~/.kube/config --lease-namespace default \\\n"
      "    --runtime-image localhost/echelon-runtime:latest");
}

void SetUpLog(const std::string& level) {
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("", std::make_shared<spdlog::sinks::stderr_sink_mt>()));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %^%l%$ %v");
  spdlog::set_level(spdlog::level::from_str(level));
}

// Pages of lists come and go: what is freed goes back, and threads share what they hold.
void KeepMemorySmall() {
  mallopt(M_ARENA_MAX, 2);
  mallopt(M_TRIM_THRESHOLD, 256 << 10);
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
}

Pages::Table HealthPages(const Controller* controller) {
  return {
      {"/healthz",
       [controller] {
         const absl::Duration silence = controller->Silence();
         if (silence < kUnresponsive) return Page{200, "ok\n"};
         return Page{500, absl::StrCat("the loop has been busy for ", absl::ToInt64Seconds(silence),
                                       " s\n")};
       }},
      {"/readyz",
       [controller] {
         const absl::Status ready = controller->Ready();
         if (ready.ok()) return Page{200, "ok\n"};
         return Page{503, absl::StrCat(ready.message(), "\n")};
       }},
  };
}

// The parts of a running operator, in the order in which they need each other.
class Operator {
 public:
  explicit Operator(const Flags& flags)
      : flags_(flags), metrics_(kVersion), loop_(MakeTimerThread()), timer_(MakeTimerThread()) {}

  absl::Status Start() {
    auto config = FindCluster(flags_.kubeconfig, flags_.context);
    if (!config.ok()) return config.status();
    auto api = MakeHttpApi(*config);
    if (!api.ok()) return api.status();
    api_ = *std::move(api);
    heads_ = MakeHeadClient({.port = flags_.status_port});
    MakeLease(*config);
    MakeController();
    auto health = Pages::Serve(flags_.health_port, "--health-port", HealthPages(controller_.get()));
    if (!health.ok()) return health.status();
    health_ = *std::move(health);
    auto metrics = Pages::Serve(
        flags_.metrics_port, "--metrics-port",
        {{"/metrics", [this] {
            return Page{200, metrics_.Text(), "text/plain; version=0.0.4; charset=utf-8"};
          }}});
    if (!metrics.ok()) return metrics.status();
    metrics_pages_ = *std::move(metrics);
    spdlog::info("echelon-operator {}: server {}, health on port {}, metrics on port {}", kVersion,
                 config->server, health_->port(), metrics_pages_->port());
    controller_->Start();
    lease_->Start();
    return absl::OkStatus();
  }

  // Nothing is written any more when the lease is given back. Then everything that could still call
  // another part goes before that part.
  void Stop() {
    health_.reset();
    metrics_pages_.reset();
    if (lease_ != nullptr && controller_ != nullptr) {
      auto released = std::make_shared<std::promise<void>>();
      lease_->Release(kReleaseWithin, [released] { released->set_value(); });
      released->get_future().wait();
      auto stopped = std::make_shared<std::promise<void>>();
      controller_->Stop([stopped] { stopped->set_value(); });
      stopped->get_future().wait();
    }
    lease_.reset();
    api_.reset();
    heads_.reset();
    loop_.reset();
    timer_.reset();
    controller_.reset();
  }

 private:
  void MakeLease(const ClusterConfig& config) {
    const std::string pod = Environment("POD_UID");
    Lease::Options options{.ns = flags_.lease_namespace,
                           .name = flags_.lease_name,
                           .identity = NewIdentity(pod.empty() ? HostName() : pod),
                           .duration = absl::Seconds(flags_.lease_seconds)};
    if (options.ns.empty()) options.ns = Environment("POD_NAMESPACE");
    if (options.ns.empty()) options.ns = config.ns;
    spdlog::info("lease {}/{} as {}", options.ns, options.name, options.identity);
    lease_ = std::make_unique<Lease>(
        api_.get(), timer_.get(), std::move(options),
        Lease::Callbacks{.acquired = [this] { controller_->Lead(true); },
                         .lost = [this] { controller_->Lead(false); },
                         .error =
                             [](const absl::Status& why) {
                               spdlog::warn("lease: {}", std::string(why.message()));
                             }});
  }

  void MakeController() {
    Controller::World world{.api = api_.get(),
                            .loop = loop_.get(),
                            .watches = timer_.get(),
                            .heads = heads_.get(),
                            .metrics = &metrics_,
                            .write_time = [this] { return lease_->WriteTimeLeft(); },
                            .wall_clock = [] { return absl::Now(); }};
    Controller::Options options{.settings = {.runtime_image = flags_.runtime_image,
                                             .exporter_image = flags_.exporter_image},
                                .ns = flags_.ns,
                                .instance = Environment("POD_NAME"),
                                .status_host = flags_.status_host,
                                .requests_in_flight = flags_.in_flight,
                                .seed = std::random_device()()};
    controller_ = std::make_unique<Controller>(std::move(world), std::move(options));
  }

  static std::string HostName() {
    char name[256] = {};
    return gethostname(name, sizeof(name) - 1) == 0 ? name : "host";
  }

  const Flags& flags_;
  Metrics metrics_;
  std::unique_ptr<Timer> loop_, timer_;
  std::unique_ptr<Api> api_;
  std::unique_ptr<HeadClient> heads_;
  std::unique_ptr<Lease> lease_;
  std::unique_ptr<Controller> controller_;
  std::unique_ptr<Pages> health_, metrics_pages_;
};

}  // namespace

int RunMain(int argc, char** argv) {
  KeepMemorySmall();
  CLI::App app("Watches PipelineDeployments and makes them serve.", "echelon-operator run");
  Flags flags;
  AddFlags(app, flags);
  CLI11_PARSE(app, argc, argv);
  if (flags.runtime_image.empty()) {
    std::fputs("echelon-operator: no image for pods: give --runtime-image or RUNTIME_IMAGE\n",
               stderr);
    return 2;
  }
  SetUpLog(flags.log_level);
  sigset_t ends;  // before there are threads, which inherit it
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  signal(SIGPIPE, SIG_IGN);
  StartKubeThread();

  Operator op(flags);
  const absl::Status started = op.Start();
  if (!started.ok()) {
    std::fprintf(stderr, "echelon-operator: %s\n", std::string(started.message()).c_str());
    op.Stop();
    return 1;
  }
  int signal = 0;
  sigwait(&ends, &signal);
  spdlog::info("stopping: {}", signal == SIGTERM ? "SIGTERM" : "SIGINT");
  op.Stop();
  spdlog::info("stopped");
  return 0;
}

}  // namespace echelon::op
