// GET of a head's /status: plain HTTP to a pod's address. The answer is foreign: bounded in time
// and size, and not read here.
#ifndef ECHELON_OPERATOR_CONTROLLER_HEAD_CLIENT_H_
#define ECHELON_OPERATOR_CONTROLLER_HEAD_CLIENT_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace echelon::op {

// The seam; tests answer at once from a table.
class HeadClient {
 public:
  // The body of a 200, else what went wrong in a few words.
  using Done = std::function<void(absl::StatusOr<std::string>)>;

  virtual ~HeadClient() = default;
  // `done` is called once, on another thread, never from within Get. `address`: of IP alone.
  virtual void Get(const std::string& address, Done done) = 0;
};

struct HeadClientOptions {
  int port = 8000;
  std::string path = "/status";
  absl::Duration timeout = absl::Seconds(1);  // from dialling to the last byte
  size_t max_body_bytes = 1 << 20;
};
// One thread. Destroying it ends what is under way (Cancelled) and waits for the callbacks.
std::unique_ptr<HeadClient> MakeHeadClient(const HeadClientOptions& options);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_HEAD_CLIENT_H_
