// Follows all objects of one resource: lists them page by page, then watches, through everything
// that ends a watch.
#ifndef ECHELON_OPERATOR_KUBE_REFLECTOR_H_
#define ECHELON_OPERATOR_KUBE_REFLECTOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "operator/kube/api.h"
#include "operator/kube/resource.h"
#include "operator/kube/skim.h"
#include "operator/kube/timer.h"

namespace echelon::op {

class Reflector {
 public:
  struct Options {
    Selection of;
    Parts without;   // of the objects: nobody wants them
    int page = 250;  // objects a page
    absl::Duration list_timeout = absl::Seconds(30);
    absl::Duration watch_lifetime = absl::Minutes(5);
    uint64_t seed = 0;  // of the jitter
  };

  // Called one at a time, on threads of the Api and the Timer, with the reflector locked: keep what
  // is wanted of the object and return. They must not call the
  // reflector.
  struct Callbacks {
    // An object is new or has changed. key: "NAMESPACE/NAME", or "NAME" of a cluster-wide one.
    std::function<void(const std::string& key, nlohmann::json object)> upsert;
    // It is gone; also where the reflector has missed the event and learns it by a new list.
    std::function<void(const std::string& key)> remove;
    std::function<void()> synced;                        // the first list is complete
    std::function<void(const absl::Status& why)> error;  // it goes on by itself: for the log
  };

  struct Stats {
    int64_t lists = 0, watches = 0;
    int failures = 0;  // in a row
    bool synced = false;
  };

  // api and timer outlive whatever they still have under way.
  Reflector(Api* api, Timer* timer, const Resource& resource, Options options, Callbacks callbacks);
  ~Reflector();  // Stop
  Reflector(const Reflector&) = delete;
  Reflector& operator=(const Reflector&) = delete;

  void Start();
  // No callback runs after it has returned.
  void Stop();
  Stats stats() const;

 private:
  class Loop;
  std::shared_ptr<Loop> loop_;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_REFLECTOR_H_
