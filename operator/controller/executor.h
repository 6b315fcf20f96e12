// From the actions of a plan to requests, wave by wave; within one they run side by side,
// but for what makes pods. Nothing
// foreign is ever changed: what is not there is made by POST, and what is there is changed or
// deleted by its UID.
#ifndef ECHELON_OPERATOR_CONTROLLER_EXECUTOR_H_
#define ECHELON_OPERATOR_CONTROLLER_EXECUTOR_H_

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "operator/api/deployment.h"
#include "operator/controller/cache.h"
#include "operator/controller/writer.h"
#include "operator/reconcile/reconcile.h"

namespace echelon::op {

struct Outcome {
  bool retry = false;            // something did not go through and may do so later
  std::set<std::string> failed;  // IdOf what did not, and of what was not begun because of it
  bool look_again = false;       // something was found that the plan did not know of
  std::string error;             // of the first that failed, one line
  std::string invalid_template;  // why the server takes no such StatefulSet
};

std::string IdOf(const Action& action);  // "KIND/NAME"

class Executor {
 public:
  // `result` is the HTTP code, or "unreachable", "not_leader".
  using OnRequest = std::function<void(std::string_view verb, std::string_view result)>;

  // All outlive it, and are used on the loop.
  Executor(Cache* cache, Writer* writer, std::function<absl::Time()> wall_clock,
           OnRequest on_request);

  // One call an object at a time. The cache has seen what was done before `done` is called.
  // `again`: the last one for it failed. A server's own error (5xx) is a cause to be told from then
  // on.
  void Run(const Deployment& deployment, std::vector<Action> actions, bool again,
           std::function<void(Outcome)> done);

  // Reads an object again of which no watch may tell; `done` gets whose plan may change by it.
  void Recheck(const Cache::Name& name, std::function<void(const std::string& key)> done);

 private:
  struct Job;
  using JobPtr = std::shared_ptr<Job>;

  void StartWave(const JobPtr& job);
  void Finish(const JobPtr& job);
  bool PauseIfAsked(const Response& response);
  void Retry(const JobPtr& job, const Action& action);
  void Failed(const JobPtr& job, const Action& action, const absl::StatusOr<Response>& response);

  void Refused(const JobPtr& job, const Action& action, const Response& response);

  bool NeedsFreshSpec(const Job& job) const;
  void ReadSpec(const JobPtr& job);
  // Which of the actions' StatefulSets must be tried before anything is done: what users write into
  // pods is checked by nobody else.
  static std::vector<size_t> Trials(const Deployment& deployment,
                                    const std::vector<Action>& actions);
  void Try(const JobPtr& job, const Action& action);
  void Start(const JobPtr& job, const Action& action);
  void Make(const JobPtr& job, const Action& action);
  void Look(const JobPtr& job, const Action& action);
  void ApplyAgain(const JobPtr& job, const Action& action);
  void Apply(const JobPtr& job, const Action& action);
  void Scale(const JobPtr& job, const Action& action);
  void Delete(const JobPtr& job, const Action& action);

  // Sends; `read` gets a good answer's object on the loop, projected.
  void Ask(const JobPtr& job, const Action& action, Request request, std::string_view verb,
           std::function<void(const absl::StatusOr<Response>&, std::optional<AnySeen>)> then);
  void Remember(const JobPtr& job, std::optional<AnySeen> view);

  Cache* const cache_;
  Writer* const writer_;
  const std::function<absl::Time()> wall_clock_;
  const OnRequest on_request_;
};

// The managedFields under which a later apply takes away what it no longer names: fields that a
// POST of ours holds become the apply's own. null: nothing is to be changed.
nlohmann::json AppliedFields(const nlohmann::json& object);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_EXECUTOR_H_
