// The schedule of tensor requests: a batch is split into micro-batches that follow each other
// through the pipeline (fill), and the next request's follow on their heels. Pure: (state, event)
// -> actions; no I/O, lock or clock.
#ifndef ECHELON_RUNTIME_SCHEDULE_FILL_DRAIN_H_
#define ECHELON_RUNTIME_SCHEDULE_FILL_DRAIN_H_

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"

namespace echelon::schedule {

using RequestId = uint64_t;
using StepId = uint64_t;

// Events.
struct Request {
  RequestId id = 0;       // never used before
  int64_t rows = 0;       // of the batch
  int chunks = 1;         // micro-batches wanted; fewer where there are fewer rows
  bool chunkable = true;  // false: the batch goes as one micro-batch, whatever chunks says
};
struct StepDone {
  StepId step = 0;
};
struct StepFailed {
  StepId step = 0;
  absl::Status status;
};
struct Cancel {
  RequestId id = 0;
  absl::Status why = absl::CancelledError("the client has gone");
};
struct EpochEnded {
  absl::Status why;  // what every request fails with; while held only those that have begun
};
struct Hold {};  // what has begun goes on, what has not waits, across epochs
struct Resume {};
using Event = std::variant<Request, StepDone, StepFailed, Cancel, EpochEnded, Hold, Resume>;

// Actions, to be done in order. Each request gets exactly one Finish, Fail or Reject.
struct Launch {
  StepId step = 0;
  RequestId request = 0;
  int chunk = 0, chunks = 1;
  int64_t first_row = 0, row_count = 0;
};
struct Finish {
  RequestId request = 0;
};
struct Fail {
  RequestId request = 0;
  absl::Status status;
};
struct Reject {  // never began
  RequestId request = 0;
  absl::Status status;  // kResourceExhausted
};
using Action = std::variant<Launch, Finish, Fail, Reject>;

std::string ToString(const Event& event);    // "request 1: 10 rows in 4 chunks"
std::string ToString(const Action& action);  // "launch step 0: request 1 chunk 0/4 rows 0..2"
std::string ToString(const std::vector<Action>& actions);  // one a line

class FillDrain {
 public:
  struct Options {
    int window = 4;  // steps in flight at most: twice the number of stages keeps every stage busy
    int max_waiting = 256;  // requests that have no step in flight yet; one more is rejected
    StepId first_step = 0;
  };
  explicit FillDrain(const Options& options) : options_(options), next_step_(options.first_step) {}

  // Steps that are not in flight (of an epoch that ended) and requests that are not known are
  // ignored.
  std::vector<Action> On(const Event& event);

  int in_flight() const { return static_cast<int>(in_flight_.size()); }
  int waiting() const { return static_cast<int>(waiting_.size()); }
  int begun() const { return static_cast<int>(requests_.size()) - waiting(); }
  std::string ToString() const;  // "in flight 2/4: step 0 (request 1 chunk 0) ...; waiting: 3"

 private:
  struct State {
    Request request;
    int chunks = 1;
    int launched = 0, done = 0;
  };
  struct Flight {
    RequestId request = 0;
    int chunk = 0;
  };

  void Handle(const Request& event, std::vector<Action>* actions);
  void Handle(const StepDone& event, std::vector<Action>* actions);
  void Handle(const StepFailed& event, std::vector<Action>* actions);
  void Handle(const Cancel& event, std::vector<Action>* actions);
  void Handle(const EpochEnded& event, std::vector<Action>* actions);
  void Handle(const Hold& event, std::vector<Action>* actions);
  void Handle(const Resume& event, std::vector<Action>* actions);
  void Drop(RequestId id, const absl::Status& why, std::vector<Action>* actions);
  void Pump(std::vector<Action>* actions);

  const Options options_;
  StepId next_step_;
  std::map<RequestId, State> requests_;  // admitted and not yet answered
  std::deque<RequestId> feeding_;        // with chunks left to launch, in order of arrival
  std::deque<RequestId> waiting_;        // the tail of feeding_ that has launched none
  bool held_ = false;
  std::map<StepId, Flight>
      in_flight_;  // also steps whose request is answered: they hold a place until they return
};

}  // namespace echelon::schedule

#endif  // ECHELON_RUNTIME_SCHEDULE_FILL_DRAIN_H_
