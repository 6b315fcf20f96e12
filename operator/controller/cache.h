// What is known of the cluster: for each PipelineDeployment itself and the views of what belongs to
// it. Fed by watches and, at once, by the answers to our own writes, so that nothing is decided on
// a state older than our last write. Single owner.
#ifndef ECHELON_OPERATOR_CONTROLLER_CACHE_H_
#define ECHELON_OPERATOR_CONTROLLER_CACHE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/time/time.h"
#include "operator/api/deployment.h"
#include "operator/controller/seen.h"
#include "operator/reconcile/observed.h"

namespace echelon::op {

class Cache {
 public:
  struct Entry {
    std::unique_ptr<Deployment> deployment;  // null: not seen, or gone
    Observed observed;                       // each list in order of names; heads are the poller's
  };

  // Each of these says whose plan may have changed by it: the deployment's key, or nullopt. A state
  // older than what is known of that object is ignored; so is one of an object known to be deleted.
  std::optional<std::string> Put(Seen<OwnedObject> seen);
  std::optional<std::string> Put(Seen<RevisionView> seen);
  std::optional<std::string> Put(Seen<JobView> seen);
  std::optional<std::string> Put(Seen<SetView> seen);
  std::optional<std::string> Put(Seen<PodView> seen);
  std::optional<std::string> Put(AnySeen seen);
  std::optional<std::string> Put(Deployment deployment, uint64_t version);
  std::optional<std::string> Put(SeenWarning seen, absl::Time now);

  // An answer to a request of ours. It counts as unconfirmed until a watch tells of that version or
  // a later one.
  std::optional<std::string> PutAnswer(AnySeen seen, absl::Time now);
  struct Name {
    std::string kind, key, name;
  };
  // What has been unconfirmed since before `before`: no watch may ever tell of it (it was deleted
  // between two, lacks our label, is somebody else's). Each is named once; PutAnswer or Remove it.
  std::vector<Name> TakeUnconfirmed(absl::Time before);
  void KeepUnconfirmed(Name name, absl::Time now);  // it could not be found out

  // Claims are all kept: one may be named by a deployment later. Returns whose plans may change.
  std::vector<std::string> PutClaim(std::string_view ns, ClaimView claim);
  std::vector<std::string> RemoveClaim(std::string_view ns, std::string_view name);
  void ClaimsSynced();  // from now on one that is not known does not exist

  // What the server said to a write of ours about an object of `key`.
  void Warn(std::string_view key, WarningView warning);
  void TakeBack(std::string_view key, std::string_view kind, std::string_view name);  // it went

  // The object is gone. `version`: of its last state, 0: not told.
  std::optional<std::string> Remove(std::string_view kind, std::string_view ns,
                                    std::string_view name, uint64_t version);
  // It was taken for deletion: reads as deleting until it is gone.
  void MarkDeleting(std::string_view kind, std::string_view key, std::string_view name,
                    std::string_view uid);

  // The view of `kind` and name that belongs to `key`, as what all kinds have in common; null:
  // none.
  const OwnedObject* Find(std::string_view kind, std::string_view key, std::string_view name) const;
  uint64_t VersionOf(std::string_view kind, std::string_view key, std::string_view name) const;

  Entry* Get(std::string_view key);
  const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }

  // Names ("NAMESPACE/NAME") of all objects of the kind, for what a new list does not name any
  // more.
  std::vector<std::string> Names(std::string_view kind) const;

 private:
  struct Known {
    uint64_t version = 0;
    std::map<std::string, Entry, std::less<>>::iterator entry;
    bool here = false;  // not: a deleted object's last version
    bool confirmed = false;
  };
  struct Answered {
    Name name;
    absl::Time at;
  };

  template <typename View>
  std::optional<std::string> PutView(Seen<View> seen, std::string_view kind);
  Known* Accept(std::string_view kind, std::string_view key, std::string_view name,
                uint64_t version);
  void FillClaims(std::string_view key, Entry* entry) const;
  std::vector<std::string> FillClaim(std::string_view ns, std::string_view name);
  bool Drop(std::string_view kind, std::string_view name, Entry* entry);
  void DropEntryIfEmpty(std::map<std::string, Entry, std::less<>>::iterator at);
  static bool AddWarning(Entry* entry, WarningView given, absl::Time now);
  // "": nobody's, or nobody asks for such a one: a kubelet's words about probes would crowd out
  // the others.
  std::string OwnerOf(const SeenWarning& seen) const;

  std::map<std::string, Entry, std::less<>> entries_;
  std::unordered_map<uint64_t, Known> known_;          // by the hash of kind, namespace and name
  std::deque<uint64_t> deleted_;                       // of known_, oldest first
  std::deque<Answered> answered_;                      // oldest first
  std::unordered_map<std::string, ClaimView> claims_;  // by "NAMESPACE/NAME"
  bool claims_synced_ = false;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_CACHE_H_
