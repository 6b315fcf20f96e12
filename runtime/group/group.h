// The group: rank 0 is head, the others dial it, all agree on one plan, and an epoch forms when
// every rank is in. A broken stream or missed heartbeats end the epoch; survivors keep their
// weights and wait for the next one.
//
//   worker -> head   Hello (rank, world, digest, revision, incarnation)
//   head -> worker   Plan                       refused joiners get a status that says why
//   worker -> head   Progress..., Loaded (link port)
//   head -> worker   Open (epoch, token, next address)        once all ranks are loaded
//   worker -> head   Opened (epoch)                           its two links are up
//   head -> worker   Close (epoch, why)                       a rank is lost: back to "all loaded"
//
// A rank that is told to stop leaves without breaking what runs:
//
//   worker -> head   Leaving                    it stays, and computes
//   head -> worker   Release                    no request that has begun needs the epoch any more:
//                                               it is closed; others wait for the next one
//
// A head that is told to stop answers what it has accepted, opens no epoch any more and releases
// everyone when it ends. Since Kubernetes tells all pods of a set at once, the head gives itself
// half a second to hear of its own end before it closes an epoch for a worker's.
//
// Who holds a rank when two processes claim it:
//   - of another revision, model file or WORLD: never.
//   - the same incarnation again: the newer stream; a process has only one.
//   - an incarnation that another one has followed on this rank: never again (fenced).
//   - another incarnation of the same pod name: a StatefulSet's pod that was replaced while the
//     head still hears of its predecessor, on a node that the cluster has given up. The one that
//     began later takes over at once and the other is fenced. One that seems older (clocks of two
//     nodes, or a head that has restarted and remembers nobody) is told to dial again: it gets the
//     rank when the other has gone.
//   - otherwise, as when someone starts a rank twice: the one that is in, while it lives.
#ifndef ECHELON_RUNTIME_GROUP_GROUP_H_
#define ECHELON_RUNTIME_GROUP_GROUP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace echelon::group {

struct Identity {
  int rank = 0;
  int world = 1;
  std::string graph_digest;   // of the model file this rank sees
  std::string revision;       // of the deployment; "" outside Kubernetes
  std::string incarnation;    // this process: pod UID, or random
  std::string pod_name = {};  // "" outside Kubernetes
  int64_t started_ms = 0;     // since 1970: when the incarnation began; 0: not known
};

struct Epoch {
  uint64_t number = 0;
  std::string token;
  std::string
      next_address;  // HOST:PORT of the next rank's link listener; for the last rank the head's
};

// What a rank does when its group asks. Called from the group's own thread, one call at a time,
// never after Stop.
class Member {
 public:
  virtual ~Member() = default;
  // Loads the stage that the plan gives this rank; at once when it is loaded already. progress may
  // be called from any thread with (loaded, total) bytes. An error is permanent: the process ends
  // with it.
  virtual absl::Status Load(const std::string& plan_json,
                            std::function<void(int64_t, int64_t)> progress) = 0;
  // Dials the next rank and accepts the one before, both within the timeout.
  virtual absl::Status OpenEpoch(const Epoch& epoch, absl::Duration timeout) = 0;
  // OpenEpoch of this epoch or an earlier one should return soon: the epoch is over. Called from
  // another thread than the others, perhaps before that OpenEpoch has begun or after it has ended
  // (TcpListener::CancelThrough fits).
  virtual void CancelOpen(uint64_t epoch) { static_cast<void>(epoch); }
  // All ranks are open: steps may flow. Only then may the head take requests.
  virtual void EpochFormed(uint64_t epoch) = 0;
  // Links go down, steps in flight are forgotten (on the head: their requests fail with `why`).
  // Weights stay. May be called for an epoch that is closed already; must return within
  // milliseconds.
  virtual void CloseEpoch(uint64_t epoch, const absl::Status& why) = 0;
  // The head's: a rank leaves. Requests that have not begun wait for the next epoch; idle is called
  // once, from any thread, when none that has begun is left.
  virtual void Hold(uint64_t epoch, std::function<void()> idle) {
    static_cast<void>(epoch);
    idle();
  }
};

struct Timing {
  absl::Duration heartbeat = absl::Milliseconds(100);
  // Silence that ends an epoch, not counting when one did not run oneself.
  absl::Duration liveness = absl::Milliseconds(700);
  // For the first epoch to form, longer while loading makes progress; later ones wait as long as it
  // takes. InfiniteDuration: so does the first.
  absl::Duration join = absl::Seconds(600);
  absl::Duration open = absl::Seconds(10);  // for an epoch's links
  // Between a worker's leave and its effect: the head may be told to stop as well.
  absl::Duration settle = absl::Milliseconds(500);
};

enum class Phase { kMissing, kJoined, kLoading, kLoaded, kReady };
std::string_view Name(Phase phase);

struct RankStatus {
  int rank = 0;
  Phase phase = Phase::kMissing;
  std::string address;  // the rank's, as the head sees it
  std::string incarnation;
  int64_t loaded_bytes = 0, total_bytes = 0;
  int joins = 0;  // times it has joined
  std::string last_error;
};

struct GroupStatus {
  uint64_t epoch = 0;  // the last one formed; 0: none yet
  bool formed = false;
  std::vector<RankStatus> ranks;  // on a worker: only itself
};

// Called on every change of the group's status, from the group's thread.
using StatusCallback = std::function<void(const GroupStatus&)>;

class Node {  // a rank's end of the group
 public:
  virtual ~Node() = default;
  // The head: the port it listens on for joins (HOST:PORT of the article).
  virtual int port() const = 0;
  virtual GroupStatus status() const = 0;
  // Waits until the group has ended for this rank: kOk after Stop; otherwise why (refused: the
  // reason; deadline: who is missing; load failed...). Each text is one line fit for a person.
  virtual absl::Status Wait() = 0;
  // Ends the epoch and leaves; the others see this rank as gone at once. Returns when no call to
  // the Member runs or will run: a Load that is slow to give up delays it. Idempotent, any thread
  // but the group's own.
  virtual void Stop() = 0;
  // This rank is told to stop; Stop follows. A worker says so and waits until the head releases it
  // or is gone, at most for `patience`. The head opens no epoch any more and keeps leaving workers
  // until Stop; it does not wait. Not from the group's own thread.
  virtual void Leave(absl::Duration patience) = 0;
  // The data plane saw its link break or a peer misbehave in this epoch: ends the epoch everywhere.
  // Any thread.
  virtual void ReportFailure(uint64_t epoch, const absl::Status& why) = 0;
};

// Listens on host:port (0: any). plan_json goes to every joiner. The head counts as rank 0 and
// loads alongside. advertise: as StartWorker's; "" means as each rank dials it.
absl::StatusOr<std::unique_ptr<Node>> StartHead(const Identity& self, const std::string& host,
                                                int port, const std::string& plan_json,
                                                int link_port, const std::string& advertise,
                                                Member* member, const Timing& timing,
                                                StatusCallback on_status);

// Dials address ("HOST:PORT") until timing.join is over; after it has been in an epoch it redials
// for as long as it takes. advertise: host under which other ranks reach this one; "" means as the
// head sees it.
std::unique_ptr<Node> StartWorker(const Identity& self, const std::string& address, int link_port,
                                  const std::string& advertise, Member* member,
                                  const Timing& timing, StatusCallback on_status);

}  // namespace echelon::group

#endif  // ECHELON_RUNTIME_GROUP_GROUP_H_
