// A cluster to run operators in, on turned time: the fake API server, StatefulSets that make pods,
// heads that answer, and operator processes that can be paused and killed.
#ifndef ECHELON_TESTS_OPERATOR_CONTROLLER_CLUSTER_H_
#define ECHELON_TESTS_OPERATOR_CONTROLLER_CLUSTER_H_

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "operator/controller/controller.h"
#include "operator/controller/head_client.h"
#include "operator/controller/metrics.h"
#include "operator/kube/lease.h"
#include "tests/operator/kube/fake_api.h"
#include "tests/operator/kube/sim.h"

namespace echelon::op {

// A timer and an Api that stand still while the process is stopped, as after SIGSTOP: what comes
// meanwhile waits.
class Process final : public Timer, public Api {
 public:
  Process(Timer* timer, Api* api) : timer_(timer), api_(api) {}

  absl::Time Now() override { return timer_->Now(); }
  void After(absl::Duration delay, std::function<void()> task) override;
  void Call(Request request, Done done) override;
  std::unique_ptr<WatchStream> Watch(std::string path, OnLine on_line, OnEnd on_end) override;

  void Pause() { state_->paused = true; }
  void Resume();
  void Kill();  // nothing of it runs ever again

 private:
  struct State {
    bool paused = false, dead = false;
    std::deque<std::function<void()>> held;
    void Run(std::function<void()> task);
  };

  Timer* const timer_;
  Api* const api_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

class Cluster {
 public:
  explicit Cluster(uint64_t seed = 1);
  ~Cluster();

  struct Replica {
    std::unique_ptr<Process> process;
    std::unique_ptr<HeadClient> heads;
    std::unique_ptr<Metrics> metrics;
    std::unique_ptr<Lease> lease;
    std::unique_ptr<Controller> controller;
  };
  Replica& AddReplica();
  void Kill(Replica& replica);

  // A PipelineDeployment of this cluster's default namespace; `spec` is merged over one replica of
  // two stages from a volume claim.
  void Put(const std::string& name, const Json& spec = Json::object());
  void Delete(const std::string& name);
  Json Status(const std::string& name);
  // "True Available", or "" where there is no such condition.
  std::string Condition(const std::string& name, const std::string& type);
  // All that is wanted of it is there, and its status says so.
  bool IsDone(const std::string& name);
  std::vector<std::string> Names(const Resource& resource);
  size_t Writes();  // requests of the log but reads and the lease's

  // Versions of all objects but leases and events, by "COLLECTION/NAME".
  std::map<std::string, std::string> Versions();

  Sim sim;
  FakeApi api;
  bool heads_answer = true;
  bool pods_start = true;
  std::vector<std::unique_ptr<Replica>> replicas;
  std::vector<Change> changes;  // all there were
  uint64_t seed;

 private:
  void Play();  // what StatefulSet controller and kubelets do
  void MakePods(const Json& set);
  void StartPods();
  std::string Answer(const std::string& address);

  bool playing_ = false;
  int addresses_ = 0;
};

}  // namespace echelon::op

#endif  // ECHELON_TESTS_OPERATOR_CONTROLLER_CLUSTER_H_
