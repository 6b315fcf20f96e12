#include "operator/reconcile/scheduling.h"

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace echelon::op {
namespace {

constexpr int kFirstDelay = 15;  // seconds; doubles up to the longest
constexpr int kLongestDelay = 600;

// The same for the same words on every machine (FNV-1a): groups that gave up together do not come
// back together, and still a plan is a function of its arguments.
uint32_t Spread(std::string_view words) {
  uint32_t hash = 2166136261u;
  for (const char c : words) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

absl::Duration Delay(const Deployment& wanted, const Group& group, int attempts) {
  const int doubled = kFirstDelay << std::min(attempts - 1, 10);
  const int seconds = std::min(doubled, kLongestDelay);
  const uint32_t words = Spread(absl::StrCat(wanted.uid, group.name, attempts));
  return absl::Seconds(seconds + static_cast<int>(words % (seconds / 3)));
}

}  // namespace

void Schedule(const Deployment& wanted, bool is_next, Present* present, Group* group) {
  GroupState& next = group->next;
  next = group->before == nullptr ? GroupState{} : *group->before;
  group->released = next.retry_at && (!present->Passed(*next.retry_at) || !is_next);
  if (group->released) return;
  next.retry_at.reset();
  if (group->scheduled()) {
    next.waiting_since.reset();
    next.attempts = 0;
    return;
  }
  if (group->failed) {  // it has no pods on purpose
    next.waiting_since.reset();
    return;
  }
  if (!next.waiting_since) next.waiting_since = present->second();
  const int timeout = wanted.spec.scheduling.timeout_seconds;
  if (timeout <= 0 || group->ready()) return;
  if (!present->Passed(*next.waiting_since + absl::Seconds(timeout))) return;
  ++next.attempts;
  next.retry_at = present->second() + Delay(wanted, *group, next.attempts);
  next.waiting_since.reset();
  group->released = true;
  present->Passed(*next.retry_at);
}

}  // namespace echelon::op
