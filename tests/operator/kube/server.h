// An API server under test: the fake one, or the real one that ECHELON_KUBE_TEST_CONFIG (a
// kubeconfig) leads to.
#ifndef ECHELON_TESTS_OPERATOR_KUBE_SERVER_H_
#define ECHELON_TESTS_OPERATOR_KUBE_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "operator/kube/api.h"
#include "operator/kube/resource.h"
#include "operator/kube/timer.h"

namespace echelon::op {

class Server {
 public:
  virtual ~Server() = default;
  virtual Api& api() = 0;
  virtual Timer& timer() = 0;
  // Until done(), which is asked over and over; false: not within the limit.
  virtual bool Wait(const std::function<bool()>& done,
                    absl::Duration limit = absl::Seconds(20)) = 0;
  // One whose first versions the server no longer knows.
  virtual Resource ForgottenPast() = 0;
  // What breaks between client and server.
  virtual void CutConnections() = 0;
  virtual void SetSilent(bool silent) = 0;

  // Call, and wait for the answer.
  absl::StatusOr<Response> Ask(const Request& request);
  // The object; a refusal fails an assertion.
  nlohmann::json Must(const Request& request);
  // A namespace of this test's own.
  const std::string& ns();

 private:
  std::string ns_;
};

std::unique_ptr<Server> MakeFakeServer();
// nullptr: there is none to be had. All goes through a proxy.
std::unique_ptr<Server> MakeRealServer();

}  // namespace echelon::op

#endif  // ECHELON_TESTS_OPERATOR_KUBE_SERVER_H_
