// Leader election by a Lease (coordination.k8s.io/v1): of all replicas, one writes.
#ifndef ECHELON_OPERATOR_KUBE_LEASE_H_
#define ECHELON_OPERATOR_KUBE_LEASE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "operator/kube/api.h"
#include "operator/kube/timer.h"

namespace echelon::op {

class Lease {
 public:
  struct Options {
    std::string ns, name;
    std::string identity;  // NewIdentity()
    absl::Duration duration = absl::Seconds(10);
    std::function<absl::Time()>
        wall;  // the time of day, to be written down; default: the machine's
  };
  // Called one at a time, on threads of the Api and the Timer, with the lease locked: they may call
  // MayWrite and WriteTimeLeft, nothing else of it.
  struct Callbacks {
    std::function<void()> acquired;
    // It may no longer write. The lease goes on trying: acquired may come again.
    std::function<void()> lost;
    std::function<void(const absl::Status& why)> error;  // for the log
  };

  Lease(Api* api, Timer* timer, Options options, Callbacks callbacks);
  ~Lease();  // stops without a release: others wait until it expires
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  void Start();

  // Ask before every write. Lock-free, from any thread. False also where `lost` has not been called
  // yet: this process may have been stopped for a while and only wakes up.
  bool MayWrite() const { return WriteTimeLeft() > absl::ZeroDuration(); }
  // How long it still may; a write should not be under way for longer.
  absl::Duration WriteTimeLeft() const;

  // Stops leading at once and empties the Lease, so that another takes over without waiting. `done`
  // comes once, at the latest after `limit`.
  void Release(absl::Duration limit, std::function<void()> done);

  std::string holder() const;  // as last seen; empty: nobody

 private:
  class Loop;
  std::shared_ptr<Loop> loop_;
};

// "POD_UID_1a2b3c4d": a container that starts again in the same pod is another candidate.
std::string NewIdentity(const std::string& pod_uid);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_LEASE_H_
