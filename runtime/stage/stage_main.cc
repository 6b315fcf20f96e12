// echelon-stage: one rank. stage_process.h wires it together.
#include <malloc.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <csignal>
#include <optional>

#include "absl/strings/str_format.h"
#include "runtime/serve/grpc_server.h"
#include "runtime/stage/stage_flags.h"
#include "runtime/stage/stage_process.h"

namespace echelon::stage {
namespace {

// Keeps the allocator from giving activations' memory back and faulting it in again at every step.
void TuneAllocator() {
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 256 << 20);
}

int Main(int argc, char** argv) {
  StageFlags flags;
  if (const std::optional<int> status = ParseStageFlags(argc, argv, &flags)) return *status;
  TuneAllocator();
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t stop_signals;
  sigemptyset(&stop_signals);
  sigaddset(&stop_signals, SIGINT);
  sigaddset(&stop_signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop_signals,
                  nullptr);  // before any thread: all inherit it, one takes the signal
  auto logger = spdlog::stderr_logger_mt("echelon");
  logger->set_pattern(absl::StrFormat("%%H:%%M:%%S.%%e rank %d %%l: %%v", flags.rank));
  spdlog::set_default_logger(logger);
  serve::RouteGrpcLog();
  serve::KeepGrpc();
  StageProcess process(flags, stop_signals);
  const absl::Status status = process.Run();
  if (!status.ok()) process.Say(status);
  // What has been served is answered by now. A step that still computes is not waited for: it may
  // take minutes, and nobody would hear a second signal.
  StageProcess::Quit(status.ok() ? 0 : 1);
}

}  // namespace
}  // namespace echelon::stage

int main(int argc, char** argv) { return echelon::stage::Main(argc, argv); }
