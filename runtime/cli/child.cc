#include "runtime/cli/child.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace echelon {
namespace {

constexpr int kReportDescriptor = 3;

// In the child, between fork and exec: async-signal-safe calls only.
[[noreturn]] void Become(char* const* argv, const cpu_set_t* cores, int report, int log,
                         pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // it died before prctl
  ::setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (cores) ::sched_setaffinity(0, sizeof *cores, cores);
  if (report == kReportDescriptor)
    ::fcntl(report, F_SETFD, 0);
  else
    ::dup2(report, kReportDescriptor);
  ::dup2(log, STDERR_FILENO);
  ::execv(argv[0], argv);
  ::_exit(127);
}

}  // namespace

absl::StatusOr<Child> Spawn(int rank, const std::vector<std::string>& command,
                            const std::vector<int>& cores) {
  std::array<int, 2> report{}, log{};
  if (::pipe2(report.data(), O_CLOEXEC) != 0 || ::pipe2(log.data(), O_CLOEXEC) != 0)
    return absl::ResourceExhaustedError(
        absl::StrCat("rank ", rank, ": no pipe: ", std::strerror(errno)));
  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(core, &set);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    // The log's descriptor must survive dup2 onto 3.
    const int log_end = log[1] == kReportDescriptor ? ::dup(log[1]) : log[1];
    Become(argv.data(), cores.empty() ? nullptr : &set, report[1], log_end, parent);
  }
  ::close(report[1]);
  ::close(log[1]);
  if (pid < 0)
    return absl::ResourceExhaustedError(
        absl::StrCat("rank ", rank, ": no process: ", std::strerror(errno)));
  for (const int descriptor : {report[0], log[0]}) ::fcntl(descriptor, F_SETFL, O_NONBLOCK);
  Child child;
  child.rank = rank;
  child.pid = pid;
  child.report = report[0];
  child.log = log[0];
  return child;
}

std::vector<std::string> ReadLines(int* descriptor, std::string* rest) {
  std::array<char, 4096> buffer{};
  while (*descriptor >= 0) {
    const ssize_t got = ::read(*descriptor, buffer.data(), buffer.size());
    if (got > 0) {
      rest->append(buffer.data(), static_cast<size_t>(got));
    } else if (got < 0 && errno == EINTR) {
      continue;
    } else {
      if (got == 0 || errno != EAGAIN) {
        ::close(*descriptor);
        *descriptor = -1;
      }
      break;
    }
  }
  std::vector<std::string> lines;
  for (size_t end = rest->find('\n'); end != std::string::npos; end = rest->find('\n')) {
    lines.push_back(rest->substr(0, end));
    rest->erase(0, end + 1);
  }
  return lines;
}

std::string EndText(int wait_status) {
  if (WIFSIGNALED(wait_status))
    return absl::StrCat("was killed by signal ", WTERMSIG(wait_status), " (",
                        ::strsignal(WTERMSIG(wait_status)), ")");
  if (WEXITSTATUS(wait_status) == 127)
    return "could not be started: is echelon-stage beside echelon?";
  return absl::StrCat("exited with status ", WEXITSTATUS(wait_status));
}

}  // namespace echelon
