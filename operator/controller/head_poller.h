// Asks heads for their /status: often while something is under way, rarely when all is well, never
// two at once for one pod and only so many over all. Single owner: the loop.
#ifndef ECHELON_OPERATOR_CONTROLLER_HEAD_POLLER_H_
#define ECHELON_OPERATOR_CONTROLLER_HEAD_POLLER_H_

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "operator/controller/alarm.h"
#include "operator/controller/head_client.h"
#include "operator/kube/timer.h"
#include "operator/reconcile/observed.h"

namespace echelon::op {

class HeadPoller {
 public:
  struct Head {
    std::string pod, uid, ip;
  };
  // On the loop. The view's `error` is set where the head did not answer.
  using OnHead = std::function<void(const std::string& key, const std::string& pod, HeadView head)>;

  HeadPoller(HeadClient* client, Timer* loop, std::function<absl::Time()> wall_clock,
             int max_in_flight, OnHead on_head);

  // From now on these heads of the deployment `key` are asked, a new one at once; no longer the
  // others.
  void Ask(const std::string& key, const std::vector<Head>& heads, absl::Duration every);

  void Stop();  // asks no more

  size_t asked() const { return heads_.size(); }

 private:
  using Id = std::pair<std::string, std::string>;  // key, pod
  struct State {
    Head head;
    absl::Duration every;
    absl::Time last = absl::InfinitePast(), due;
    bool in_flight = false;
  };

  void SetDue(const Id& id, State& state, absl::Time due);
  void Pump();
  void Start(const Id& id, State& state);
  void Finish(const Id& id, const std::string& uid, HeadView view);

  HeadClient* const client_;
  Timer* const loop_;
  const std::function<absl::Time()> wall_clock_;
  const int max_in_flight_;
  const OnHead on_head_;
  std::map<Id, State> heads_;
  std::set<std::pair<absl::Time, Id>> due_;  // of those not in flight
  int in_flight_ = 0;
  Alarm alarm_;
  std::shared_ptr<int> alive_ = std::make_shared<int>();
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_HEAD_POLLER_H_
