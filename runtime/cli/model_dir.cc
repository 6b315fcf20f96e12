#include "runtime/cli/model_dir.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
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

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// A checkout's build/bin lies beside its .deps.
std::string FindExporter() {
  if (std::string given = Environment("ECHELON_EXPORT"); !given.empty()) return given;
  std::error_code error;
  const fs::path own = fs::read_symlink("/proc/self/exe", error).parent_path();
  std::vector<fs::path> places{own};
  for (const auto& folder : absl::StrSplit(Environment("PATH"), ':', absl::SkipEmpty()))
    places.emplace_back(std::string(folder));
  if (const std::string deps = Environment("ECHELON_DEPS"); !deps.empty())
    places.push_back(fs::path(deps) / "python/bin");
  places.push_back(own / "../../.deps/python/bin");
  for (const fs::path& place : places)
    if (::access((place / kExporter).c_str(), X_OK) == 0) return (place / kExporter).string();
  return "";
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

// Its stdout; stderr is this program's own.
absl::StatusOr<std::string> Output(const std::vector<std::string>& command) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0)
    return absl::ResourceExhaustedError(absl::StrCat("no pipe: ", std::strerror(errno)));
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid == 0) {
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
  for (;;) {
    const ssize_t count = ::read(pipe[0], piece.data(), piece.size());
    if (count > 0) text.append(piece.data(), static_cast<size_t>(count));
    if (count == 0 || (count < 0 && errno != EINTR)) break;
  }
  ::close(pipe[0]);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return text;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return absl::NotFoundError(absl::StrCat(command[0], " cannot be started"));
  return absl::FailedPreconditionError("the model was not exported, for the reason above");
}

}  // namespace

bool IsModelDirectory(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

absl::StatusOr<std::string> ExportedModel(const std::string& directory, const ExportFlags& flags) {
  const std::string exporter = FindExporter();
  if (exporter.empty())
    return absl::NotFoundError(
        absl::StrCat(directory,
                     " is a directory, and echelon-export, which turns it into a graph, is not "
                     "installed; `make deps-python` installs it, or name it by ECHELON_EXPORT"));
  const absl::StatusOr<std::string> cache = CacheFolder();
  if (!cache.ok()) return cache.status();
  std::vector<std::string> command{exporter, directory, "--cache", *cache};
  if (!flags.dtype.empty()) command.push_back(absl::StrCat("--dtype=", flags.dtype));
  if (flags.max_model_len > 0)
    command.push_back(absl::StrCat("--max-model-len=", flags.max_model_len));
  const absl::StatusOr<std::string> output = Output(command);
  if (!output.ok()) return output.status();
  const std::string path(absl::StripAsciiWhitespace(*output));
  if (path.empty() || !fs::exists(path))
    return absl::InternalError(absl::StrCat(exporter, " named no file"));
  return path;
}

}  // namespace echelon
