// Which object is worked on next: each at most once, oldest first, later after errors. Single
// owner; reads no clock.
#ifndef ECHELON_OPERATOR_CONTROLLER_QUEUE_H_
#define ECHELON_OPERATOR_CONTROLLER_QUEUE_H_

#include <cstdint>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "absl/time/time.h"

namespace echelon::op {

class Queue {
 public:
  struct Options {
    absl::Duration first_backoff = absl::Milliseconds(100);
    absl::Duration max_backoff = absl::Minutes(1);
    uint64_t seed = 0;  // of the jitter: 0.5 to 1 of each back-off
  };
  explicit Queue(const Options& options) : options_(options), random_(options.seed) {}

  // Due at `when`, or earlier if it already was. While it is worked on, it is due after Done.
  void Add(std::string_view key, absl::Time when);
  // After an error: due when its back-off is over, which doubles each time until Forget. An Add
  // meanwhile makes it due earlier, and what failed is held until then all the same.
  void Retry(std::string_view key, absl::Time now);
  void Forget(std::string_view key);  // no error any more: the next back-off is the first again
  absl::Time held_until(std::string_view key) const;  // InfinitePast: no error
  void Remove(std::string_view key);                  // as if it had never been added

  // The one that has been due longest; it is being worked on until Done.
  std::optional<std::string> Take(absl::Time now);
  void Done(std::string_view key);

  absl::Time next() const;  // when the next is due; InfiniteFuture: none waits
  size_t waiting() const { return due_.size(); }
  size_t working() const { return working_; }

 private:
  struct Item {
    absl::Time when = absl::InfiniteFuture();
    absl::Time held_until = absl::InfinitePast();
    int errors = 0;
    bool working = false;
  };

  void Schedule(const std::string& key, Item& item, absl::Time when);

  const Options options_;
  std::mt19937_64 random_;
  std::unordered_map<std::string, Item> items_;
  std::set<std::pair<absl::Time, std::string>> due_;  // of those not worked on
  size_t working_ = 0;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_QUEUE_H_
