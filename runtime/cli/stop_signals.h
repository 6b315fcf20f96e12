// What tells a command to stop. Private to runtime/cli.
#ifndef ECHELON_RUNTIME_CLI_STOP_SIGNALS_H_
#define ECHELON_RUNTIME_CLI_STOP_SIGNALS_H_

#include <csignal>

namespace echelon {

// SIGINT, SIGTERM, and SIGHUP unless it is ignored, as nohup leaves it: who blocks a signal and
// waits for it gets it even then.
inline sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  struct sigaction hangup {};
  ::sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) sigaddset(&signals, SIGHUP);
  return signals;
}

}  // namespace echelon

#endif  // ECHELON_RUNTIME_CLI_STOP_SIGNALS_H_
