// Says what is so: the status of each object and events about its transitions. A change of bytes
// loaded alone is written at most every 10 s. Single owner: the loop.
#ifndef ECHELON_OPERATOR_CONTROLLER_REPORTER_H_
#define ECHELON_OPERATOR_CONTROLLER_REPORTER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "operator/api/deployment.h"
#include "operator/controller/alarm.h"
#include "operator/controller/writer.h"
#include "operator/reconcile/reconcile.h"

namespace echelon::op {

class Reporter {
 public:
  struct Options {
    absl::Duration progress_every = absl::Seconds(10);
    std::string instance;  // who speaks, for events: the operator's pod
  };
  // `result` is the HTTP code, or "unreachable", "not_leader"; verb: "status", "event".
  using OnRequest = std::function<void(std::string_view verb, std::string_view result)>;
  using OnError = std::function<void(const std::string& key, const std::string& error)>;

  // All outlive it.
  Reporter(Writer* writer, Timer* loop, std::function<absl::Time()> wall_clock, Options options,
           OnRequest on_request, OnError on_error);

  // What the last plan said, written or not: the next plan goes on from it.
  const Status& Current(const Deployment& deployment);

  // Writes as soon as it may; the notes follow when the status has been written.
  void Say(const Deployment& deployment, Status status, std::vector<Note> notes);

  // What the API server has. Another's word, or an own one that came late, is corrected soon.
  void Saw(const Deployment& deployment);

  void Forget(std::string_view key);
  void Clear();  // somebody else writes now: all is read anew

 private:
  struct State {
    std::string ns, name, uid;
    Status planned;
    std::optional<Status> written;  // as the API server has it; nullopt: as planned
    std::vector<Note> notes;
    absl::Time last_write = absl::InfinitePast(), due = absl::InfiniteFuture();
    int errors = 0;
    bool in_flight = false, differed = false;  // differed: what was seen last, from what is planned
  };
  using StatePtr = std::shared_ptr<State>;

  StatePtr StateOf(const Deployment& deployment);
  void Correct(const std::string& key, State& state);
  void SetDue(const std::string& key, State& state, absl::Time due);
  void Flush(const std::string& key, const StatePtr& state);
  void Write(const std::string& key, const StatePtr& state);
  void Written(const std::string& key, const StatePtr& state, std::vector<Note> notes,
               const absl::StatusOr<Response>& response);
  void Post(const State& state, const Note& note);
  void WriteDue();

  Writer* const writer_;
  Timer* const loop_;
  const std::function<absl::Time()> wall_clock_;
  const Options options_;
  const OnRequest on_request_;
  const OnError on_error_;
  std::map<std::string, StatePtr, std::less<>> states_;
  std::set<std::pair<absl::Time, std::string>> due_;
  uint64_t events_ = 0;
  Alarm alarm_;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_REPORTER_H_
