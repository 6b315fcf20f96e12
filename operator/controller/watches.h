// The watches that feed the controller: what each resource is narrowed to, and its projection, done
// on the adapter's threads.
#ifndef ECHELON_OPERATOR_CONTROLLER_WATCHES_H_
#define ECHELON_OPERATOR_CONTROLLER_WATCHES_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "operator/api/deployment.h"
#include "operator/controller/seen.h"
#include "operator/kube/api.h"
#include "operator/kube/reflector.h"
#include "operator/kube/resource.h"
#include "operator/kube/timer.h"

namespace echelon::op {

class Watches {
 public:
  // Called on the adapter's threads; they must not wait.
  struct Sink {
    std::function<void(Deployment deployment, uint64_t version)> deployment;
    std::function<void(AnySeen seen)> made;
    std::function<void(Seen<PodView> seen)> pod;
    std::function<void(SeenWarning seen)> warning;
    std::function<void(std::string ns, ClaimView claim)> claim;
    // kind "PersistentVolumeClaim" for claims; no word when an event goes.
    std::function<void(std::string_view kind, std::string ns, std::string name)> removed;
    // The first list of one more resource is complete.
    std::function<void(std::string_view kind)> synced;
    std::function<void(std::string_view plural, const absl::Status& why)> error;
  };

  struct Options {
    std::string ns;  // "": all
    int page = 100;
    uint64_t seed = 0;  // of the jitter
  };

  // api and timer outlive whatever they still have under way.
  Watches(Api* api, Timer* timer, Options options, Sink sink);
  ~Watches();

  // One resource is listed after the other, so that their pages do not add up in memory; one that
  // fails does not hold up the rest.
  void Start();
  void Stop();

  size_t size() const { return reflectors_.size(); }
  int64_t opened() const;  // watches opened so far, those after the first list included

 private:
  void Add(const Resource& resource, std::string label_selector, std::string field_selector,
           std::function<void(const nlohmann::json& object)> upsert);
  void StartNext(size_t after);

  Api* const api_;
  Timer* const timer_;
  const Options options_;
  const std::shared_ptr<const Sink> sink_;
  struct Chain;
  std::shared_ptr<Chain> chain_;
  std::vector<std::unique_ptr<Reflector>> reflectors_;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_WATCHES_H_
