// Server-side apply, deletion, history and garbage of the fake API server.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/operator/kube/fake_store.h"

namespace echelon::op {
namespace {

std::string Meta(const Json& object, const char* name) {
  return object.contains("metadata") ? object["metadata"].value(name, "") : "";
}

// What differs from `live` though another manager owns it; `theirs` loses it where forced.
Fields Taken(const Json& live, const Json& applied, const Fields& mine, const Fields& theirs) {
  const Json merged = Merged(live, applied);
  Fields taken;
  for (const std::string& field : ChangedFields(live, merged)) {
    if (mine.contains(field) && theirs.contains(field)) taken.insert(field);
  }
  return taken;
}

}  // namespace

Response FakeStore::Apply(Write write, Json applied) {
  if (write.manager.empty()) {
    return Failure(400, "BadRequest", "fieldManager is required for apply patch");
  }
  if (!applied.contains("apiVersion") || !applied.contains("kind")) {
    return Failure(400, "BadRequest", "apiVersion and kind must be set in an applied object");
  }
  applied["metadata"]["name"] = write.target.name;
  Json content = applied;
  if (write.status) {
    for (auto it = content.begin(); it != content.end();) {
      const bool stays = it.key() == "status" || it.key() == "kind" || it.key() == "apiVersion";
      it = stays ? std::next(it) : content.erase(it);
    }
  } else {
    content.erase("status");
  }
  const Fields mine = FieldsOf(content);
  const std::string me = absl::StrCat("apply:", write.manager, write.status ? "/status" : "");
  auto& objects = objects_[write.target.collection()];
  const auto found = objects.find({write.target.ns, write.target.name});
  if (found == objects.end()) {
    if (write.status) return Failure(404, "NotFound", write.target.plural + " not found");
    const std::string version = Meta(applied, "resourceVersion"), uid = Meta(applied, "uid");
    if (!version.empty() || !uid.empty()) {
      return Failure(409, "Conflict", absl::StrCat(write.target.name, ": no such object any more"));
    }
    return Insert(write, std::move(content), {{me, mine}});
  }
  Object& object = found->second;
  if (auto conflict = Conflicts(write.target, *object.json, applied)) return *conflict;
  if (content.contains("metadata")) {
    for (const char* name : {"uid", "resourceVersion", "namespace"}) {
      content["metadata"].erase(name);
    }
  }
  auto managers = object.managers;
  Fields gone = managers[me];
  for (const std::string& field : mine) gone.erase(field);
  for (auto& [manager, fields] : managers) {
    if (manager == me) continue;
    const Fields taken = Taken(*object.json, content, mine, fields);
    if (!taken.empty() && write.target.Param("force") != "true") {
      return Failure(409, "Conflict",
                     absl::StrCat("Apply failed with 1 conflict: conflict with \"", manager,
                                  "\": ", *taken.begin()));
    }
    for (const std::string& field : taken) fields.erase(field);
    for (const std::string& field : fields) gone.erase(field);
  }
  std::erase_if(managers, [](const auto& one) { return one.second.empty(); });
  managers[me] = mine;
  Json next = *object.json;
  RemoveFields(next, gone);
  return Update(write, object, Merged(next, content), std::move(managers));
}

Response FakeStore::Remove(const Target& target, const Json& options, absl::Time now) {
  auto& objects = objects_[target.collection()];
  const auto found = objects.find({target.ns, target.name});
  if (found == objects.end()) {
    return Failure(404, "NotFound",
                   absl::StrCat(target.plural, " \"", target.name, "\" not found"));
  }
  const Json& live = *found->second.json;
  if (options.contains("preconditions")) {
    const Json& wanted = options["preconditions"];
    for (const char* name : {"uid", "resourceVersion"}) {
      if (wanted.contains(name) && wanted[name] != live["metadata"][name]) {
        return Failure(
            409, "Conflict",
            absl::StrCat("Precondition failed: ", name,
                         " in precondition: ", wanted[name].get<std::string>(),
                         ", in object meta: ", live["metadata"][name].get<std::string>()));
      }
    }
  }
  const int64_t grace = options.value("gracePeriodSeconds", int64_t{-1});
  const bool on_node = live.value("kind", "") == "Pod" &&
                       live.value("spec", Json::object()).value("nodeName", "") != "";
  const bool held = !live["metadata"].value("finalizers", Json::array()).empty();
  if ((on_node && grace != 0) || held) {  // stays until its kubelet or finalizer is done
    if (live["metadata"].contains("deletionTimestamp")) return {.code = 200, .body = live.dump()};
    Json next = live;
    const int64_t own =
        live.value("spec", Json::object()).value("terminationGracePeriodSeconds", int64_t{30});
    const int64_t seconds = grace >= 0 ? grace : own;
    next["metadata"]["deletionTimestamp"] = absl::FormatTime(
        "%Y-%m-%dT%H:%M:%SZ", now + absl::Seconds(on_node ? seconds : 0), absl::UTCTimeZone());
    if (on_node) next["metadata"]["deletionGracePeriodSeconds"] = seconds;
    next["metadata"]["resourceVersion"] = std::to_string(version_ + 1);
    const auto before = found->second.json;
    found->second.json = std::make_shared<const Json>(std::move(next));
    const auto after = found->second.json;
    Publish("MODIFIED", target.collection(), before, after);
    return {.code = 200, .body = after->dump()};
  }
  const Response response{.code = 200, .body = live.dump()};
  if (options.value("propagationPolicy", "") == "Orphan") {
    dependents_.erase(live["metadata"].value("uid", ""));
  }
  Erase(target.collection(), found->first);
  return response;
}

void FakeStore::Erase(const std::string& collection, const Key& key) {
  auto& objects = objects_[collection];
  const auto found = objects.find(key);
  if (found == objects.end()) return;
  const auto before = found->second.json;
  Json last = *before;
  last["metadata"]["resourceVersion"] = std::to_string(version_ + 1);
  objects.erase(found);
  const std::string uid = Meta(last, "uid");
  alive_.erase(uid);
  Publish("DELETED", collection, before, std::make_shared<const Json>(std::move(last)));
  if (options_.collect_garbage) CollectDependents(uid);
}

bool FakeStore::IsOrphan(const Json& object) const {
  const Json owners = object["metadata"].value("ownerReferences", Json::array());
  return !owners.empty() && std::none_of(owners.begin(), owners.end(), [&](const Json& owner) {
    return alive_.contains(owner.value("uid", ""));
  });
}

void FakeStore::CollectDependents(const std::string& uid) {
  const auto found = dependents_.find(uid);
  if (found == dependents_.end()) return;
  const auto candidates = std::move(found->second);
  dependents_.erase(found);
  for (const auto& [collection, key] : candidates) {
    const auto object = objects_[collection].find(key);
    if (object == objects_[collection].end() || !IsOrphan(*object->second.json)) continue;
    Request request;
    const size_t slash = collection.rfind('/');
    Target target{.group_version = collection.substr(0, slash),
                  .plural = collection.substr(slash + 1),
                  .ns = key.first,
                  .name = key.second};
    Remove(target, Json::object(), garbage_time_);
  }
}

void FakeStore::Publish(const std::string& type, const std::string& collection,
                        std::shared_ptr<const Json> before, std::shared_ptr<const Json> after) {
  history_.push_back({++version_, type, collection, std::move(before), std::move(after)});
  if (on_change_) on_change_(history_.back());
}

std::optional<std::vector<const Change*>> FakeStore::Since(int64_t version) const {
  if (version < compacted_) return std::nullopt;
  std::vector<const Change*> changes;
  // Versions count up one by one.
  const auto first = history_.begin() +
                     std::min<int64_t>(version - compacted_, static_cast<int64_t>(history_.size()));
  for (auto it = first; it != history_.end(); ++it) changes.push_back(&*it);
  return changes;
}

void FakeStore::Compact() {
  history_.clear();
  pages_.clear();
  compacted_ = version_;
}

std::shared_ptr<const Json> FakeStore::Find(const Resource& resource, const std::string& ns,
                                            const std::string& name) const {
  const auto objects = objects_.find(resource.ApiVersion() + "/" + std::string(resource.plural));
  if (objects == objects_.end()) return nullptr;
  const auto found = objects->second.find({ns, name});
  return found == objects->second.end() ? nullptr : found->second.json;
}

std::vector<std::shared_ptr<const Json>> FakeStore::All(const Resource& resource) const {
  Filter filter;
  filter.collection = resource.ApiVersion() + "/" + std::string(resource.plural);
  return Select(filter);
}

}  // namespace echelon::op
