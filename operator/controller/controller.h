// The operator's loop: what watches tell goes into the cache, what may have changed into the queue,
// and from there through reconcile to requests, status and questions to heads. One thread, the
// loop's, owns all state; the caches of a replica that does not lead are kept warm.
#ifndef ECHELON_OPERATOR_CONTROLLER_CONTROLLER_H_
#define ECHELON_OPERATOR_CONTROLLER_CONTROLLER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "operator/controller/alarm.h"
#include "operator/controller/cache.h"
#include "operator/controller/executor.h"
#include "operator/controller/head_client.h"
#include "operator/controller/head_poller.h"
#include "operator/controller/metrics.h"
#include "operator/controller/queue.h"
#include "operator/controller/reporter.h"
#include "operator/controller/watches.h"
#include "operator/controller/writer.h"
#include "operator/kube/api.h"
#include "operator/kube/timer.h"
#include "operator/reconcile/reconcile.h"

namespace echelon::op {

class Controller {
 public:
  struct Options {
    Settings settings;
    std::string ns;           // "": all namespaces
    std::string instance;     // of events: the operator's pod
    std::string status_host;  // "": each head's own address
    int requests_in_flight = 16;
    int polls_in_flight = 32;
    int page = 100;
    uint64_t seed = 0;  // of all jitter
  };
  // The world. All outlive the controller.
  struct World {
    Api* api = nullptr;
    Timer* loop = nullptr;     // its thread is the loop
    Timer* watches = nullptr;  // another's: a long reconcile must not hold up watches
    HeadClient* heads = nullptr;
    Metrics* metrics = nullptr;
    // The lease's word, asked before every write: how long we still may. Any thread.
    std::function<absl::Duration()> write_time;
    std::function<absl::Time()> wall_clock;
  };

  Controller(World world, Options options);
  // On the loop, or when its thread is gone.
  ~Controller();

  // Any thread.
  void Start();
  void Lead(bool leads);
  // Nothing is asked of Api and HeadClient any more when `done` is called, on the loop.
  void Stop(std::function<void()> done);
  // Ok: all is listed and the CustomResourceDefinition is the right one. Else what is missing.
  absl::Status Ready() const;
  // How long ago the loop last came round.
  absl::Duration Silence() const;

  // On the loop, or while it stands still. Nothing is under way or due; what waits, waits for time.
  bool idle() const;
  const Cache& cache() const { return cache_; }

 private:
  struct Verdict {  // the server refuses a StatefulSet of this generation
    std::string uid;
    int64_t generation = 0;
    std::string message;
  };

  void Post(std::function<void()> task);
  Watches::Sink Sink();
  void Removed(std::string_view kind, const std::string& ns, const std::string& name);
  void Synced(std::string_view kind);
  void WatchFailed(std::string_view plural, const absl::Status& why);

  void AskForCrd();
  void SetReadiness(absl::Status crd);
  void Tick();

  void Touch(const std::optional<std::string>& key);  // its plan may have changed
  void Touch(const std::vector<std::string>& keys);
  void Pump();
  void Work(const std::string& key);
  Plan MakePlan(const std::string& key, Cache::Entry* entry);
  void HoldBack(const std::string& key, std::vector<Action>* actions) const;
  void Act(const std::string& key, const Deployment& deployment, std::vector<Action> actions);
  void Acted(const std::string& key, const std::string& uid, int64_t generation, Outcome outcome);
  void AskHeads(const std::string& key, Cache::Entry* entry, const Plan& plan);
  void Heard(const std::string& key, const std::string& pod, HeadView view);

  const World world_;
  const Options options_;
  Cache cache_;
  Queue queue_;
  Writer writer_;
  Executor executor_;
  Reporter reporter_;
  HeadPoller poller_;
  std::unique_ptr<Watches> watches_;
  Alarm alarm_;  // when the queue's next is due
  std::unordered_map<std::string, Verdict> verdicts_;
  std::unordered_map<std::string, int> rounds_;  // of actions, since something else has changed
  std::unordered_map<std::string, std::set<std::string>> failed_;  // actions, while held back
  std::set<std::string, std::less<>> unsynced_;
  int acting_ = 0;
  bool leads_ = false, crd_is_right_ = false, pumping_ = false;
  std::string last_crd_error_;
  std::atomic<int64_t> last_tick_ns_;

  mutable std::mutex readiness_mutex_;
  absl::Status readiness_;
  std::shared_ptr<int> alive_ = std::make_shared<int>();
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_CONTROLLER_H_
