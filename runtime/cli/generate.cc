// echelon generate: a text from a language model, as it comes. It starts `echelon run` for a
// directory, or is a client of a server that runs already.
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/generate.grpc.pb.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/model_dir.h"
#include "runtime/cli/stop_signals.h"
#include "runtime/stage/flag_errors.h"

namespace echelon {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPoll = std::chrono::milliseconds(20);
constexpr auto kLongestStart = std::chrono::hours(1);  // the export, and the weights
constexpr auto kLastWords = std::chrono::seconds(2);   // for `echelon run` to say which stage died
// Of stages that are started here.
constexpr const char* kStageFlags[] = {"--stages",    "--dtype", "--max-model-len",
                                       "--kv-memory", "--cores", "--threads"};

struct GenerateFlags {
  std::string target, prompt, dtype, cores, kv_memory = "1GiB";
  int stages = 2, max_model_len = 0, threads = 0;
  int max_tokens = 256, min_tokens = 0, top_k = 0, logprobs = -1;
  float temperature = 0, top_p = 1, min_p = 0;
  float repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool ignore_eos = false, raw = false, json = false, clip_max_tokens = false;
  double timeout_s = 600;
};

int Fail(const std::string& why) {
  std::fprintf(stderr, "echelon generate: %s\n", why.c_str());
  return 1;
}

bool IsUtf8(const std::string& text) {
  try {
    return !nlohmann::json(text).dump().empty();
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

// `echelon run`, started and stopped. It says itself, on stderr, what goes wrong.
class Server {
 public:
  ~Server() {
    if (pid_ > 0) {
      ::kill(pid_, SIGTERM);
      ::waitpid(pid_, nullptr, 0);
    }
    std::error_code error;
    std::filesystem::remove_all(folder_, error);
  }

  // The address of its gRPC door; "" when it ended or was told to.
  std::string Start(const GenerateFlags& flags, const std::atomic<bool>& stopping) {
    std::string folder = (std::filesystem::temp_directory_path() / "echelon-XXXXXX").string();
    if (!::mkdtemp(folder.data())) return "";
    folder_ = folder;
    const std::string endpoints = folder + "/endpoints.json";
    std::vector<std::string> command{std::filesystem::read_symlink("/proc/self/exe").string(),
                                     "run",
                                     flags.target,
                                     "--quiet-stop",
                                     "--http-port=0",
                                     "--grpc-port=0",
                                     "--metrics-port=0"};
    command.push_back(absl::StrCat("--stages=", flags.stages));
    command.push_back(absl::StrCat("--json-endpoints=", endpoints));
    command.push_back(absl::StrCat("--kv-memory=", flags.kv_memory));
    if (!flags.dtype.empty()) command.push_back(absl::StrCat("--dtype=", flags.dtype));
    if (flags.max_model_len > 0)
      command.push_back(absl::StrCat("--max-model-len=", flags.max_model_len));
    if (!flags.cores.empty()) command.push_back(absl::StrCat("--cores=", flags.cores));
    command.push_back(absl::StrCat("--request-timeout=", flags.timeout_s));
    if (flags.threads > 0) command.push_back(absl::StrCat("--threads=", flags.threads));
    std::vector<char*> argv;
    argv.reserve(command.size() + 1);
    for (std::string& word : command) argv.push_back(word.data());
    argv.push_back(nullptr);
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (::getppid() != parent) ::_exit(127);
      ::setpgid(0, 0);  // Ctrl-C is this program's to pass on
      sigset_t none;
      sigemptyset(&none);
      ::sigprocmask(SIG_SETMASK, &none, nullptr);
      ::dup2(::open("/dev/null", O_WRONLY), STDOUT_FILENO);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    const auto deadline = Clock::now() + kLongestStart;
    while (!std::filesystem::exists(endpoints) && !stopping) {
      if (Clock::now() > deadline) {
        Fail("the stages were not ready within an hour; see what they wait for with echelon run");
        return "";
      }
      if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
        pid_ = -1;
        return "";
      }
      std::this_thread::sleep_for(kPoll);
    }
    if (stopping) return "";
    std::ifstream file(endpoints);
    const auto json = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
    return json.is_object() ? json.value("grpc", "") : "";
  }

  // A request failed: when that is because `echelon run` ends, it says why. Waits for that a while.
  void HearLastWords() {
    const auto deadline = Clock::now() + kLastWords;
    while (pid_ > 0 && Clock::now() < deadline) {
      if (::waitpid(pid_, nullptr, WNOHANG) == pid_)
        pid_ = -1;
      else
        std::this_thread::sleep_for(kPoll);
    }
  }

 private:
  pid_t pid_ = -1;
  std::string folder_;
};

v1::GenerateRequest Request(const GenerateFlags& flags, bool raw) {
  v1::GenerateRequest request;
  if (raw) {
    request.set_text(flags.prompt);
  } else {
    v1::ChatMessage* message = request.mutable_messages()->add_messages();
    message->set_role("user");
    message->set_content(flags.prompt);
  }
  request.set_max_tokens(flags.max_tokens);
  request.set_clip_max_tokens(flags.clip_max_tokens);
  request.set_min_tokens(flags.min_tokens);
  request.set_ignore_eos(flags.ignore_eos);
  for (const std::string& stop : flags.stop) request.add_stop(stop);
  request.set_temperature(flags.temperature);
  request.set_top_k(flags.top_k);
  request.set_top_p(flags.top_p);
  request.set_min_p(flags.min_p);
  request.set_repetition_penalty(flags.repetition_penalty);
  request.set_presence_penalty(flags.presence_penalty);
  request.set_frequency_penalty(flags.frequency_penalty);
  if (flags.seed) request.set_seed(*flags.seed);
  if (flags.logprobs >= 0) request.set_logprobs(flags.logprobs);
  return request;
}

const char* ReasonText(v1::FinishReason reason) {
  if (reason == v1::FINISH_REASON_STOP) return "stop";
  return reason == v1::FINISH_REASON_LENGTH ? "length" : nullptr;
}

void PrintJson(const v1::GenerateResponse& response) {
  nlohmann::ordered_json json{{"text", response.text()}, {"token_ids", nlohmann::json::array()}};
  for (const int32_t id : response.token_ids()) json["token_ids"].push_back(id);
  for (const v1::TokenLogprob& logprob : response.logprobs()) {
    nlohmann::ordered_json one{{"token_id", logprob.token_id()},
                               {"token", logprob.token()},
                               {"logprob", logprob.logprob()}};
    for (const v1::TopLogprob& top : logprob.top())
      one["top"].push_back(
          {{"token_id", top.token_id()}, {"token", top.token()}, {"logprob", top.logprob()}});
    json["logprobs"].push_back(one);
  }
  if (response.has_seed()) json["seed"] = response.seed();
  if (const char* reason = ReasonText(response.finish_reason())) {
    json["finish_reason"] = reason;
    json["usage"] = {{"prompt_tokens", response.usage().prompt_tokens()},
                     {"completion_tokens", response.usage().completion_tokens()}};
  }
  std::printf("%s\n", json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

class Client {
 public:
  Client(const std::string& address, const GenerateFlags& flags, const std::atomic<bool>& stopping)
      : address_(address),
        flags_(flags),
        stopping_(stopping),
        stub_(v1::Text::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {
    context_.set_deadline(std::chrono::system_clock::now() +
                          std::chrono::milliseconds(static_cast<int64_t>(flags.timeout_s * 1e3)));
  }

  void Cancel() { context_.TryCancel(); }
  bool was_lost() const { return was_lost_; }  // the server, or a stage of it

  int Run() {
    bool raw = flags_.raw;
    if (const grpc::Status status = FindTemplate(&raw); !status.ok()) return Failed(status);
    const auto start = Clock::now();
    const auto reader = stub_->Generate(&context_, Request(flags_, raw));
    v1::GenerateResponse response;
    int tokens = 0;
    double first_s = 0;
    const auto seconds = [&] {
      return std::chrono::duration<double>(Clock::now() - start).count();
    };
    while (reader->Read(&response)) {
      if (tokens == 0) first_s = seconds();
      tokens += response.token_ids_size();
      if (flags_.json)
        PrintJson(response);
      else
        std::fwrite(response.text().data(), 1, response.text().size(), stdout);
      std::fflush(stdout);
    }
    const double all_s = seconds();
    const grpc::Status status = reader->Finish();
    if (!flags_.json) std::puts(""), std::fflush(stdout);
    if (!status.ok()) return Failed(status);
    std::fprintf(stderr, "%d prompt tokens; first token after %.2f s; %d tokens, %.1f a second\n",
                 response.usage().prompt_tokens(), first_s, tokens,
                 all_s > first_s ? (tokens - 1) / (all_s - first_s) : 0);
    return 0;
  }

 private:
  int Failed(const grpc::Status& status) {
    was_lost_ = status.error_code() == grpc::StatusCode::UNAVAILABLE;
    if (stopping_) return 130;
    const std::string& text = status.error_message();
    if (status.error_code() == grpc::StatusCode::CANCELLED)
      return Fail(absl::StrCat(address_, " has cancelled the request"));
    if (text == "Deadline Exceeded")  // gRPC's own words; a server's say more
      return Fail(
          absl::StrFormat("the answer was not complete within %g s (--timeout)", flags_.timeout_s));
    if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED)
      return Fail(absl::StrCat(address_, " serves no language model"));
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE && absl::StrContains(text, "connect"))
      return Fail(absl::StrCat("cannot reach ", address_, " (", text, ")"));
    return Fail(text);
  }

  // A model without a chat template is given the prompt as it is.
  grpc::Status FindTemplate(bool* raw) {
    if (*raw) return grpc::Status::OK;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    v1::DescribeResponse about;
    grpc::Status status = stub_->Describe(&context, {}, &about);
    if (status.ok() && !about.has_chat_template()) {
      std::fprintf(stderr, "the model has no chat template: the prompt is used as it is (--raw)\n");
      *raw = true;
    }
    return status;
  }

  const std::string address_;
  const GenerateFlags& flags_;
  const std::atomic<bool>& stopping_;
  const std::unique_ptr<v1::Text::Stub> stub_;
  grpc::ClientContext context_;
  bool was_lost_ = false;
};

void AddFlags(CLI::App& app, GenerateFlags* f) {
  app.add_option("model", f->target,
                 "a Hugging Face directory, or HOST:PORT of a running server's gRPC door")
      ->required();
  app.add_option("prompt", f->prompt, "what the user says")->required();
  app.add_option("--stages", f->stages, "number of stages, a process each")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--dtype", f->dtype, "compute in bf16 or f32; as the weights otherwise");
  app.add_option("--max-model-len", f->max_model_len, "tokens of prompt and answer together")
      ->check(CLI::PositiveNumber);
  app.add_option("--kv-memory", f->kv_memory, "of each stage's KV cache")->capture_default_str();
  app.add_option("--cores", f->cores, "cores for the stages, one each in turn, as 0,1");
  app.add_option("--threads", f->threads, "threads a stage; 0: the machine's cores shared out");
  app.add_option("--max-tokens", f->max_tokens, "of the answer; 0: as many as there is room for")
      ->capture_default_str();
  app.add_option("--min-tokens", f->min_tokens, "until then nothing ends the answer");
  app.add_option("--temperature", f->temperature, "0: the likeliest token, always");
  app.add_option("--top-k", f->top_k, "0: off");
  app.add_option("--top-p", f->top_p, "1: off");
  app.add_option("--min-p", f->min_p, "0: off");
  app.add_option("--repetition-penalty", f->repetition_penalty, "1: off");
  app.add_option("--presence-penalty", f->presence_penalty, "0: off");
  app.add_option("--frequency-penalty", f->frequency_penalty, "0: off");
  app.add_option("--seed", f->seed, "of the drawing; a random one otherwise");
  app.add_option("--logprobs", f->logprobs, "with --json: the likeliest tokens beside each");
  app.add_option("--stop", f->stop, "a string that ends the answer; may be given several times")
      ->take_all();
  app.add_flag("--ignore-eos", f->ignore_eos, "go on after the model's end");
  app.add_flag("--raw", f->raw, "the prompt as it is, without the chat template");
  app.add_flag("--json", f->json, "a JSON object a line");
  app.add_option("--timeout", f->timeout_s, "seconds the answer may take")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

}  // namespace

int GenerateMain(int argc, char** argv) {
  GenerateFlags flags;
  CLI::App app("Generates text, as it comes, over a pipeline of stages on this machine.",
               "echelon generate");
  app.footer(
      "Example:\n  echelon generate SmolLM2-135M-Instruct \"What is the capital of France?\" "
      "--stages 2\n");
  AddFlags(app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "echelon generate: %s; see --help\n",
                 stage::FlagError(app, error).c_str());
    return 2;
  }
  flags.clip_max_tokens = app.count("--max-tokens") == 0;  // nobody asked for the default
  const bool is_directory = IsModelDirectory(flags.target);
  if (!is_directory && flags.target.find(':') == std::string::npos)
    return Fail(
        absl::StrCat(flags.target, " is neither a model's directory nor HOST:PORT of a server"));
  for (const char* flag : kStageFlags)
    if (!is_directory && app.count(flag) > 0)
      return Fail(absl::StrCat(flag, ": the stages of ", flags.target,
                               " run already; leave the flag out or give a model's directory"));
  if (!IsUtf8(flags.prompt)) return Fail("the prompt is not UTF-8 text");
  for (const std::string& stop : flags.stop)
    if (!IsUtf8(stop)) return Fail("--stop is not UTF-8 text");
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::atomic<bool> stopping = false;
  std::mutex mutex;
  Client* client = nullptr;  // guarded by mutex
  std::thread([&] {
    int signal = 0;
    sigwait(&signals, &signal);
    stopping = true;
    const std::lock_guard lock(mutex);
    if (client) client->Cancel();
  }).detach();
  int status = 130;
  {
    Server server;
    const std::string address = is_directory ? server.Start(flags, stopping) : flags.target;
    if (address.empty()) {
      status = stopping ? 130 : 1;
    } else {
      Client own(address, flags, stopping);
      {
        const std::lock_guard lock(mutex);
        client = &own;
      }
      if (!stopping) status = own.Run();
      if (own.was_lost()) server.HearLastWords();
      const std::lock_guard lock(mutex);
      client = nullptr;
    }
  }
  std::fflush(stdout);
  ::_exit(status);  // the thread above waits for a signal that need not come
}

}  // namespace echelon
