// One stage process that `echelon run` started: its pid, what it reports, what it says on stderr.
#ifndef ECHELON_RUNTIME_CLI_CHILD_H_
#define ECHELON_RUNTIME_CLI_CHILD_H_

#include <sys/types.h>

#include <deque>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace echelon {

struct Child {
  int rank = 0;
  pid_t pid = -1;                      // -1: has ended
  int report = -1, log = -1;           // non-blocking; -1 once they are closed
  std::string report_rest, log_rest;   // of a line that is not whole yet
  std::deque<std::string> last_lines;  // of stderr

  int http = 0, grpc = 0, metrics = 0, group = 0;
  int64_t loaded_bytes = 0, total_bytes = 0;
  bool ready = false;
  std::string error;  // what it said it fails with
};

// Starts a program in a process group of its own (Ctrl-C is this program's to pass on), to be
// killed when this process dies. Its report descriptor is 3. cores: the CPUs it may use; empty:
// all.
absl::StatusOr<Child> Spawn(int rank, const std::vector<std::string>& command,
                            const std::vector<int>& cores);

// Reads what is there and returns the whole lines; closes the descriptor and sets it to -1 at its
// end.
std::vector<std::string> ReadLines(int* descriptor, std::string* rest);

// "exited with status 1", "was killed by signal 9 (Killed)".
std::string EndText(int wait_status);

}  // namespace echelon

#endif  // ECHELON_RUNTIME_CLI_CHILD_H_
