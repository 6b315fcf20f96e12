#include "operator/controller/cache.h"

#include <algorithm>
#include <tuple>
#include <type_traits>
#include <utility>

#include "absl/hash/hash.h"

namespace echelon::op {
namespace {

constexpr size_t kMaxDeleted = 4096;  // remembered, against late news of them
constexpr size_t kMaxWarnings = 16;   // of one deployment
constexpr absl::Duration kWarningLife = absl::Minutes(30);

uint64_t IdOf(std::string_view kind, std::string_view ns, std::string_view name) {
  return absl::HashOf(kind, ns, name);
}

template <typename View>
std::vector<View>& ListOf(Observed& observed) {
  if constexpr (std::is_same_v<View, OwnedObject>) return observed.objects;
  if constexpr (std::is_same_v<View, RevisionView>) return observed.revisions;
  if constexpr (std::is_same_v<View, JobView>) return observed.jobs;
  if constexpr (std::is_same_v<View, SetView>) return observed.sets;
  if constexpr (std::is_same_v<View, PodView>) return observed.pods;
}

// Kinds share a list only among OwnedObjects; Services and PDBs may well have one name.
bool Before(const OwnedObject& view, std::string_view kind, std::string_view name) {
  return std::pair<std::string_view, std::string_view>(view.kind, view.name) <
         std::pair(kind, name);
}
bool Before(const PodView& view, std::string_view, std::string_view name) {
  return view.name < name;
}
bool Is(const OwnedObject& view, std::string_view kind, std::string_view name) {
  return view.kind == kind && view.name == name;
}
bool Is(const PodView& view, std::string_view, std::string_view name) { return view.name == name; }

template <typename List>
auto PlaceOf(List& list, std::string_view kind, std::string_view name) {
  return std::partition_point(list.begin(), list.end(),
                              [&](const auto& view) { return Before(view, kind, name); });
}

template <typename List>
auto* FindIn(List& list, std::string_view kind, std::string_view name) {
  const auto at = PlaceOf(list, kind, name);
  return at != list.end() && Is(*at, kind, name) ? &*at : nullptr;
}

template <typename View>
bool DropFrom(std::vector<View>& list, std::string_view kind, std::string_view name) {
  const auto at = PlaceOf(list, kind, name);
  if (at == list.end() || !Is(*at, kind, name)) return false;
  list.erase(at);
  return true;
}

// Runs `run` with the one list that holds objects of the kind.
template <typename Of, typename Run>
auto WithList(std::string_view kind, Of& observed, Run run) {
  if (kind == "Pod") return run(observed.pods);
  if (kind == "StatefulSet") return run(observed.sets);
  if (kind == "ControllerRevision") return run(observed.revisions);
  if (kind == "Job") return run(observed.jobs);
  return run(observed.objects);
}

}  // namespace

Cache::Known* Cache::Accept(std::string_view kind, std::string_view key, std::string_view name,
                            uint64_t version) {
  const auto [at, is_new] = known_.try_emplace(IdOf(kind, NamespaceOf(key), name));
  Known& known = at->second;
  if (version != 0 && version < known.version) return nullptr;
  if (version != 0 && version == known.version && !known.here) return nullptr;  // its deletion
  const auto entry = entries_.try_emplace(std::string(key)).first;
  if (known.here && known.entry != entry) {  // its label was changed
    Drop(kind, name, &known.entry->second);
    DropEntryIfEmpty(known.entry);
  }
  known.version = version;
  known.entry = entry;
  known.here = true;
  known.confirmed = true;
  return &known;
}

template <typename View>
std::optional<std::string> Cache::PutView(Seen<View> seen, std::string_view kind) {
  Known* known = Accept(kind, seen.key, seen.view.name, seen.version);
  if (known == nullptr) return std::nullopt;
  std::vector<View>& list = ListOf<View>(known->entry->second.observed);
  const auto at = PlaceOf(list, kind, seen.view.name);
  if (at == list.end() || !Is(*at, kind, seen.view.name)) {
    list.insert(at, std::move(seen.view));
  } else if (*at == seen.view) {
    return std::nullopt;
  } else {
    *at = std::move(seen.view);
  }
  return std::move(seen.key);
}

std::optional<std::string> Cache::Put(Seen<OwnedObject> seen) {
  const std::string kind = seen.view.kind;
  return PutView(std::move(seen), kind);
}
std::optional<std::string> Cache::Put(Seen<RevisionView> seen) {
  return PutView(std::move(seen), "ControllerRevision");
}
std::optional<std::string> Cache::Put(Seen<JobView> seen) {
  return PutView(std::move(seen), "Job");
}
std::optional<std::string> Cache::Put(Seen<SetView> seen) {
  return PutView(std::move(seen), "StatefulSet");
}
std::optional<std::string> Cache::Put(Seen<PodView> seen) {
  return PutView(std::move(seen), "Pod");
}
std::optional<std::string> Cache::Put(AnySeen seen) {
  return std::visit([this](auto& view) { return Put(std::move(view)); }, seen);
}

std::optional<std::string> Cache::PutAnswer(AnySeen seen, absl::Time now) {
  const Name name = std::visit(
      [](const auto& of) {
        return Name{of.view.kind, of.key, of.view.name};
      },
      seen);
  const uint64_t version = std::visit([](const auto& of) { return of.version; }, seen);
  const uint64_t id = IdOf(name.kind, NamespaceOf(name.key), name.name);
  const auto before = known_.find(id);
  const bool is_known = before != known_.end() && before->second.here && before->second.confirmed &&
                        before->second.version >= version;
  auto changed = Put(std::move(seen));
  if (is_known) return changed;
  const auto known = known_.find(id);
  if (known == known_.end() || !known->second.here) return changed;
  known->second.confirmed = false;
  answered_.push_back({name, now});
  return changed;
}

std::vector<Cache::Name> Cache::TakeUnconfirmed(absl::Time before) {
  std::vector<Name> names;
  while (!answered_.empty() && answered_.front().at < before) {
    Name& name = answered_.front().name;
    const auto known = known_.find(IdOf(name.kind, NamespaceOf(name.key), name.name));
    if (known != known_.end() && known->second.here && !known->second.confirmed) {
      names.push_back(std::move(name));
    }
    answered_.pop_front();
  }
  return names;
}

void Cache::KeepUnconfirmed(Name name, absl::Time now) {
  answered_.push_back({std::move(name), now});
}

std::optional<std::string> Cache::Put(Deployment deployment, uint64_t version) {
  std::string key = KeyOf(deployment.ns, deployment.name);
  Known* known = Accept(kKind, key, deployment.name, version);
  if (known == nullptr) return std::nullopt;
  Entry& entry = known->entry->second;
  const auto what = [](const Deployment& d) { return std::tie(d.uid, d.generation, d.deleting); };
  const bool is_same = entry.deployment != nullptr && what(*entry.deployment) == what(deployment);
  entry.deployment = std::make_unique<Deployment>(std::move(deployment));
  FillClaims(key, &entry);
  if (is_same) return std::nullopt;  // its status, mostly: our own word
  return key;
}

void Cache::FillClaims(std::string_view key, Entry* entry) const {
  auto& claims = entry->observed.claims;
  claims.clear();
  const ModelSource& source = entry->deployment->spec.model.source;
  if (source.type != SourceType::kPvc || source.claim_name.empty()) return;
  const auto at = claims_.find(KeyOf(NamespaceOf(key), source.claim_name));
  if (at != claims_.end()) {
    claims.push_back(at->second);
  } else if (claims_synced_) {
    claims.push_back({.name = source.claim_name, .missing = true});
  }
}

std::vector<std::string> Cache::FillClaim(std::string_view ns, std::string_view name) {
  std::vector<std::string> keys;
  for (auto at = entries_.lower_bound(KeyOf(ns, "")); at != entries_.end(); ++at) {
    if (NamespaceOf(at->first) != ns) break;
    const Deployment* deployment = at->second.deployment.get();
    if (deployment == nullptr || deployment->spec.model.source.claim_name != name) continue;
    FillClaims(at->first, &at->second);
    keys.push_back(at->first);
  }
  return keys;
}

std::vector<std::string> Cache::PutClaim(std::string_view ns, ClaimView claim) {
  const std::string name = claim.name;
  ClaimView& known = claims_[KeyOf(ns, name)];
  if (known == claim) return {};
  known = std::move(claim);
  return FillClaim(ns, name);
}

std::vector<std::string> Cache::RemoveClaim(std::string_view ns, std::string_view name) {
  claims_.erase(KeyOf(ns, name));
  return FillClaim(ns, name);
}

void Cache::ClaimsSynced() {
  claims_synced_ = true;
  for (auto& [key, entry] : entries_) {
    if (entry.deployment != nullptr) FillClaims(key, &entry);
  }
}

std::string Cache::OwnerOf(const SeenWarning& seen) const {
  const auto find = [&](std::string_view kind, std::string_view name) {
    const auto at = known_.find(IdOf(kind, seen.ns, name));
    return at != known_.end() && at->second.here ? at->second.entry->first : std::string();
  };
  const std::string &kind = seen.view.kind, &object = seen.view.object;
  const auto tells_of = [&](std::string_view what) { return seen.view.reason.starts_with(what); };
  if (kind == "Job") return find(kind, object);
  if (kind == "StatefulSet") return tells_of("FailedCreate") ? find(kind, object) : "";
  if (kind != "Pod") return "";
  // The pod itself may be gone, or not seen yet. Of an export's, which nothing else is known of,
  // all is kept.
  const std::string parent = object.substr(0, object.rfind('-'));
  if (std::string owner = find("Job", parent); !owner.empty()) return owner;
  const bool is_used = tells_of("FailedMount") || tells_of("FailedAttachVolume");
  return is_used ? find("StatefulSet", parent) : "";
}

std::optional<std::string> Cache::Put(SeenWarning seen, absl::Time now) {
  if (seen.view.last_seen < now - kWarningLife || seen.view.kind == kKind) {
    return std::nullopt;
  }
  std::string key = OwnerOf(seen);
  if (key.empty()) return std::nullopt;
  if (!AddWarning(&entries_.find(key)->second, std::move(seen.view), now)) return std::nullopt;
  return key;
}

void Cache::Warn(std::string_view key, WarningView warning) {
  const absl::Time now = warning.last_seen;
  if (Entry* entry = Get(key)) AddWarning(entry, std::move(warning), now);
}

void Cache::TakeBack(std::string_view key, std::string_view kind, std::string_view name) {
  Entry* entry = Get(key);
  if (entry == nullptr) return;
  std::erase_if(entry->observed.warnings, [&](const WarningView& old) {
    return old.reason == kFailedWrite && old.kind == kind && old.object == name;
  });
}

bool Cache::AddWarning(Entry* entry, WarningView given, absl::Time now) {
  auto& warnings = entry->observed.warnings;
  const auto about = [](const WarningView& v) { return std::tie(v.kind, v.object, v.reason); };
  std::erase_if(warnings,
                [&](const WarningView& old) { return old.last_seen < now - kWarningLife; });
  for (WarningView& old : warnings) {
    if (about(old) != about(given)) continue;
    if (given.last_seen <= old.last_seen) return false;
    old = std::move(given);
    return true;
  }
  if (warnings.size() >= kMaxWarnings) {
    warnings.erase(
        std::min_element(warnings.begin(), warnings.end(),
                         [](const auto& a, const auto& b) { return a.last_seen < b.last_seen; }));
  }
  warnings.push_back(std::move(given));
  return true;
}

bool Cache::Drop(std::string_view kind, std::string_view name, Entry* entry) {
  if (kind == kKind) {
    entry->deployment = nullptr;
    return true;
  }
  if (kind == "Pod") entry->observed.heads.erase(std::string(name));
  return WithList(kind, entry->observed, [&](auto& list) { return DropFrom(list, kind, name); });
}

void Cache::DropEntryIfEmpty(std::map<std::string, Entry, std::less<>>::iterator at) {
  const Entry& entry = at->second;
  const Observed& seen = entry.observed;
  if (entry.deployment == nullptr && seen.objects.empty() && seen.revisions.empty() &&
      seen.jobs.empty() && seen.sets.empty() && seen.pods.empty()) {
    entries_.erase(at);
  }
}

std::optional<std::string> Cache::Remove(std::string_view kind, std::string_view ns,
                                         std::string_view name, uint64_t version) {
  const uint64_t id = IdOf(kind, ns, name);
  Known& known = known_[id];
  if (version != 0 && version < known.version) return std::nullopt;  // another has its name by now
  const bool was_here = known.here;
  if (version != 0) known.version = version;
  if (was_here || version != 0) {
    deleted_.push_back(id);
    known.here = false;
  } else {
    known_.erase(id);
  }
  std::optional<std::string> key;
  if (was_here) {
    key = known.entry->first;
    Drop(kind, name, &known.entry->second);
    DropEntryIfEmpty(known.entry);
  }
  while (deleted_.size() > kMaxDeleted) {
    const auto oldest = known_.find(deleted_.front());
    if (oldest != known_.end() && !oldest->second.here) known_.erase(oldest);
    deleted_.pop_front();
  }
  return key;
}

void Cache::MarkDeleting(std::string_view kind, std::string_view key, std::string_view name,
                         std::string_view uid) {
  Entry* entry = Get(key);
  if (entry == nullptr) return;
  WithList(kind, entry->observed, [&](auto& list) {
    if (auto* view = FindIn(list, kind, name); view != nullptr && view->uid == uid) {
      view->deleting = true;
    }
  });
}

const OwnedObject* Cache::Find(std::string_view kind, std::string_view key,
                               std::string_view name) const {
  const auto entry = entries_.find(key);
  if (entry == entries_.end() || kind == "Pod") return nullptr;
  const Observed& seen = entry->second.observed;
  if (kind == "StatefulSet") return FindIn(seen.sets, kind, name);
  if (kind == "ControllerRevision") return FindIn(seen.revisions, kind, name);
  if (kind == "Job") return FindIn(seen.jobs, kind, name);
  return FindIn(seen.objects, kind, name);
}

uint64_t Cache::VersionOf(std::string_view kind, std::string_view key,
                          std::string_view name) const {
  const auto at = known_.find(IdOf(kind, NamespaceOf(key), name));
  return at == known_.end() ? 0 : at->second.version;
}

Cache::Entry* Cache::Get(std::string_view key) {
  const auto at = entries_.find(key);
  return at == entries_.end() ? nullptr : &at->second;
}

std::vector<std::string> Cache::Names(std::string_view kind) const {
  std::vector<std::string> names;
  for (const auto& [key, entry] : entries_) {
    const std::string_view ns = NamespaceOf(key);
    if (kind == kKind) {
      if (entry.deployment != nullptr) names.push_back(key);
      continue;
    }
    WithList(kind, entry.observed, [&](const auto& list) {
      for (const auto& view : list) {
        if (Is(view, kind, view.name)) names.push_back(KeyOf(ns, view.name));
      }
    });
  }
  return names;
}

}  // namespace echelon::op
