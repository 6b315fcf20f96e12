// The schedule of text requests: continuous batching. Each step takes along the sequences that are
// ready for their next token and a chunk of a prompt. Pure: (state, event) -> actions; no I/O, lock
// or clock. It knows numbers of tokens and blocks of the KV cache, not the tokens.
//
// - Decodes are spread over as many groups as there are stages, so that each stage always has one
//   of them: a step takes at most ceil(decoding / stages) of the ready ones, and at most `stages`
//   steps with decodes are in flight. Who is ready and finds no place goes along with the next
//   group, so groups level out as requests come and go. A sequence has one drawing step in flight.
// - Prompts go in chunks, oldest first, several in a step where they are short. While sequences
//   decode, a step that only prefills is launched only to keep every stage busy: more of them would
//   make decodes queue up behind. Otherwise prefill fills the window.
// - Requests are admitted in order of arrival, when the cache has blocks for all their known tokens
//   and one to spare for each running sequence. What a sequence needs beyond its prompt it takes
//   when it gets there; if no block is free, the youngest running sequence is preempted: it gives
//   its blocks back and starts again from its known tokens (recompute). The oldest is never
//   preempted for another, so every request ends.
// - Steps run in order on every stage, so blocks given back are reused by the very next step.
#ifndef ECHELON_RUNTIME_SCHEDULE_CONTINUOUS_H_
#define ECHELON_RUNTIME_SCHEDULE_CONTINUOUS_H_

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "runtime/schedule/block_pool.h"

namespace echelon::schedule {

class Continuous {
 public:
  using RequestId = uint64_t;
  using StepId = uint64_t;

  // Events.
  struct Request {
    RequestId id = 0;           // greater than all before
    int32_t prompt_tokens = 0;  // at least 1
    int32_t max_tokens = 0;     // of prompt and answer together; more than prompt_tokens
  };
  struct StepDone {
    StepId step = 0;
    std::vector<RequestId> finished;  // of those that drew: no more tokens follow
  };
  struct StepFailed {  // fails all requests of the step
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

  // Actions, to be done in order. A request that does not finish gets exactly one Fail or Reject.
  struct Part {  // tokens [start, start + count) of a sequence
    RequestId request = 0;
    int32_t start = 0, count = 0;
    bool draws = false;           // its next token, at position start + count
    std::vector<int32_t> blocks;  // by position; they cover start + count tokens
  };
  struct Launch {
    StepId step = 0;
    std::vector<Part> parts;  // of different requests
  };
  struct Fail {
    RequestId request = 0;
    absl::Status status;
  };
  struct Reject {  // never began
    RequestId request = 0;
    absl::Status
        status;  // kInvalidArgument: it fits no cache; kResourceExhausted: the queue is full
  };
  using Action = std::variant<Launch, Fail, Reject>;

  struct Options {
    int stages = 1;
    int window = 0;          // steps in flight at most; 0: 2 * stages; never fewer than stages
    int chunk_tokens = 128;  // of prompts in a step
    int step_tokens = 512;   // of a step; more than chunk_tokens, or chunks are made smaller
    int32_t blocks = 0;      // of the KV cache
    int32_t block_tokens = 16;
    int max_running = 256;  // sequences that hold blocks
    int max_waiting = 256;  // requests that have not begun; one more is rejected
    StepId first_step = 0;
  };
  explicit Continuous(const Options& options);

  // Steps that are not in flight (of an epoch that ended) and requests that are not known are
  // ignored.
  std::vector<Action> On(const Event& event);

  int in_flight() const { return static_cast<int>(flights_.size()); }
  int running() const { return static_cast<int>(running_.size()); }
  int waiting() const { return static_cast<int>(waiting_.size()); }  // preempted ones included
  int begun() const;  // requests: running, or preempted
  int32_t used_blocks() const { return pool_.used(); }
  int64_t preemptions() const { return preemptions_; }  // since the start
  const Options& options() const { return options_; }   // as they are in force
  // "in flight 1/4: step 3 (1 2); running: 1 (5/6) 2 (9/9); waiting: 4; free 5 of 8: 3..7"; of a
  // running sequence the tokens launched and known
  std::string ToString() const;

 private:
  struct State {
    Request request;
    int32_t known = 0;      // tokens: of the prompt and drawn
    int32_t launched = 0;   // of them, in the cache or on their way, since it was admitted
    bool decoding = false;  // all but the last drawn token are launched
    bool drawing = false;   // a step in flight will bring its next token
    bool began = false;     // was admitted before
    std::vector<int32_t> blocks;
  };
  struct Flight {
    std::vector<RequestId> requests;
    std::vector<bool> draws;  // one a request
    int decodes = 0;          // of the draws, those that are no prompt's last chunk
  };

  void Handle(const Request& event, std::vector<Action>* actions);
  void Handle(const StepDone& event, std::vector<Action>* actions);
  void Handle(const StepFailed& event, std::vector<Action>* actions);
  void Handle(const Cancel& event, std::vector<Action>* actions);
  void Handle(const EpochEnded& event, std::vector<Action>* actions);
  void Handle(const Hold& event, std::vector<Action>* actions);
  void Handle(const Resume& event, std::vector<Action>* actions);

  void Pump(std::vector<Action>* actions);
  void Admit();
  std::vector<RequestId> TakeDecodes();
  void AddPrefill(int budget, Launch* launch);
  Part Advance(RequestId id, int32_t count);
  bool Grow(RequestId id);
  void Preempt(RequestId id);
  void Release(State* state);
  void Drop(RequestId id);
  int32_t BlocksFor(int64_t tokens) const;
  int Decoding() const;
  int DecodeFlights() const;
  int Prefilling() const;

  const Options options_;
  BlockPool pool_;
  StepId next_step_;
  int64_t preemptions_ = 0;
  bool held_ = false;
  std::map<RequestId, State> requests_;  // neither finished, failed nor rejected
  std::set<RequestId> waiting_;          // by arrival; preempted ones are older than the new
  std::set<RequestId> running_;          // hold blocks
  std::deque<RequestId> ready_;          // running, decoding, not drawing; longest ready first
  std::map<StepId, Flight> flights_;     // also of requests that have gone meanwhile
};

std::string ToString(const Continuous::Event& event);  // "request 1: prompt 5, at most 20 tokens"
// "launch step 0: request 1 tokens 0..4 in 0 draws, request 2 tokens 0..127 in 4..11"
std::string ToString(const Continuous::Action& action);
std::string ToString(const std::vector<Continuous::Action>& actions);  // one a line

}  // namespace echelon::schedule

#endif  // ECHELON_RUNTIME_SCHEDULE_CONTINUOUS_H_
