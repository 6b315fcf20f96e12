// Reconcile: from what is wanted and what is so to what should be done now. A pure function: the
// same arguments give the same plan, and a second pass over the plan's outcome gives an empty one.
#ifndef ECHELON_OPERATOR_RECONCILE_RECONCILE_H_
#define ECHELON_OPERATOR_RECONCILE_RECONCILE_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "operator/api/deployment.h"
#include "operator/reconcile/observed.h"

namespace echelon::op {

struct Settings {
  std::string runtime_image, exporter_image;  // for new revisions
};

enum class Verb {
  kTry,             // whether `object` would be taken is asked for before anything else is done
  kApply,           // server-side apply of `object`, which names its kind, name and namespace
  kScale,           // a StatefulSet's spec.replicas, server-side apply of that field alone
  kDelete,          // with `uid` as precondition, propagation Background
  kForceDeletePod,  // grace period 0: only a pod that the taint manager has marked on a lost node
};

struct Action {
  Verb verb = Verb::kApply;
  int wave = 0;  // a wave begins when what the one before it applies is there; within one all may
                 // run at once
  std::string kind, name;
  std::string uid;        // kDelete, kForceDeletePod, kScale: precondition
  int replicas = 0;       // kScale
  nlohmann::json object;  // kApply, kTry
  std::string why;        // a few words for the log and `echelon-operator plan`
};

// An event of Kubernetes about a transition.
struct Note {
  bool warning = false;
  std::string reason, message;
};

struct Plan {
  std::vector<Action> actions;        // by wave
  Status status;                      // what status should say; unchanged fields as they were
  std::vector<Note> notes;            // for this change of status: to be written once it is written
  std::optional<absl::Time> requeue;  // earliest moment at which time alone changes the plan
  std::vector<std::string> ask;       // pods whose /status would help, by name
  absl::Duration ask_every = absl::InfiniteDuration();
};

// `wanted.status` and `observed` have to hold what earlier plans wrote, or their steps are
// repeated.
Plan Reconcile(const Deployment& wanted, const Observed& observed, const Settings& settings,
               absl::Time now);

// Both say the same but for bytes loaded: worth a write every 10 s, not more.
bool OnlyProgress(const Status& before, const Status& after);

// One line an action, then the conditions: what `echelon-operator plan` shows and tests compare.
std::string Print(const Plan& plan);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_RECONCILE_H_
