// Sends requests, a bounded number at once over all objects. What is asked for on the loop is
// answered on the loop.
#ifndef ECHELON_OPERATOR_CONTROLLER_WRITER_H_
#define ECHELON_OPERATOR_CONTROLLER_WRITER_H_

#include <array>
#include <deque>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "operator/controller/alarm.h"
#include "operator/kube/api.h"
#include "operator/kube/timer.h"

namespace echelon::op {

// What is made goes before what is said about it, which costs the API server several times as much:
// while objects are being written, a word goes every kWordsEvery. The others wait, and all that is
// said of one object meanwhile is one word in the end.
enum class Lane { kObjects, kWords };
inline constexpr absl::Duration kWordsEvery = absl::Milliseconds(200);

class Writer {
 public:
  // Runs on the loop.
  using Task = std::function<void()>;
  // Reads the answer on a thread of the adapter's and says what is to be done with it on the loop.
  // A Status is the transport's, or Aborted: not sent, for we may not write (any more).
  using Answer = std::function<Task(absl::StatusOr<Response>)>;

  // `loop` and `api` outlive it. `write_time` is asked before every request that is not a GET: for
  // how long we may write; not at all where it is not positive.
  Writer(Api* api, Timer* loop, int in_flight, std::function<absl::Duration()> write_time);

  void Send(Request request, Lane lane, Answer answer);
  // The request is made when its turn has come: it may say more by then.
  using Make = std::function<Request()>;
  void SendLate(Make make, Lane lane, Answer answer);

  // A server that asked for patience (429, 503 with Retry-After) is left alone until then.
  void Pause(absl::Duration time);

  void Stop();  // sends no more, answers no more

  size_t waiting() const { return lanes_[0].size() + lanes_[1].size(); }
  int in_flight() const { return in_flight_[0] + in_flight_[1]; }

 private:
  struct Pending {
    Request request;
    Make make;  // empty: `request` is it
    Answer answer;
  };

  void Pump();
  bool HasPlace(size_t lane) const;
  absl::Time NextWord() const;  // when one may go; InfiniteFuture: there is none
  void Start(size_t lane);

  Api* const api_;
  Timer* const loop_;
  const int max_in_flight_;
  const std::function<absl::Duration()> write_time_;
  std::array<std::deque<Pending>, 2> lanes_;
  std::array<int, 2> in_flight_{};
  absl::Time not_before_ = absl::InfinitePast();
  std::array<absl::Time, 2> last_start_{absl::InfinitePast(), absl::InfinitePast()};
  Alarm resume_;
  std::shared_ptr<int> alive_ = std::make_shared<int>();
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_WRITER_H_
