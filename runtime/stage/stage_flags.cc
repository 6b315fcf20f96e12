#include "runtime/stage/stage_flags.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "runtime/stage/flag_errors.h"
#include "runtime/stage/report.h"
#include "runtime/version.h"

namespace echelon::stage {
namespace {

constexpr char kExample[] =
    "Example, the article's exercise in two shells:\n"
    "  RANK=0 WORLD=2 HOST=127.0.0.1 PORT=29500 echelon-stage net.pt2 --policy equal-size\n"
    "  RANK=1 WORLD=2 HOST=127.0.0.1 PORT=29500 echelon-stage net.pt2 --http-port 0 --grpc-port 0 "
    "--metrics-port 0\n";

void AddGroupFlags(CLI::App& app, StageFlags* f) {
  app.add_option("model", f->model, "the .pt2 file, the same on every rank")->required();
  app.add_option("--rank", f->rank, "this process's rank, from 0")
      ->envname("RANK")
      ->capture_default_str();
  app.add_option("--world", f->world, "number of ranks, which is the number of stages")
      ->envname("WORLD")
      ->capture_default_str();
  app.add_option("--host", f->host, "host of rank 0")->envname("HOST")->capture_default_str();
  app.add_option("--port", f->port, "port of rank 0, where the others join; 0 on rank 0: any")
      ->envname("PORT")
      ->capture_default_str();
  app.add_option("--name", f->name, "the model's name for clients; the file's stem otherwise");
  app.add_option("--bind", f->bind,
                 "address this process's own ports listen on; on rank 0 that of --port too, which "
                 "otherwise is HOST")
      ->capture_default_str();
  app.add_option("--http-port", f->http_port, "HTTP front door; 0: any")->capture_default_str();
  app.add_option("--grpc-port", f->grpc_port, "gRPC front door; 0: any")->capture_default_str();
  app.add_option("--metrics-port", f->metrics_port, "Prometheus metrics; 0: any")
      ->capture_default_str();
  app.add_option("--health-port", f->health_port,
                 "gRPC health service for probes: startup, live, ready; 0: none")
      ->capture_default_str();
  app.add_option("--link-port", f->link_port, "where the rank before sends its activations; 0: any")
      ->capture_default_str();
  app.add_option("--advertise", f->advertise,
                 "host under which the other ranks reach this one; as the head sees it otherwise");
}

void AddServingFlags(CLI::App& app, StageFlags* f) {
  AddPlanFlags(app, &f->plan);
  app.add_option("--chunks", f->chunks, "micro-batches a request is split into")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--window", f->window, "steps in flight at most; 0: twice the stages")
      ->check(CLI::Range(0, 65536));
  app.add_option("--queue", f->queue, "requests that may wait; one more is refused")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--threads", f->threads, "threads that compute; 0: one a usable core")
      ->check(CLI::Range(0, 4096));
  app.add_flag("--verify-weights,!--no-verify-weights", f->verify_weights,
               "compare what is loaded with the file's checksums (on)");
  app.add_option("--weights", f->weights,
                 "language models: directory of the safetensors files that the parameters lie in");
  app.add_option("--chunk-tokens", f->chunk_tokens,
                 "language models: tokens of prompts in a step; longer ones come in several")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--max-running", f->max_running,
                 "language models: sequences that are generated at once; others wait")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_flag("--exact", f->exact,
               "run linear layers as eager PyTorch does: equal to the last bit, but slower");
  app.add_option("--request-timeout", f->request_timeout_s, "seconds a request may take")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

// How a rank begins and ends, and what it says of itself.
void AddLifeFlags(CLI::App& app, StageFlags* f) {
  app.add_option("--join-timeout", f->join_timeout_s,
                 "seconds the first forming of the group may take; 0: as long as it takes")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--no-progress-seconds", f->no_progress_s,
                 "end when loading stands still for so long; 0: never")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--drain-seconds", f->drain_s,
                 "for requests under way when the process is told to stop")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--liveness-ms", f->liveness_ms, "silence of a rank that ends an epoch")
      ->check(CLI::Range(100, 600000))
      ->capture_default_str();
  app.add_option("--max-request-bytes", f->max_request_bytes, "largest request a front door takes")
      ->capture_default_str();
  app.add_option("--revision", f->revision,
                 "deployment's revision: ranks of different ones refuse each other")
      ->envname("ECHELON_REVISION");
  app.add_option("--incarnation", f->incarnation,
                 "this process's identity, as a pod's UID; random otherwise")
      ->envname("POD_UID");
  app.add_option("--pod-name", f->pod_name,
                 "of two incarnations of one pod name the newer one takes the rank")
      ->envname("POD_NAME");
  app.add_option("--incarnation-time", f->incarnation_time_ms,
                 "when this incarnation began, in ms since 1970; now otherwise");
  app.add_option("--report-termination", f->report_termination,
                 "file that gets the one line of a fatal error, as /dev/termination-log");
  app.add_flag("--quiet", f->quiet, "do not print the stage's code");
  app.add_option("--report-fd", f->report_fd, "descriptor that gets progress as JSON lines")
      ->group("");
}

std::string Check(const StageFlags& f) {
  if (f.world < 1 || f.world > 4096)
    return absl::StrFormat("WORLD=%d: give a number of ranks from 1 to 4096", f.world);
  if (f.rank < 0 || f.rank >= f.world)
    return absl::StrFormat("RANK=%d is outside WORLD=%d: ranks go from 0 to %d", f.rank, f.world,
                           f.world - 1);
  for (const auto& [name, port] : {std::pair("--port (PORT)", f.port),
                                   {"--http-port", f.http_port},
                                   {"--grpc-port", f.grpc_port},
                                   {"--metrics-port", f.metrics_port},
                                   {"--health-port", f.health_port},
                                   {"--link-port", f.link_port}})
    if (port < 0 || port > 65535)
      return absl::StrFormat("%s %d: a port is a number from 0 to 65535", name, port);
  if (f.rank > 0 && f.port == 0)
    return "PORT=0: only rank 0 may take any port; give the others the one it prints";
  return "";
}

std::string RandomIncarnation() {
  std::random_device random;
  return absl::StrFormat("%08x%08x", random(), random());
}

}  // namespace

std::optional<int> ParseStageFlags(int argc, char** argv, StageFlags* flags) {
  CLI::App app(
      "Runs one stage of a model's pipeline: loads its own slice, joins its group, serves.",
      "echelon-stage");
  app.footer(kExample);
  app.set_version_flag("--version", absl::StrCat("echelon-stage ", kVersion));
  AddGroupFlags(app, flags);
  AddServingFlags(app, flags);
  AddLifeFlags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& told) {  // --help, --version
    return app.exit(told);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "echelon-stage: %s; see --help\n", FlagError(app, error).c_str());
    return 2;
  }
  if (const std::string wrong = Check(*flags); !wrong.empty()) {
    std::fprintf(stderr, "echelon-stage: %s\n", wrong.c_str());
    WriteTermination(flags->report_termination, wrong);
    return 2;
  }
  flags->bind_given = app.count("--bind") > 0;
  if (flags->name.empty()) flags->name = std::filesystem::path(flags->model).stem().string();
  if (flags->incarnation.empty()) flags->incarnation = RandomIncarnation();
  if (flags->incarnation_time_ms == 0) flags->incarnation_time_ms = absl::ToUnixMillis(absl::Now());
  if (flags->window == 0) flags->window = 2 * flags->world;
  return std::nullopt;
}

}  // namespace echelon::stage
