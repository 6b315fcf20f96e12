// echelon run: a group of stage processes on this machine, watched from one poll loop.
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/cli/child.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/deployment.h"
#include "runtime/cli/model_dir.h"
#include "runtime/cli/progress.h"
#include "runtime/cli/stop_signals.h"
#include "runtime/host_port.h"
#include "runtime/plan/cost.h"
#include "runtime/stage/flag_errors.h"
#include "runtime/stage/model.h"
#include "runtime/weights/loader.h"

namespace echelon {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kStopGrace = std::chrono::seconds(8);  // then SIGKILL; a stage gives itself 5
constexpr size_t kKeptLines = 20;  // of a child's stderr, for when it dies without a word

struct RunFlags {
  std::string model, weights, name, bind = "127.0.0.1", cores, json_endpoints, max_request_bytes;
  int stages = 2, http_port = 8000, grpc_port = 8001, metrics_port = 8002;
  int chunks = 1, queue = 256, threads = 0, restarts = 0;
  double request_timeout_s = 300, join_timeout_s = 600;
  stage::PlanFlags plan;
  ExportFlags exporting;
  int chunk_tokens = 128, max_running = 256;
  bool verbose = false, code = false, exact = false, verify_weights = true, quiet_stop = false;
  DeploymentChoice deployment;
};

class Runner {
 public:
  explicit Runner(RunFlags flags) : flags_(std::move(flags)), progress_(flags_.stages) {}

  int Run() {
    sigset_t set = StopSignals();
    sigaddset(&set, SIGCHLD);
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    signals_ = ::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    children_.resize(flags_.stages);
    if (!Start(0)) return 1;
    while (!ended_) {
      Wait(-1);
      if (workers_due_) StartWorkers();
    }
    StopAll();
    return exit_status_;
  }

 private:
  // ---- Starting
  // -----------------------------------------------------------------------------------------------------

  std::vector<std::string> Command(int rank) const {
    std::vector<std::string> command{
        (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "echelon-stage").string(),
        flags_.model};
    const auto add = [&](const std::string& flag, const auto& value) {
      command.push_back(absl::StrCat("--", flag, "=", value));
    };
    add("rank", rank);
    add("world", flags_.stages);
    const bool any = flags_.bind == "0.0.0.0" || flags_.bind == "::";
    add("host", any ? "127.0.0.1" : flags_.bind);
    add("port", group_port_);
    add("bind", flags_.bind);
    add("name", flags_.name);
    const Child& before = children_[rank];  // a stage that is started again keeps its ports
    add("http-port", before.http > 0 ? before.http : rank == 0 ? flags_.http_port : 0);
    add("grpc-port", before.grpc > 0 ? before.grpc : rank == 0 ? flags_.grpc_port : 0);
    add("metrics-port", before.metrics > 0         ? before.metrics
                        : flags_.metrics_port == 0 ? 0
                                                   : flags_.metrics_port + rank);
    add("chunks", flags_.chunks);
    if (!flags_.weights.empty()) {
      add("weights", flags_.weights);
      add("chunk-tokens", flags_.chunk_tokens);
      add("max-running", flags_.max_running);
    }
    add("queue", flags_.queue);
    add("threads", Threads());
    add("request-timeout", flags_.request_timeout_s);
    add("join-timeout", flags_.join_timeout_s);
    if (!flags_.max_request_bytes.empty()) add("max-request-bytes", flags_.max_request_bytes);
    add("report-fd", 3);
    add("incarnation", absl::StrCat(::getpid(), "-", starts_));
    if (!flags_.code) command.emplace_back("--quiet");
    if (!flags_.verify_weights) command.emplace_back("--no-verify-weights");
    if (flags_.exact) command.emplace_back("--exact");
    if (rank > 0) return command;
    add("policy", flags_.plan.policy);
    add("kv-memory", flags_.plan.kv_memory);
    for (const auto& [flag, value] : {std::pair("threshold", flags_.plan.threshold),
                                      {"split-points", flags_.plan.points},
                                      {"stage-memory", flags_.plan.stage_memory},
                                      {"stage-speed", flags_.plan.stage_speed},
                                      {"times", flags_.plan.times}})
      if (!value.empty()) add(flag, value);
    return command;
  }

  // The machine's cores are shared out, so that stages do not fight over them.
  int Threads() const {
    if (flags_.threads > 0) return flags_.threads;
    if (!cores_.empty()) return 1;
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / flags_.stages);
  }

  bool Start(int rank) {
    if (!flags_.cores.empty() && cores_.empty())
      for (const auto& part : absl::StrSplit(flags_.cores, ',')) {
        int core = 0;
        if (!absl::SimpleAtoi(part, &core) || core < 0 || core >= CPU_SETSIZE) {
          Fail(absl::StrCat("--cores: '", part, "' is no core number; write it as 0,1"));
          return false;
        }
        cores_.push_back(core);
      }
    std::vector<int> own;
    if (!cores_.empty()) own = {cores_[rank % cores_.size()]};
    ++starts_;
    absl::StatusOr<Child> child = Spawn(rank, Command(rank), own);
    if (!child.ok()) {
      Fail(std::string(child.status().message()));
      return false;
    }
    children_[rank] = *std::move(child);
    return true;
  }

  void StartWorkers() {
    workers_due_ = false;
    for (int rank = 1; rank < flags_.stages && !ended_; ++rank)
      if (children_[rank].pid < 0) Start(rank);
  }

  // ---- Watching
  // -----------------------------------------------------------------------------------------------------

  void Wait(int timeout_ms) {
    std::vector<pollfd> polled{{signals_, POLLIN, 0}};
    for (const Child& child : children_)
      for (const int descriptor : {child.report, child.log})
        if (descriptor >= 0) polled.push_back({descriptor, POLLIN, 0});
    ::poll(polled.data(), polled.size(), timeout_ms);
    for (Child& child : children_) ReadFrom(child);
    signalfd_siginfo signal{};
    while (::read(signals_, &signal, sizeof signal) == sizeof signal) {
      if (signal.ssi_signo == SIGCHLD)
        Reap();
      else if (std::exchange(ended_, true))
        Signal(0, flags_.stages, SIGKILL);  // told twice
      else if (!flags_.quiet_stop)
        progress_.Say("stopping");
    }
  }

  void ReadFrom(Child& child) {
    for (const std::string& line : ReadLines(&child.log, &child.log_rest)) {
      if (flags_.verbose) progress_.Say(line);
      child.last_lines.push_back(line);
      if (child.last_lines.size() > kKeptLines) child.last_lines.pop_front();
    }
    for (const std::string& line : ReadLines(&child.report, &child.report_rest)) {
      const auto event = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (event.is_object()) On(child, event);
    }
  }

  void On(Child& child, const nlohmann::json& event) {
    const std::string kind = event.value("event", "");
    if (kind == "ports") {
      child.http = event.value("http", 0);
      child.grpc = event.value("grpc", 0);
      child.metrics = event.value("metrics", 0);
      if (child.rank == 0) group_port_ = event.value("group", 0);
      workers_due_ |= child.rank == 0;
    } else if (kind == "planned") {
      Planned(event.value("weights", int64_t{0}), event.value("kv", int64_t{0}),
              event.value("kv_tokens", int64_t{0}));
    } else if (kind == "loading") {
      progress_.Loading(child.rank, event.value("loaded", int64_t{0}),
                        event.value("total", int64_t{0}));
    } else if (kind == "ready") {
      child.ready = true;
      const auto is_ready = [](const Child& c) { return c.ready; };
      if (std::all_of(children_.begin(), children_.end(), is_ready)) AllReady();
    } else if (kind == "closed") {
      child.ready = false;
      if (child.rank == 0 && !ended_)
        progress_.Say(absl::StrCat("not ready: ", event.value("why", "")));
    } else if (kind == "error") {
      child.error = event.value("message", "");
    }
  }

  // All ranks take their memory from this machine. One that is started again finds the others'
  // taken.
  void Planned(int64_t weight_bytes, int64_t kv_bytes, int64_t kv_tokens) {
    if (announced_) return;
    const absl::Status fits =
        weights::CheckMemory("the stages together need", static_cast<uint64_t>(weight_bytes),
                             static_cast<uint64_t>(kv_bytes),
                             kv_bytes == 0 ? "run some of them on another machine"
                                           : "give a smaller --kv-memory, or run some of them on "
                                             "another machine");
    if (!fits.ok()) return Fail(std::string(fits.message()));
    if (kv_bytes > 0)
      progress_.Say(absl::StrCat("KV cache: ", kv_tokens, " tokens of all texts together, in ",
                                 plan::BytesText(kv_bytes), " of memory (--kv-memory ",
                                 flags_.plan.kv_memory, " a stage)"));
  }

  std::string At(int port) const { return JoinHostPort(flags_.bind, port); }

  void AllReady() {
    if (std::exchange(announced_, true)) return progress_.Say("ready again");
    progress_.Done();
    const Child& head = children_[0];
    std::vector<std::string> metrics;
    for (const Child& child : children_) metrics.push_back(At(child.metrics));
    std::printf("%s is served in %d stages\n", flags_.name.c_str(), flags_.stages);
    if (flags_.weights.empty())
      std::printf("  HTTP     http://%s/v2/models/%s\n", At(head.http).c_str(),
                  flags_.name.c_str());
    std::printf("  gRPC     %s\n", At(head.grpc).c_str());
    std::printf("  metrics  %s\n", absl::StrJoin(metrics, ", ").c_str());
    std::printf(flags_.weights.empty() ? "try   echelon infer --server %s\n"
                                       : "try   echelon generate %s \"Hello\"\n",
                At(head.grpc).c_str());
    std::puts("stop  Ctrl-C");
    std::fflush(stdout);
    if (flags_.json_endpoints.empty()) return;
    const nlohmann::json json{
        {"http", At(head.http)}, {"grpc", At(head.grpc)}, {"metrics", metrics}, {"pids", Pids()}};
    // Whoever waits for the file must never see half of it.
    const std::string draft = flags_.json_endpoints + ".part";
    std::ofstream file(draft);
    file << json.dump() << '\n';
    file.close();
    std::error_code error;
    std::filesystem::rename(draft, flags_.json_endpoints, error);
    if (!file || error)
      Fail(absl::StrCat("--json-endpoints ", flags_.json_endpoints, ": cannot be written"));
  }

  std::vector<int> Pids() const {
    std::vector<int> pids;
    for (const Child& child : children_) pids.push_back(child.pid);
    return pids;
  }

  void Reap() {
    int status = 0;
    for (pid_t pid = ::waitpid(-1, &status, WNOHANG); pid > 0;
         pid = ::waitpid(-1, &status, WNOHANG))
      for (Child& child : children_)
        if (child.pid == pid) Ended(child, status);
  }

  void Ended(Child& child, int status) {
    ReadFrom(child);
    const pid_t pid = std::exchange(child.pid, -1);
    child.ready = false;
    if (ended_) return;
    // The head names the rank that it refuses or misses; what a stage says of itself comes first.
    const std::string what = absl::StrFormat(
        "rank %d (pid %d) %s", child.rank, pid,
        child.error.empty() ? EndText(status) : absl::StrCat("failed: ", child.error));
    if (child.error.empty() && !flags_.verbose)
      for (const std::string& line : child.last_lines) progress_.Say(absl::StrCat("  ", line));
    if (announced_ && flags_.restarts-- > 0) {
      progress_.Say(what + "; starting it again");
      Child fresh;
      fresh.rank = child.rank;
      fresh.http = child.http, fresh.grpc = child.grpc, fresh.metrics = child.metrics;
      for (const int descriptor : {child.report, child.log})
        if (descriptor >= 0) ::close(descriptor);
      child = fresh;
      Start(child.rank);
      return;
    }
    Fail(what);
  }

  void Fail(const std::string& why) {
    if (ended_ && exit_status_ != 0) return;
    progress_.Done();
    std::fprintf(stderr, "echelon run: %s\n", why.c_str());
    exit_status_ = 1;
    ended_ = true;
  }

  // ---- Stopping
  // -----------------------------------------------------------------------------------------------------

  bool AnyAlive(int first, int end) const {
    return std::any_of(children_.begin() + first, children_.begin() + end,
                       [](const Child& c) { return c.pid > 0; });
  }

  void Signal(int first, int end, int signal) {
    for (int rank = first; rank < end; ++rank)
      if (children_[rank].pid > 0) ::kill(children_[rank].pid, signal);
  }

  // The head first: it answers what is in flight while the others still compute.
  void StopAll() {
    ended_ = true;
    for (const auto& [first, end] : {std::pair(0, 1), std::pair(1, flags_.stages)}) {
      Signal(first, end, SIGTERM);
      Signal(first, end, SIGCONT);  // a stopped process would never see it
      const auto deadline = Clock::now() + kStopGrace;
      while (AnyAlive(first, end) && Clock::now() < deadline) Wait(100);
      Signal(first, end, SIGKILL);
      while (AnyAlive(first, end)) Wait(100);
    }
    progress_.Done();
  }

  RunFlags flags_;
  Progress progress_;
  std::vector<Child> children_;
  std::vector<int> cores_;
  int signals_ = -1, group_port_ = 0, starts_ = 0, exit_status_ = 0;
  bool workers_due_ = false, announced_ = false, ended_ = false;
};

void AddFlags(CLI::App& app, RunFlags* f) {
  app.add_option("model", f->model, "the .pt2 file, or a Hugging Face directory");
  app.add_option("-f,--file", f->deployment.file,
                 "instead of a model: a file with a PipelineDeployment, for its model, stages and "
                 "policy; flags given beside it win");
  app.add_option("--deployment-name", f->deployment.name,
                 "of several in the file; the first otherwise");
  app.add_option("--model-dir", f->deployment.model_dir,
                 "where the files of the deployment's volume are here");
  app.add_option("--weights", f->weights,
                 "of a language model's .pt2: the directory that its weights lie in");
  AddExportFlags(app, &f->exporting);
  app.add_option("--chunk-tokens", f->chunk_tokens,
                 "language models: tokens of prompts in a step; longer ones come in several")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--max-running", f->max_running,
                 "language models: sequences that are generated at once; others wait")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--stages", f->stages, "number of stages, a process each")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--name", f->name, "the model's name for clients; the file's stem otherwise");
  app.add_option("--bind", f->bind, "address to listen on; 0.0.0.0 for all of this machine's")
      ->capture_default_str();
  app.add_option("--http-port", f->http_port, "HTTP front door; 0: any")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  app.add_option("--grpc-port", f->grpc_port, "gRPC front door; 0: any")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  app.add_option("--metrics-port", f->metrics_port,
                 "metrics of rank 0, rank r has this + r; 0: any")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  app.add_option("--cores", f->cores, "cores for the stages, one each in turn, as 0,1");
  stage::AddPlanFlags(app, &f->plan);
  app.add_option("--chunks", f->chunks, "micro-batches a request is split into")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--queue", f->queue, "requests that may wait; one more is refused")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--threads", f->threads, "threads a stage; 0: the machine's cores shared out")
      ->check(CLI::Range(0, 4096));
  app.add_flag("--verify-weights,!--no-verify-weights", f->verify_weights,
               "compare what is loaded with the file's checksums (on)");
  app.add_flag("--exact", f->exact,
               "run linear layers as eager PyTorch does: equal to the last bit, but slower");
  app.add_option("--request-timeout", f->request_timeout_s, "seconds a request may take")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--join-timeout", f->join_timeout_s, "seconds the group may take to form")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-request-bytes", f->max_request_bytes,
                 "largest request that is taken, as 256MiB");
  app.add_option("--restarts", f->restarts, "start a stage that dies again, this many times in all")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app.add_option("--json-endpoints", f->json_endpoints,
                 "write the endpoints to this file once ready");
  app.add_flag("--code", f->code, "print each stage's code");
  app.add_flag("--verbose", f->verbose, "show the stages' logs");
  app.add_flag("--quiet-stop", f->quiet_stop, "say nothing when told to stop")
      ->group("");  // for echelon generate, whose answer is the last thing to be read
}

// What the command line does not say comes out of the file.
absl::Status TakeDeployment(const CLI::App& app, RunFlags* flags) {
  if (app.count("--file") == 0) return absl::OkStatus();
  if (app.count("--stages") > 0) flags->deployment.stages = flags->stages;
  absl::StatusOr<LocalDeployment> deployment = ReadDeployment(flags->deployment);
  if (!deployment.ok()) return deployment.status();
  if (!deployment->ignored.empty())
    std::fprintf(stderr, "%s: ignored on one machine: %s\n", deployment->name.c_str(),
                 absl::StrJoin(deployment->ignored, ", ").c_str());
  const auto take = [&](const char* flag, auto* to, const auto& value) {
    if (app.count(flag) == 0) *to = value;
  };
  flags->model = deployment->model;
  flags->stages = deployment->stages;
  take("--name", &flags->name, deployment->model_name);
  take("--chunks", &flags->chunks, deployment->chunks);
  take("--policy", &flags->plan.policy, deployment->policy);
  take("--dtype", &flags->exporting.dtype, deployment->dtype);
  take("--max-model-len", &flags->exporting.max_model_len, deployment->max_model_len);
  take("--stage-memory", &flags->plan.stage_memory, deployment->stage_memory);
  take("--stage-speed", &flags->plan.stage_speed, deployment->stage_speed);
  return absl::OkStatus();
}

// A directory becomes its export and its weights.
absl::Status FindModel(RunFlags* flags) {
  if (!IsModelDirectory(flags->model)) return CheckExported(flags->model, flags->exporting);
  if (!flags->weights.empty())
    return absl::InvalidArgumentError(absl::StrCat(
        "--weights: ", flags->model, " is a directory, which has its own; leave the flag out"));
  absl::StatusOr<std::string> file = ExportedModel(flags->model, flags->exporting);
  if (!file.ok()) return file.status();
  const auto directory = std::filesystem::weakly_canonical(flags->model);
  if (flags->name.empty()) flags->name = directory.filename().string();
  flags->weights = directory.string();
  flags->model = *std::move(file);
  return absl::OkStatus();
}

}  // namespace

int RunMain(int argc, char** argv) {
  RunFlags flags;
  CLI::App app("Serves a model on this machine, each stage in a process of its own.",
               "echelon run");
  app.footer(
      "Example:\n  echelon run net.pt2 --stages 2 --http-port 0 --grpc-port 0 --metrics-port 0\n");
  AddFlags(app, &flags);
  try {
    app.parse(argc, argv);
    const bool has_file = app.count("--file") > 0, has_model = app.count("model") > 0;
    if (has_file && has_model) throw CLI::ValidationError("a model and --file: give one of them");
    if (!has_file && !has_model)
      throw CLI::ValidationError("give a model, or a file with a PipelineDeployment by -f");
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "echelon run: %s; see --help\n", stage::FlagError(app, error).c_str());
    return 2;
  }
  absl::Status status = TakeDeployment(app, &flags);
  if (status.ok()) status = FindModel(&flags);
  if (!status.ok()) {
    std::fprintf(stderr, "echelon run: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  if (flags.name.empty()) flags.name = std::filesystem::path(flags.model).stem().string();
  return Runner(std::move(flags)).Run();
}

}  // namespace echelon
