#include "operator/kube/reflector_state.h"

#include "absl/strings/str_cat.h"
#include "operator/kube/api.h"
#include "operator/kube/backoff.h"

namespace echelon::op {
namespace {

using Phase = ReflectorState::Phase;

// A watch that the server ends sooner, with nothing in it, is a failure: or one would reopen it in
// a circle.
constexpr absl::Duration kShortWatch = absl::Seconds(1);

class Step {
 public:
  Step(ReflectorState& state, double random) : state_(state), random_(random) {}

  ReflectorAction operator()(const Started&) { return Go(); }
  ReflectorAction operator()(const Waited&) { return Go(); }

  ReflectorAction operator()(const PageCame& page) {
    state_.token = page.token;
    if (page.token.empty()) state_.version = page.version;
    return Go();
  }

  ReflectorAction operator()(const ListFailed& failed) {
    if (absl::IsOutOfRange(failed.why)) state_.token.clear();
    return TryAgain(failed.why);
  }

  ReflectorAction operator()(const Advanced& event) {
    if (!event.version.empty()) state_.version = event.version;
    state_.failures = 0;
    return Nothing();
  }

  ReflectorAction operator()(const WatchFailed& failed) {
    if (absl::IsOutOfRange(failed.why)) state_.version.clear();
    return TryAgain(failed.why);
  }

  ReflectorAction operator()(const WatchEnded& end) {
    if (end.why.ok() && end.lasted >= kShortWatch) {
      state_.failures = 0;
      return Go();
    }
    if (absl::IsOutOfRange(end.why)) state_.version.clear();
    return TryAgain(end.why);
  }

 private:
  ReflectorAction Go() {
    if (!state_.version.empty()) {
      state_.phase = Phase::kWatching;
      ++state_.watches;
      return OpenWatch{state_.version};
    }
    state_.phase = Phase::kListing;
    if (state_.token.empty()) ++state_.lists;
    return ListPage{state_.token};
  }

  ReflectorAction TryAgain(const absl::Status& why) {
    ++state_.failures;
    // What has expired is listed anew at once, unless that is what fails again and again.
    if (absl::IsOutOfRange(why) && state_.failures == 1) return Go();
    state_.phase = Phase::kWaiting;
    return Wait{RetryAfter(why) + Backoff(state_.failures, random_)};
  }

  ReflectorState& state_;
  const double random_;
};

}  // namespace

ReflectorAction Next(ReflectorState& state, const ReflectorEvent& event, double random) {
  return std::visit(Step(state, random), event);
}

std::string ToString(const ReflectorAction& action) {
  if (const auto* list = std::get_if<ListPage>(&action)) {
    return list->token.empty() ? "list" : absl::StrCat("list page ", list->token);
  }
  if (const auto* watch = std::get_if<OpenWatch>(&action)) {
    return absl::StrCat("watch ", watch->version);
  }
  if (const auto* wait = std::get_if<Wait>(&action)) {
    return absl::StrCat("wait ", absl::FormatDuration(wait->delay));
  }
  return "nothing";
}

}  // namespace echelon::op
