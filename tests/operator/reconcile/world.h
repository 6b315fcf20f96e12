// A small cluster to try plans on: it executes their actions, makes pods of StatefulSets, places
// and starts them, forms groups, and breaks what it is told to. Time passes when it is told to.
#ifndef ECHELON_TESTS_OPERATOR_RECONCILE_WORLD_H_
#define ECHELON_TESTS_OPERATOR_RECONCILE_WORLD_H_

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "operator/api/deployment.h"
#include "operator/reconcile/observed.h"
#include "operator/reconcile/reconcile.h"

namespace echelon::op::testing {

class World {
 public:
  // The object "net" in namespace "ns": 1 replica of 2 stages, overlaid with a spec in YAML.
  explicit World(const std::string& spec = "{}");

  // What a user does.
  void Change(const std::string& spec);   // merges into the spec
  void DeleteSet(std::string_view name);  // its pods begin to terminate
  void DeletePod(std::string_view name);

  // One pass of the operator: its plan is executed, its status written. Checks that nothing is made
  // twice, and that nobody who serves is removed beyond what the rollout allows.
  Plan Pass();
  // Passes until there is nothing to do, at this moment; the number of passes that did something.
  int Settle();
  // Passes and all that Kubernetes does by itself, until neither has anything to do.
  void Rest();
  // The same, told: the groups whenever they differ, a line each.
  std::string Story();
  Plan Look() const;  // a plan, not executed

  // What Kubernetes does by itself. Each says whether there was something to do.
  bool MakePod();       // one that a StatefulSet lacks; removes one that is too much
  bool PlacePod();      // one that has no node, while there is room
  bool StartPod();      // one that is placed
  bool FormGroup();     // one whose ranks all run
  bool FinishPod();     // one that terminates on a node that is there
  bool FinishExport();  // a Job

  // What breaks.
  void Crash(std::string_view pod, int exit_code = 1);  // its container restarts
  void LoseNode(std::string_view node);                 // its pods are marked by the taint manager
  void FindNode(std::string_view node);

  void Wait(absl::Duration time) { now += time; }

  // For text tables: revisions are called A, B, ... in order of their first pass.
  std::string Actions(const Plan& plan) const;                           // a line each
  std::string Says(const Plan& plan, std::string_view condition) const;  // its line
  std::string Column() const;  // "READY REASON" as `kubectl get` shows it
  std::string Groups() const;  // "A-0 2/2, B-0 0/2"
  std::string Named(std::string text) const;
  std::string Pod(std::string_view name) const;  // "A-0/1" -> the pod's name

  SetView* FindSet(std::string_view name);
  PodView* FindPod(std::string_view name);
  int ReadyGroups() const;

  Deployment object;
  Observed observed;
  Settings settings{.runtime_image = "runtime:1", .exporter_image = "exporter:1"};
  absl::Time now = absl::FromCivil(absl::CivilSecond(2026, 1, 1, 12, 0, 0), absl::UTCTimeZone());
  int room = 1000;  // pods that find a node
  std::vector<std::string> nodes{"n1", "n2", "n3"};

 private:
  bool Step();  // the operator's passes, and then one thing that Kubernetes does
  void Execute(const Action& action);
  void Apply(const nlohmann::json& made);
  void CheckRemovals(const Plan& plan) const;
  void CheckSetIsNew(const SetView& set) const;
  void Terminate(PodView* pod);
  void UnformIfBroken();
  int Placed() const;
  std::string NewUid() { return "uid-" + std::to_string(++uids_); }

  int uids_ = 0;
  std::map<std::string, char> letters_;  // of revisions, by hash
  std::map<std::string, bool> lost_;     // nodes
};

}  // namespace echelon::op::testing

#endif  // ECHELON_TESTS_OPERATOR_RECONCILE_WORLD_H_
