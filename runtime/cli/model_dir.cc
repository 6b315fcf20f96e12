#include "runtime/cli/model_dir.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace echelon {
namespace {

namespace fs = std::filesystem;

constexpr char kExporter[] = "echelon-export";
constexpr char kModule[] = "echelon_export";  // the same, as a Python module
constexpr char kHasModule[] =
    "import importlib.util, sys; sys.exit(importlib.util.find_spec('echelon_export') is None)";

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// The first program of this name that can be run; "" where there is none.
std::string FindProgram(const char* name, const std::vector<fs::path>& places) {
  for (const fs::path& place : places)
    if (::access((place / name).c_str(), X_OK) == 0) return (place / name).string();
  return "";
}

std::vector<fs::path> PathFolders() {
  std::vector<fs::path> folders;
  for (const auto& folder : absl::StrSplit(Environment("PATH"), ':', absl::SkipEmpty()))
    folders.emplace_back(std::string(folder));
  return folders;
}

absl::StatusOr<std::string> CacheFolder() {
  fs::path folder = Environment("ECHELON_CACHE");
  if (folder.empty() && !Environment("XDG_CACHE_HOME").empty())
    folder = fs::path(Environment("XDG_CACHE_HOME")) / "echelon";
  if (folder.empty() && !Environment("HOME").empty())
    folder = fs::path(Environment("HOME")) / ".cache/echelon";
  if (folder.empty())
    return absl::FailedPreconditionError("no place for exported models; set ECHELON_CACHE");
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    return absl::UnavailableError(
        absl::StrCat(folder.string(), " cannot be made: ", error.message(), "; set ECHELON_CACHE"));
  return folder.string();
}

// A large model's export takes some minutes.
constexpr auto kLongestExport = std::chrono::minutes(30);

// Its stdout; stderr is this program's own. It is killed at the deadline.
absl::StatusOr<std::string> Output(const std::vector<std::string>& command) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0)
    return absl::ResourceExhaustedError(absl::StrCat("no pipe: ", std::strerror(errno)));
  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(127);  // it died before prctl
    ::dup2(pipe[1], STDOUT_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(pipe[1]);
  if (pid < 0) {
    ::close(pipe[0]);
    return absl::ResourceExhaustedError(absl::StrCat("no process: ", std::strerror(errno)));
  }
  std::string text;
  std::array<char, 4096> piece{};
  const auto deadline = std::chrono::steady_clock::now() + kLongestExport;
  bool is_late = false;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd readable{pipe[0], POLLIN, 0};
    is_late = left.count() <= 0;
    if (is_late) break;
    if (::poll(&readable, 1, static_cast<int>(left.count())) <= 0) continue;
    const ssize_t count = ::read(pipe[0], piece.data(), piece.size());
    if (count > 0) text.append(piece.data(), static_cast<size_t>(count));
    if (count == 0 || (count < 0 && errno != EINTR)) break;
  }
  ::close(pipe[0]);
  if (is_late) ::kill(pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (is_late)
    return absl::DeadlineExceededError(
        absl::StrCat(command[0], " did not end within ", kLongestExport.count(), " minutes"));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return text;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return absl::NotFoundError(absl::StrCat(command[0], " cannot be started"));
  return absl::FailedPreconditionError("the model was not exported, for the reason above");
}

// The command that exports, without its arguments; empty where there is none. A checkout's
// build/bin lies beside its .deps.
std::vector<std::string> FindExporter() {
  if (std::string given = Environment("ECHELON_EXPORT"); !given.empty()) return {given};
  std::error_code error;
  const fs::path own = fs::read_symlink("/proc/self/exe", error).parent_path();
  const std::vector<fs::path> path = PathFolders();
  std::vector<fs::path> places{own};
  places.insert(places.end(), path.begin(), path.end());
  if (const std::string deps = Environment("ECHELON_DEPS"); !deps.empty())
    places.push_back(fs::path(deps) / "python/bin");
  places.push_back(own / "../../.deps/python/bin");
  if (const std::string found = FindProgram(kExporter, places); !found.empty()) return {found};
  const std::string python = FindProgram("python3", path);
  const bool has_module = !python.empty() && Output({python, "-c", kHasModule}).ok();
  return has_module ? std::vector<std::string>{python, "-m", kModule} : std::vector<std::string>{};
}

}  // namespace

absl::Status CheckExported(const std::string& file, const ExportFlags& flags) {
  if (flags.dtype.empty() && flags.max_model_len == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flags.dtype.empty() ? "--max-model-len" : "--dtype", ": ", file,
                   " is exported already, which fixed it; give the model's directory"));
}

bool IsModelDirectory(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

absl::StatusOr<std::string> ExportedModel(const std::string& directory, const ExportFlags& flags) {
  if (flags.max_model_len < 0)
    return absl::InvalidArgumentError(
        absl::StrCat("--max-model-len ", flags.max_model_len, " is no number of tokens above 0"));
  std::vector<std::string> command = FindExporter();
  if (command.empty())
    return absl::NotFoundError(
        absl::StrCat(directory,
                     " is a directory, and echelon-export, which turns it into a graph, is not "
                     "installed; `make deps-python` installs it, or name it by ECHELON_EXPORT"));
  const absl::StatusOr<std::string> cache = CacheFolder();
  if (!cache.ok()) return cache.status();
  const std::string exporter = command.back();
  command.insert(command.end(), {directory, "--cache", *cache});
  if (!flags.dtype.empty()) command.push_back(absl::StrCat("--dtype=", flags.dtype));
  if (flags.max_model_len > 0)
    command.push_back(absl::StrCat("--max-model-len=", flags.max_model_len));
  const absl::StatusOr<std::string> output = Output(command);
  if (!output.ok()) return output.status();
  const std::string path(absl::StripAsciiWhitespace(*output));
  std::error_code ignored;
  if (path.empty() || !fs::exists(path, ignored))
    return absl::InternalError(absl::StrCat(exporter, " named no file"));
  return path;
}

}  // namespace echelon
