// Who leads: the rules of one candidate for a Lease. Pure: no I/O, lock or clock; lease.cc is the
// shell around it.
//
// Clocks of different machines are never compared. Another's lease counts as expired once this
// candidate itself has seen it unchanged for its whole duration; the holder gives up writing before
// that, a margin earlier, counted from the moment it asked for its last renewal. Between candidates
// the resourceVersion of the PUT decides.
#ifndef ECHELON_OPERATOR_KUBE_LEASE_STATE_H_
#define ECHELON_OPERATOR_KUBE_LEASE_STATE_H_

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "absl/time/time.h"

namespace echelon::op {

struct LeaseSpec {
  std::string holder;  // empty: free
  absl::Duration duration = absl::Seconds(10);
  absl::Time acquired, renewed;  // the holder's wall clock: for people, and to tell a renewal
  int transitions = 0;
  bool operator==(const LeaseSpec&) const = default;
};

struct LeaseTimes {
  absl::Duration duration = absl::Seconds(10);
  absl::Duration renew() const { return duration / 3; }
  absl::Duration retry() const { return duration / 20; }
  // How often who does not hold it looks at it.
  absl::Duration poll() const { return std::min(absl::Milliseconds(500), duration / 4); }
  // Covers clocks that run up to a fifth too fast, and a write that was on its way.
  absl::Duration margin() const { return duration / 5; }
};

class LeaseState {
 public:
  LeaseState(std::string identity, LeaseTimes times)
      : identity_(std::move(identity)), times_(times) {}

  // What to ask the server; one request at a time.
  struct Read {};
  struct Write {
    LeaseSpec spec;
    bool create = false;  // there is no Lease yet; otherwise over the version last read or written
  };
  using Action = std::variant<std::monostate, Read, Write>;

  // What is due at `now`. wall: the time to write into the Lease.
  Action Tick(absl::Time now, absl::Time wall);
  // When Tick has something to do next, without an answer before.
  absl::Time wake_at() const;

  // Answers. `now` is when they came.
  void OnRead(const std::optional<LeaseSpec>& spec, absl::Time now);
  void OnWritten(absl::Time now);
  void OnConflict(absl::Time now);  // another wrote in between, or created it
  void OnFailed(absl::Time now, absl::Duration retry_after);

  // Stops leading at once; the next Write empties the Lease, if this candidate may hold it. After
  // that: nothing.
  void Release(absl::Time now);
  bool released() const { return stopping_ && !in_flight_ && !to_release_; }

  // Before this moment nobody else can lead; InfinitePast: not leading.
  absl::Time deadline() const { return deadline_; }
  bool Leads(absl::Time now) const { return now < deadline_; }
  const std::string& holder() const { return seen_.holder; }  // as last seen

 private:
  bool MayTake(absl::Time now) const;
  Write Claim(absl::Time now, absl::Time wall);

  const std::string identity_;
  const LeaseTimes times_;
  std::optional<LeaseSpec> read_;  // what is known of the server's; nullopt: there is none
  bool known_ = false;             // read_ is worth a try: nothing says that it has changed since
  LeaseSpec seen_;                 // as last seen of others
  absl::Time seen_at_ = absl::InfinitePast();  // since when it is unchanged
  LeaseSpec wanted_;                           // by the Write under way
  absl::Time asked_at_;                        // the request under way
  absl::Time next_at_ = absl::InfinitePast();
  absl::Time deadline_ = absl::InfinitePast();
  bool in_flight_ = false, stopping_ = false, to_release_ = false;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_LEASE_STATE_H_
