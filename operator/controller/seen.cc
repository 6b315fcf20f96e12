#include "operator/controller/seen.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "operator/controller/project.h"

namespace echelon::op {
namespace {

using nlohmann::json;

const json& Field(const json& object, const char* name) {
  static const json kNothing;
  if (!object.is_object()) return kNothing;
  const auto at = object.find(name);
  return at == object.end() ? kNothing : *at;
}

std::string Text(const json& object, const char* name) {
  const json& value = Field(object, name);
  return value.is_string() ? value.get<std::string>() : "";
}

// The kind of the owner that controls it.
std::string ControllerKind(const json& object) {
  const json& owners = Field(Field(object, "metadata"), "ownerReferences");
  if (!owners.is_array()) return "";
  for (const json& owner : owners) {
    if (Field(owner, "controller") == true) return Text(owner, "kind");
  }
  return "";
}

// "": its label names no deployment.
std::string KeyByLabel(const json& object) {
  const json& meta = Field(object, "metadata");
  const std::string deployment = Text(Field(meta, "labels"), kDeploymentLabel);
  return deployment.empty() ? "" : KeyOf(Text(meta, "namespace"), deployment);
}

template <typename Project>
auto See(const json& object, Project project) -> std::optional<Seen<decltype(project(object))>> {
  std::string key = KeyByLabel(object);
  if (key.empty()) return std::nullopt;
  return Seen<decltype(project(object))>{std::move(key), VersionOf(object), project(object)};
}

}  // namespace

std::string KeyOf(std::string_view ns, std::string_view name) {
  std::string key;
  key.reserve(ns.size() + 1 + name.size());
  return key.append(ns).append("/").append(name);
}

std::string_view NamespaceOf(std::string_view key) { return key.substr(0, key.find('/')); }

std::string_view NameOf(std::string_view key) { return key.substr(key.find('/') + 1); }

uint64_t VersionOf(const json& object) {
  uint64_t version = 0;
  return absl::SimpleAtoi(Text(Field(object, "metadata"), "resourceVersion"), &version) ? version
                                                                                        : 0;
}

std::optional<Seen<OwnedObject>> SeeOwned(const json& object, std::string_view kind) {
  return See(object, [&](const json& o) { return OwnedObjectFromJson(kind, o); });
}

std::optional<Seen<RevisionView>> SeeRevision(const json& object) {
  // The StatefulSet controller keeps revisions of its own, with our pods' labels.
  if (ControllerKind(object) == "StatefulSet") return std::nullopt;
  return See(object, RevisionFromJson);
}

std::optional<Seen<JobView>> SeeJob(const json& object) { return See(object, JobFromJson); }

std::optional<Seen<SetView>> SeeSet(const json& object) { return See(object, SetFromJson); }

std::optional<Seen<PodView>> SeePod(const json& object) {
  if (ControllerKind(object) != "StatefulSet") return std::nullopt;  // an export Job's
  return See(object, PodFromJson);
}

std::optional<SeenWarning> SeeWarning(const json& event) {
  if (Text(event, "type") != "Warning") return std::nullopt;
  SeenWarning seen{Text(Field(event, "metadata"), "namespace"), WarningFromJson(event)};
  if (seen.view.object.empty()) return std::nullopt;
  return seen;
}

AnySeen SeeMade(const json& object, std::string_view kind, std::string_view key) {
  const auto seen = [&](auto view) {
    return Seen<decltype(view)>{std::string(key), VersionOf(object), std::move(view)};
  };
  if (kind == "StatefulSet") return seen(SetFromJson(object));
  if (kind == "ControllerRevision") return seen(RevisionFromJson(object));
  if (kind == "Job") return seen(JobFromJson(object));
  return seen(OwnedObjectFromJson(kind, object));
}

}  // namespace echelon::op
