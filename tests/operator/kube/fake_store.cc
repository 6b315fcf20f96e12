#include "tests/operator/kube/fake_store.h"

#include <algorithm>
#include <array>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace echelon::op {
namespace {

constexpr std::array kStatusKinds{"Pod",
                                  "Service",
                                  "StatefulSet",
                                  "Job",
                                  "PodDisruptionBudget",
                                  "PersistentVolumeClaim",
                                  "Node",
                                  "Namespace",
                                  "PipelineDeployment",
                                  "CustomResourceDefinition"};

bool HasStatusSubresource(const Json& object) {
  const std::string kind = object.value("kind", "");
  return std::any_of(kStatusKinds.begin(), kStatusKinds.end(),
                     [&](const char* one) { return kind == one; });
}

const Resource* ResourceOf(const Json& object) {
  return FindResource(object.value("apiVersion", ""), object.value("kind", ""));
}

std::string Text(const Json& object, const char* name) {
  const auto meta = object.find("metadata");
  if (meta == object.end() || !meta->is_object()) return "";
  const auto value = meta->find(name);
  return value == meta->end() || !value->is_string() ? "" : value->get<std::string>();
}

// All but metadata and status: what a generation counts.
Json Desired(Json object) {
  object.erase("metadata");
  object.erase("status");
  return object;
}

Response Ok(int code, const Json& body) { return {.code = code, .body = body.dump()}; }

Response Missing(const Target& target) {
  return Failure(404, "NotFound", absl::StrCat(target.plural, " \"", target.name, "\" not found"));
}

}  // namespace

Response Failure(int code, const std::string& reason, const std::string& message) {
  return {.code = code,
          .body = Json{
              {"kind", "Status"},
              {"apiVersion", "v1"},
              {"metadata", Json::object()},
              {"status", "Failure"},
              {"message", message},
              {"reason", reason},
              {"code",
               code}}.dump()};
}

Response NoSuchResource() {
  return Failure(404, "NotFound", "the server could not find the requested resource");
}

Response FakeStore::Handle(const Request& request, absl::Time now) {
  const Target target = Target::Of(request.path);
  if (FindCollection(target.group_version, target.plural) == nullptr) return NoSuchResource();
  if (request.method == "GET" && target.name.empty()) return List(target);
  const auto& objects = objects_[target.collection()];
  const auto found = objects.find({target.ns, target.name});
  if (request.method == "GET") {
    return found == objects.end() ? Missing(target) : Ok(200, *found->second.json);
  }
  garbage_time_ = now;
  Json body = Json::parse(request.body, nullptr, false);
  if (request.method == "DELETE") {
    return Remove(target, body.is_object() ? body : Json::object(), now);
  }
  if (!body.is_object()) return Failure(400, "BadRequest", "the body is no JSON object");
  const Write write{.target = target,
                    .now = now,
                    .dry_run = target.Param("dryRun") == "All",
                    .status = target.subresource == "status",
                    .manager = target.Param("fieldManager")};
  if (request.method == "POST") return Create(write, std::move(body));
  if (request.method == "PUT") return Replace(write, std::move(body));
  if (request.method == "PATCH" && request.content_type == kApplyPatch) {
    return Apply(write, std::move(body));
  }
  if (request.method == "PATCH") return MergePatch(write, body);
  return Failure(405, "MethodNotAllowed", "the server does not allow this method");
}

std::vector<std::shared_ptr<const Json>> FakeStore::Select(const Filter& filter) const {
  std::vector<std::shared_ptr<const Json>> all;
  const auto found = objects_.find(filter.collection);
  if (found == objects_.end()) return all;
  for (const auto& [key, object] : found->second) {
    if (filter.Has(*object.json)) all.push_back(object.json);
  }
  return all;
}

Response FakeStore::List(const Target& target) {
  Page page{.version = version_};
  const std::string token = target.Param("continue");
  if (token.empty()) {
    page.rest = Select({target.collection(), target.ns, target.Param("labelSelector"),
                        target.Param("fieldSelector")});
  } else {
    const auto found = pages_.find(token);
    if (found == pages_.end()) {
      return Failure(410, "Expired",
                     "The provided continue parameter is too old to display a consistent list "
                     "result. You can start a new list without the continue parameter.");
    }
    page = found->second;  // may be asked for again
  }
  int limit = 0;
  size_t count = page.rest.size();
  if (absl::SimpleAtoi(target.Param("limit"), &limit) && limit > 0) {
    count = std::min<size_t>(count, limit);
  }
  Json items = Json::array();
  for (size_t i = 0; i < count; ++i) items.push_back(*page.rest[i]);
  Json meta{{"resourceVersion", std::to_string(page.version)}};
  if (count < page.rest.size()) {
    const std::string next = absl::StrCat("page-", ++tokens_, "/of=", page.version);
    meta["continue"] = next;
    meta["remainingItemCount"] = page.rest.size() - count;
    page.rest.erase(page.rest.begin(), page.rest.begin() + static_cast<int64_t>(count));
    pages_[next] = std::move(page);
  }
  return Ok(200, {{"kind", "List"},
                  {"apiVersion", target.group_version},
                  {"metadata", std::move(meta)},
                  {"items", std::move(items)}});
}

std::optional<Response> FakeStore::Conflicts(const Target& target, const Json& live,
                                             const Json& body) const {
  const std::string version = Text(body, "resourceVersion"), uid = Text(body, "uid");
  if (version.empty() || version == Text(live, "resourceVersion")) {
    if (uid.empty() || uid == Text(live, "uid")) return std::nullopt;
  }
  return Failure(
      409, "Conflict",
      absl::StrCat("Operation cannot be fulfilled on ", target.plural, " \"", target.name,
                   "\": the object has been modified; please apply your changes to the "
                   "latest version and try again"));
}

Response FakeStore::Insert(const Write& write, Json body, std::map<std::string, Fields> managers) {
  const Target& target = write.target;
  Json& meta = body["metadata"];
  if (Text(body, "name").empty()) {
    const std::string prefix = Text(body, "generateName");
    if (prefix.empty()) return Failure(422, "Invalid", "name or generateName is required");
    meta["name"] = absl::StrFormat("%s%05x", prefix, uids_ + 1);
  }
  const std::string name = meta["name"];
  if (!target.ns.empty()) meta["namespace"] = target.ns;
  if (!body.contains("apiVersion")) body["apiVersion"] = target.group_version;
  if (HasStatusSubresource(body)) body.erase("status");
  if (admission_) {
    if (auto refused = admission_(ResourceOf(body), body)) return *refused;
  }
  meta["uid"] = absl::StrFormat("00000000-0000-4000-8000-%012x", ++uids_);
  meta["creationTimestamp"] =
      absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", write.now, absl::UTCTimeZone());
  if (body.contains("spec")) meta["generation"] = 1;
  meta["resourceVersion"] = std::to_string(version_ + 1);
  if (write.dry_run) return Ok(201, body);

  const Key key{target.ns, name};
  const std::string collection = target.collection();
  const auto json = std::make_shared<const Json>(std::move(body));
  objects_[collection][key] = {json, std::move(managers)};
  ++alive_[Text(*json, "uid")];
  for (const Json& owner : (*json)["metadata"].value("ownerReferences", Json::array())) {
    dependents_[owner.value("uid", "")].emplace_back(collection, key);
  }
  Publish("ADDED", collection, nullptr, json);
  const Response response = Ok(201, *json);
  if (options_.collect_garbage && IsOrphan(*json)) Erase(collection, key);
  return response;
}

Response FakeStore::Create(Write write, Json body) {
  const std::string name = Text(body, "name");
  auto& objects = objects_[write.target.collection()];
  if (!name.empty() && objects.contains({write.target.ns, name})) {
    return Failure(409, "AlreadyExists",
                   absl::StrCat(write.target.plural, " \"", name, "\" already exists"));
  }
  if (!Text(body, "resourceVersion").empty()) {
    return Failure(400, "BadRequest", "resourceVersion should not be set on objects to be created");
  }
  if (!body.contains("kind")) {
    body["kind"] = FindCollection(write.target.group_version, write.target.plural)->kind;
  }
  const Fields fields = FieldsOf(body);
  return Insert(write, std::move(body), {{"update:" + write.manager, fields}});
}

Response FakeStore::Update(const Write& write, Object& object, Json next,
                           std::map<std::string, Fields> managers) {
  const Json& live = *object.json;
  if (HasStatusSubresource(live)) {
    if (write.status) {
      Json status = next.value("status", Json());
      next = live;
      if (!status.is_null()) next["status"] = std::move(status);
    } else {
      next.erase("status");
      if (live.contains("status")) next["status"] = live["status"];
    }
  } else if (write.status) {
    return Missing(write.target);
  }
  if (!write.status && admission_) {
    if (auto refused = admission_(ResourceOf(next), next)) return *refused;
  }
  Json& meta = next["metadata"];
  const Json& old = live["metadata"];
  for (const char* name : {"uid", "name", "namespace", "creationTimestamp", "generation",
                           "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"}) {
    meta.erase(name);
    if (old.contains(name)) meta[name] = old[name];
  }
  if (next == live && managers == object.managers) return Ok(200, live);
  if (old.contains("generation") && Desired(next) != Desired(live)) {
    meta["generation"] = old["generation"].get<int64_t>() + 1;
  }
  meta["resourceVersion"] = std::to_string(version_ + 1);
  if (write.dry_run) return Ok(200, next);
  const auto before = object.json;
  object.json = std::make_shared<const Json>(std::move(next));
  object.managers = std::move(managers);
  const auto after = object.json;
  Publish("MODIFIED", write.target.collection(), before, after);
  if ((*after)["metadata"].contains("deletionTimestamp") &&
      (*after)["metadata"].value("finalizers", Json::array()).empty() &&
      !old.value("finalizers", Json::array()).empty()) {
    Erase(write.target.collection(), {write.target.ns, write.target.name});
  }
  return Ok(200, *after);
}

Response FakeStore::Replace(Write write, Json body) {
  auto& objects = objects_[write.target.collection()];
  const auto found = objects.find({write.target.ns, write.target.name});
  if (found == objects.end()) return Missing(write.target);
  Object& object = found->second;
  if (auto conflict = Conflicts(write.target, *object.json, body)) return *conflict;
  for (const char* name : {"apiVersion", "kind"}) {
    if (!body.contains(name)) body[name] = (*object.json)[name];
  }
  auto managers = object.managers;
  for (const std::string& field : ChangedFields(*object.json, body)) {
    for (auto& [manager, fields] : managers) fields.erase(field);
    managers["update:" + write.manager].insert(field);
  }
  return Update(write, object, std::move(body), std::move(managers));
}

Response FakeStore::MergePatch(Write write, const Json& patch) {
  auto& objects = objects_[write.target.collection()];
  const auto found = objects.find({write.target.ns, write.target.name});
  if (found == objects.end()) return Missing(write.target);
  Json body = *found->second.json;
  body.merge_patch(patch);
  if (auto conflict = Conflicts(write.target, *found->second.json, patch)) return *conflict;
  return Replace(write, std::move(body));
}

}  // namespace echelon::op
