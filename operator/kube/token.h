// A bearer token that others may change.
#ifndef ECHELON_OPERATOR_KUBE_TOKEN_H_
#define ECHELON_OPERATOR_KUBE_TOKEN_H_

#include <mutex>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "operator/kube/config.h"
#include "runtime/sync/steady_clock.h"

namespace echelon::op {

class Token {
 public:
  Token(FileOrText source, absl::Duration lifetime)
      : source_(std::move(source)), lifetime_(lifetime) {}

  // The token, at most `lifetime` old; a file that cannot be read leaves the last one. Empty: none.
  std::string Get() {
    const std::lock_guard lock(mutex_);
    if (SteadyNow() - read_at_ >= lifetime_) Read();
    return token_;
  }

  // The server has refused `refused`: true where there is another by now.
  bool Renew(const std::string& refused) {
    const std::lock_guard lock(mutex_);
    if (token_ == refused) Read();
    return !token_.empty() && token_ != refused;
  }

 private:
  void Read();

  std::mutex mutex_;
  const FileOrText source_;
  const absl::Duration lifetime_;
  absl::Time read_at_ = absl::InfinitePast();
  std::string token_;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_TOKEN_H_
