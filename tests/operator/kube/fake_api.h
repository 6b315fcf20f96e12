// An API server in memory, behind the same seam as the real one: answers come later, by a Timer, in
// an order that a seed fixes; and everything that goes wrong with a real one can be made to go
// wrong.
#ifndef ECHELON_TESTS_OPERATOR_KUBE_FAKE_API_H_
#define ECHELON_TESTS_OPERATOR_KUBE_FAKE_API_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "operator/kube/api.h"
#include "operator/kube/timer.h"
#include "tests/operator/kube/fake_store.h"

namespace echelon::op {

// What becomes of one request.
struct Fault {
  absl::Duration before, after;  // slower: on the way there, and back
  bool lose_request = false;     // the connection breaks before the server has read it
  bool lose_response = false;    // it breaks after the request was carried out
  int code = 0;                  // answered so, without being carried out
  std::string reason;
  absl::Duration retry_after;
};
// For a watch the request is its GET.
using FaultHook = std::function<Fault(const Request&)>;

struct LoggedRequest {
  std::string method, path;
  int code = 0;          // 0: never reached the server
  bool changed = false;  // a resourceVersion changed by it
  absl::Time at;
};

class FakeApi final : public Api {
 public:
  struct Options {
    uint64_t seed = 1;
    absl::Duration min_latency = absl::Microseconds(100), max_latency = absl::Milliseconds(2);
    absl::Duration bookmark_period = absl::Seconds(60);
    absl::Duration idle_timeout = absl::Seconds(90);  // a silent watch ends so late
    FakeStore::Options store;
  };

  explicit FakeApi(Timer* timer) : FakeApi(timer, Options()) {}
  FakeApi(Timer* timer, Options options);
  ~FakeApi() override;

  void Call(Request request, Done done) override;
  std::unique_ptr<WatchStream> Watch(std::string path, OnLine on_line, OnEnd on_end) override;

  // As another client would, at once and past all faults.
  Response Do(const Request& request);
  // Shorthands of it; a refusal fails an assertion. An applied object names its own namespace and
  // name.
  Json Put(const Resource& resource, const Json& object);
  void PutStatus(const Resource& resource, const std::string& ns, const std::string& name,
                 const Json& status);
  void Remove(const Resource& resource, const std::string& ns, const std::string& name);
  std::shared_ptr<const Json> Find(const Resource& resource, const std::string& ns,
                                   const std::string& name);
  std::vector<std::shared_ptr<const Json>> All(const Resource& resource);
  // Called for every change, while the server is locked: only note it, or post a task.
  void OnChange(std::function<void(const Change&)> on_change);
  void SetAdmission(FakeStore::Admission admission);

  void SetFaults(FaultHook faults);
  // The server is gone: connections are refused and watches break.
  void SetDown(bool down);
  // Bytes vanish without a word, both ways: calls run into their timeouts, watches into
  // idle_timeout.
  void SetSilent(bool silent);
  // Ends every watch; Ok is the server's own end.
  void CutWatches(const absl::Status& why = absl::UnavailableError("the connection was cut"));
  // Older versions are forgotten: watches from there and continue tokens get 410.
  void Compact();
  // As after kill -9 and a new start: down and up again at once, with no history.
  void Restart();
  void SendBookmarks();

  size_t open_watches();
  int64_t version();
  // All that Call and Watch were asked, oldest first.
  std::vector<LoggedRequest> log();
  void ClearLog();

 private:
  struct Stream;  // one open watch
  struct State;   // shared with what the timer still holds, so that a late task finds it
  class Handle;

  std::shared_ptr<State> state_;
};

}  // namespace echelon::op

#endif  // ECHELON_TESTS_OPERATOR_KUBE_FAKE_API_H_
