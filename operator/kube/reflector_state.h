// What a reflector does next. Pure: (state, event) -> action, no I/O, lock or clock; reflector.cc
// is the shell around it.
#ifndef ECHELON_OPERATOR_KUBE_REFLECTOR_STATE_H_
#define ECHELON_OPERATOR_KUBE_REFLECTOR_STATE_H_

#include <cstdint>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace echelon::op {

struct ReflectorState {
  enum class Phase { kListing, kWatching, kWaiting };
  Phase phase = Phase::kWaiting;
  std::string version;             // to watch from; empty: a list is needed
  std::string token;               // of the list's next page; empty: the first
  int failures = 0;                // in a row
  int64_t lists = 0, watches = 0;  // begun so far
};

// Events.
struct Started {};
struct PageCame {
  std::string version, token;  // an empty token: the last page
};
struct ListFailed {
  absl::Status why;  // OutOfRange: the continue token has expired
};
struct Advanced {  // an event or a bookmark
  std::string version;
};
struct WatchFailed {  // an ERROR event; OutOfRange: the version is too old
  absl::Status why;
};
struct WatchEnded {
  absl::Status why;
  absl::Duration lasted;
};
struct Waited {};
using ReflectorEvent =
    std::variant<Started, PageCame, ListFailed, Advanced, WatchFailed, WatchEnded, Waited>;

// Actions.
struct Nothing {};
struct ListPage {
  std::string token;  // empty: a new list begins
};
struct OpenWatch {
  std::string version;
};
struct Wait {
  absl::Duration delay;
};
using ReflectorAction = std::variant<Nothing, ListPage, OpenWatch, Wait>;

// random: in [0, 1), for the jitter.
ReflectorAction Next(ReflectorState& state, const ReflectorEvent& event, double random);

std::string ToString(
    const ReflectorAction& action);  // "list", "list page TOKEN", "watch 12", "wait 200ms"

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_REFLECTOR_STATE_H_
