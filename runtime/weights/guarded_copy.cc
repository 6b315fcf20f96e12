#include "runtime/weights/guarded_copy.h"

#include <setjmp.h>
#include <signal.h>

#include <cstring>

#include "runtime/weights/crc32.h"

namespace echelon::weights {
namespace {

// What this thread copies just now.
struct Copy {
  const std::byte *begin, *end;
  sigjmp_buf escape;
};
thread_local Copy* volatile current = nullptr;

struct sigaction previous;

// A fault is synchronous: it comes to the thread that touched the page, amid its copy, which
// holds nothing that a jump out of it would leave behind.
void OnBusError(int signal, siginfo_t* info, void* context) {
  Copy* const copy = current;
  const auto* const at = static_cast<const std::byte*>(info->si_addr);
  if (copy != nullptr && at >= copy->begin && at < copy->end) siglongjmp(copy->escape, 1);
  if (previous.sa_flags & SA_SIGINFO) return previous.sa_sigaction(signal, info, context);
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
    return previous.sa_handler(signal);
  ::sigaction(SIGBUS, &previous, nullptr);  // touched again, the page now ends the process
  if (info->si_code <= 0) ::raise(signal);  // sent by someone: nothing touches it again
}

bool Install() {
  struct sigaction action {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  ::sigemptyset(&action.sa_mask);
  return ::sigaction(SIGBUS, &action, &previous) == 0;
}

}  // namespace

bool GuardedCopy(absl::Span<std::byte> to, const std::byte* from, uint32_t* crc32) {
  static const bool installed = Install();
  static_cast<void>(installed);
  Copy copy{from, from + to.size(), {}};
  // No signal mask to bring back: SA_NODEFER leaves it as it was.
  const bool faulted = sigsetjmp(copy.escape, 0) != 0;
  if (!faulted) {
    current = &copy;
    if (crc32 == nullptr)
      std::memcpy(to.data(), from, to.size());
    else
      *crc32 = CopyExtendCrc32(*crc32, to, from);
  }
  current = nullptr;
  return !faulted;
}

}  // namespace echelon::weights
