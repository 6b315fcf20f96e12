// The objects of a fake API server and what requests do to them, at once and in memory: the rules
// of resourceVersion, generation, subresources, server-side apply, preconditions and deletion. Not
// thread-safe.
#ifndef ECHELON_TESTS_OPERATOR_KUBE_FAKE_STORE_H_
#define ECHELON_TESTS_OPERATOR_KUBE_FAKE_STORE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "operator/kube/api.h"
#include "operator/kube/resource.h"
#include "tests/operator/kube/fake_merge.h"

namespace echelon::op {

// A request's path, taken apart. collection: what comes before the namespace and the name,
// "/apis/apps/v1" + plural.
struct Target {
  std::string group_version, plural, ns, name, subresource;  // "apps/v1"; "v1"
  std::map<std::string, std::string> query;

  static Target Of(const std::string& path);
  std::string collection() const { return group_version + "/" + plural; }
  std::string Param(const std::string& name) const;
};

// Which objects a list or a watch is about.
struct Filter {
  std::string collection, ns, label_selector, field_selector;
  bool Has(const Json& object) const;
};

struct Change {
  int64_t version = 0;
  std::string type;                           // ADDED, MODIFIED, DELETED
  std::string collection;                     // "apps/v1/statefulsets"
  std::shared_ptr<const Json> before, after;  // of a DELETED, `after` is the last state
};

Response Failure(int code, const std::string& reason, const std::string& message);
Response NoSuchResource();  // a 404: it serves the kinds of operator/kube/resource.h

class FakeStore {
 public:
  struct Options {
    bool collect_garbage =
        true;  // dependents go with their owners, as kube-controller-manager has it
  };

  FakeStore() : FakeStore(Options()) {}
  explicit FakeStore(Options options) : options_(options) {}

  // Any request but a watch.
  Response Handle(const Request& request, absl::Time now);

  // Changes after `version`, oldest first; nullopt: some of them are compacted away (410).
  std::optional<std::vector<const Change*>> Since(int64_t version) const;
  int64_t version() const { return version_; }
  // Forgets all changes up to now, and every continue token.
  void Compact();

  // Called for each change, after it.
  void OnChange(std::function<void(const Change&)> on_change) { on_change_ = std::move(on_change); }
  // May change an object before it is stored, or refuse it: what webhooks, policies and validation
  // do.
  using Admission = std::function<std::optional<Response>(const Resource* resource, Json& object)>;
  void SetAdmission(Admission admission) { admission_ = std::move(admission); }

  // For tests that play kubelet, StatefulSet controller or user. nullptr: there is none.
  std::shared_ptr<const Json> Find(const Resource& resource, const std::string& ns,
                                   const std::string& name) const;
  std::vector<std::shared_ptr<const Json>> All(const Resource& resource) const;
  std::vector<std::shared_ptr<const Json>> Select(const Filter& filter) const;

 private:
  struct Object {
    std::shared_ptr<const Json> json;
    // Who applied (or wrote) which fields: by manager and subresource.
    std::map<std::string, Fields> managers;
  };
  using Key = std::pair<std::string, std::string>;  // namespace, name
  struct Page {                                     // what a continue token stands for
    int64_t version = 0;
    std::vector<std::shared_ptr<const Json>> rest;
  };
  struct Write {
    const Target& target;
    absl::Time now;
    bool dry_run = false;
    bool status = false;  // the status subresource
    std::string manager;
  };

  Response List(const Target& target);
  Response Create(Write write, Json body);
  Response Replace(Write write, Json body);
  Response MergePatch(Write write, const Json& patch);
  Response Apply(Write write, Json applied);
  Response Remove(const Target& target, const Json& options, absl::Time now);

  // Admits and stores `next` over `object`; nothing is written, and no version changes, where
  // nothing differs.
  Response Update(const Write& write, Object& object, Json next,
                  std::map<std::string, Fields> managers);
  Response Insert(const Write& write, Json body, std::map<std::string, Fields> managers);
  std::optional<Response> Conflicts(const Target& target, const Json& live, const Json& body) const;
  void Erase(const std::string& collection, const Key& key);
  void Publish(const std::string& type, const std::string& collection,
               std::shared_ptr<const Json> before, std::shared_ptr<const Json> after);
  void CollectDependents(const std::string& uid);
  bool IsOrphan(const Json& object) const;

  Options options_;
  absl::Time garbage_time_;  // of the request that made it
  int64_t version_ = 1000;
  int64_t compacted_ = 1000;
  uint64_t uids_ = 0, tokens_ = 0;
  std::map<std::string, std::map<Key, Object>> objects_;                        // by collection
  std::map<std::string, int> alive_;                                            // objects by UID
  std::map<std::string, std::vector<std::pair<std::string, Key>>> dependents_;  // by owner's UID
  std::map<std::string, Page> pages_;
  std::deque<Change> history_;
  std::function<void(const Change&)> on_change_;
  Admission admission_;
};

}  // namespace echelon::op

#endif  // ECHELON_TESTS_OPERATOR_KUBE_FAKE_STORE_H_
