// What the head knows of its ranks and what it does about it. Pure: (state, event, now) -> actions;
// no I/O, lock or clock. head.cc is the shell around it.
#ifndef ECHELON_RUNTIME_GROUP_FORMATION_H_
#define ECHELON_RUNTIME_GROUP_FORMATION_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/group/group.h"

namespace echelon::group {

using StreamId = uint64_t;            // one a connection, never used again
inline constexpr StreamId kSelf = 0;  // the head's own rank

// Events.
struct Joined {
  StreamId stream = kSelf;
  Identity identity;
  std::string address;       // of the process, for people
  std::string link_address;  // of its link listener
};
struct Heard {  // any sign of life
  StreamId stream = kSelf;
};
struct Progressed {
  StreamId stream = kSelf;
  int64_t loaded_bytes = 0, total_bytes = 0;
};
struct Loaded {
  StreamId stream = kSelf;
};
struct LoadFailed {
  StreamId stream = kSelf;
  absl::Status why;
};
struct Opened {
  StreamId stream = kSelf;
  uint64_t epoch = 0;
};
struct Failed {  // could not open, or its data plane broke
  StreamId stream = kSelf;
  uint64_t epoch = 0;
  absl::Status why;
};
struct Lost {
  StreamId stream = kSelf;
  std::string why;
};
struct Leaving {  // told to stop; kSelf: the head itself
  StreamId stream = kSelf;
};
struct Idle {  // what Hold asked for
  uint64_t epoch = 0;
};
// How long this process did not run when it ticks so much later than it could have. It heard nobody
// then, which says nothing of the others. Zero within a heartbeat: threads are never quite in time.
inline absl::Duration Stall(absl::Time due, absl::Time now, const Timing& timing) {
  return now - due > timing.heartbeat ? now - due : absl::ZeroDuration();
}

struct Tick {
  absl::Time due = absl::InfiniteFuture();
};
using Event = std::variant<Joined, Heard, Progressed, Loaded, LoadFailed, Opened, Failed, Lost,
                           Leaving, Idle, Tick>;

// Actions, to be done in order.
struct SendPlan {
  StreamId stream = kSelf;
};
struct Refuse {  // for good when kFailedPrecondition
  StreamId stream = kSelf;
  absl::Status why;
};
struct Drop {  // it may come back
  StreamId stream = kSelf;
  std::string why;
};
struct OpenLinks {
  StreamId stream = kSelf;
  uint64_t epoch = 0;
  std::string next_address;
};
struct Formed {
  StreamId stream = kSelf;
  uint64_t epoch = 0;
};
struct Close {
  StreamId stream = kSelf;
  uint64_t epoch = 0;
  absl::Status why;
};
struct Hold {  // the head's own rank: an Idle is wanted
  uint64_t epoch = 0;
};
struct Release {
  StreamId stream = kSelf;
};
struct End {  // of the group: every stream and the head itself
  absl::Status why;
};
struct Log {
  std::string text;
};
using Action =
    std::variant<SendPlan, Refuse, Drop, OpenLinks, Formed, Close, Hold, Release, End, Log>;

std::string ToString(const Action& action);  // "stream 1: open epoch 7, next is 10.0.0.3:9000"
std::string ToString(const std::vector<Action>& actions);  // one a line

class Formation {
 public:
  // Epochs are numbered from first_epoch on.
  Formation(const Identity& self, const Timing& timing, uint64_t first_epoch, absl::Time now);

  std::vector<Action> On(const Event& event, absl::Time now);

  // When a Tick is wanted at the latest: in an epoch that is formed the end of the longest silence,
  // else always (InfinitePast).
  absl::Time NextDeadline() const;

  GroupStatus status() const;
  std::string ToString() const;  // "epoch 7 formed: 0 ready, 1 ready"

 private:
  struct Rank {
    Phase phase = Phase::kMissing;
    Joined hello;  // of the process that is in, when one is
    absl::Time heard;
    int64_t loaded_bytes = 0, total_bytes = 0;
    int joins = 0;
    std::string last_error;
    // A process that claims a rank which is in waits here until it is known whether the one that is
    // in lives.
    std::optional<Joined> claimant;
    absl::Time claimant_heard;
    int signs_of_life = 0;  // of the one that is in, since the claim
    bool leaving = false;
    std::deque<std::string> fenced;  // incarnations that another one has followed
  };
  enum class State { kGathering, kOpening, kFormed, kEnded };

  void Handle(const Joined& event);
  void Handle(const Heard& event);
  void Handle(const Progressed& event);
  void Handle(const Loaded& event);
  void Handle(const LoadFailed& event);
  void Handle(const Opened& event);
  void Handle(const Failed& event);
  void Handle(const Lost& event);
  void Handle(const Leaving& event);
  void Handle(const Idle& event);
  void Handle(const Tick& event);

  absl::Status Check(const Identity& identity) const;
  absl::Status CheckSuccession(const Identity& in, const Identity& newcomer) const;
  void Admit(const Joined& hello);
  void Fence(int rank);
  void RefuseClaimant(int rank);
  void Lose(int rank, const std::string& why);
  void TryToOpen();
  void CloseEpoch(const absl::Status& why, bool retry_later);
  void ReleaseLeaving();
  void HoldForLeaving();
  void Excuse(absl::Duration stall);
  void CheckSilence();
  void CheckDeadlines();
  std::string Who(bool (*is_behind)(Phase)) const;  // "rank 2 of 4", "ranks 2, 3 of 4"; "" for none
  Rank* Find(StreamId stream, int* number);         // null when it holds no rank
  template <typename A>
  void Do(A action) {
    actions_.emplace_back(std::move(action));
  }

  const Identity self_;
  const Timing timing_;
  State state_ = State::kGathering;
  uint64_t epoch_;  // the last one begun
  uint64_t last_formed_ = 0;
  std::vector<Rank> ranks_;
  absl::Time now_;
  absl::Time progress_at_;  // start, or when loading last advanced
  absl::Time log_at_;
  absl::Time open_at_;  // not before; failures back off
  absl::Time open_deadline_;
  absl::Time hold_at_ = absl::InfiniteFuture();  // of an epoch that a rank leaves
  bool stopping_ = false;                        // the head itself is
  absl::Duration open_pause_;
  std::vector<Action> actions_;
};

}  // namespace echelon::group

#endif  // ECHELON_RUNTIME_GROUP_FORMATION_H_
