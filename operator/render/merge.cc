// Merging pod templates.
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "operator/render/parts.h"
#include "operator/render/render.h"

namespace echelon::op {
namespace {

using nlohmann::json;

absl::Status Bad(const std::string& path, const char* what) {
  return absl::InvalidArgumentError(absl::StrCat(path, " ", what));
}

// ---- Merging ------------------------------------------------------------------------------------

struct KeyedList {
  const char *field, *key;
  bool merge_items;  // or replace them: an env with value takes none of another's valueFrom
};
constexpr KeyedList kKeyedLists[] = {{"containers", "name", true},
                                     {"initContainers", "name", true},
                                     {"env", "name", false},
                                     {"volumes", "name", false},
                                     {"volumeMounts", "mountPath", false},
                                     {"volumeDevices", "devicePath", false},
                                     {"ports", "containerPort", false},
                                     {"imagePullSecrets", "name", false},
                                     {"hostAliases", "ip", false},
                                     {"resourceClaims", "name", false}};

const KeyedList* KeyedListOf(std::string_view field) {
  for (const KeyedList& list : kKeyedLists)
    if (field == list.field) return &list;
  return nullptr;
}

std::string Shown(const json& key) { return key.is_string() ? key.get<std::string>() : key.dump(); }

// The item of a list with this key, or null.
json* Find(json* list, const char* key, const json& value) {
  for (json& item : *list)
    if (item.contains(key) && item[key] == value) return &item;
  return nullptr;
}

absl::Status MergeObject(json* base, const json& patch, const std::string& path);

absl::Status MergeKeyed(json* base, const json& patch, const KeyedList& kind,
                        const std::string& path) {
  if (!patch.is_array()) return Bad(path, "must be a list");
  json seen = json::array();
  for (const json& item : patch) {
    if (!item.is_object()) return Bad(path, "must be a list of objects");
    const auto key = item.find(kind.key);
    if (key == item.end() || !(key->is_string() || key->is_number_integer()))
      return Bad(path, absl::StrCat("has an item without ", kind.key).c_str());
    const std::string item_path = absl::StrCat(path, "[", Shown(*key), "]");
    if (std::find(seen.begin(), seen.end(), *key) != seen.end())
      return Bad(item_path, "is there twice");
    seen.push_back(*key);
    json* known = Find(base, kind.key, *key);
    if (known == nullptr) {
      base->push_back({{kind.key, *key}});
      known = &base->back();
    } else if (!kind.merge_items) {
      *known = json::object();
    }
    if (absl::Status status = MergeObject(known, item, item_path); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Append(json* base, const json& patch, const std::string& path) {
  if (!patch.is_array()) return Bad(path, "must be a list");
  for (const json& item : patch)
    if (std::find(base->begin(), base->end(), item) == base->end() || item.is_string())
      base->push_back(item);
  return absl::OkStatus();
}

// Merges one field of an object that both have, or only the patch.
absl::Status MergeField(json* base, const std::string& name, const json& patch,
                        const std::string& path) {
  const bool is_stage = base->contains("name") && (*base)["name"] == kStage;
  json& value = (*base)[name];
  if (const KeyedList* kind = KeyedListOf(name)) {
    if (!value.is_array()) value = json::array();
    return MergeKeyed(&value, patch, *kind, path);
  }
  if (name == "tolerations" || (is_stage && name == "args")) {
    if (!value.is_array()) value = json::array();
    return Append(&value, patch, path);
  }
  if (!patch.is_object() || !value.is_object()) {
    if (value.is_object() || (value.is_array() && !patch.is_array()))
      return Bad(path, value.is_object() ? "must be an object with fields" : "must be a list");
    value = patch;
    return absl::OkStatus();
  }
  return MergeObject(&value, patch, path);
}

absl::Status MergeObject(json* base, const json& patch, const std::string& path) {
  for (auto field = patch.begin(); field != patch.end(); ++field) {
    if (field->is_null()) {
      base->erase(field.key());
      continue;
    }
    const std::string field_path = absl::StrCat(path, ".", field.key());
    if (absl::Status status = MergeField(base, field.key(), *field, field_path); !status.ok())
      return status;
  }
  return absl::OkStatus();
}

// ---- What is the operator's alone ---------------------------------------------------------------

constexpr const char* kOfExport[] = {"env", "image", "imagePullPolicy", "resources"};
constexpr const char* kSharedWithExport[] = {
    "serviceAccountName", "imagePullSecrets",  "nodeSelector",    "tolerations",
    "securityContext",    "priorityClassName", "runtimeClassName"};
// Annotations by which a volume's driver mounts it; others may be about containers of ranks.
constexpr char kOfVolumes[] = "gke-gcsfuse/";

constexpr char kOurs[] = "is the operator's; leave it out";

const json& At(const json& object, const char* key) {
  static const json* null = new json();
  if (!object.is_object()) return *null;
  const auto found = object.find(key);
  return found == object.end() ? *null : *found;
}

// A null would remove it, which is no more the user's to do than to change it.
bool Says(const json& object, const char* key) {
  return object.is_object() && object.contains(key);
}

// No item of the user's list may have the key of one of ours.
absl::Status CheckItems(const json& users, const json& ours, const char* field, const char* key,
                        const std::string& path) {
  const json &theirs = At(users, field), &own = At(ours, field);
  if (!theirs.is_array() || !own.is_array()) return absl::OkStatus();  // shapes: when merging
  for (const json& item : theirs)
    for (const json& mine : own)
      if (!At(item, key).is_null() && At(item, key) == At(mine, key))
        return Bad(absl::StrCat(path, ".", field, "[", Shown(At(item, key)), "]"), kOurs);
  return absl::OkStatus();
}

std::string FlagOf(const json& arg) {
  if (!arg.is_string() || !absl::StartsWith(arg.get_ref<const std::string&>(), "-")) return "";
  const std::string text = arg.get<std::string>();
  return text.substr(0, text.find('='));
}

absl::Status CheckArgs(const json& users, const json& ours, const std::string& path) {
  const json& args = At(users, "args");
  if (!args.is_array()) return absl::OkStatus();
  for (const json& arg : args) {
    if (!arg.is_string()) return Bad(path + ".args", "must be a list of strings");
    for (const json& mine : At(ours, "args"))
      if (!FlagOf(arg).empty() && FlagOf(arg) == FlagOf(mine))
        return Bad(absl::StrCat(path, ".args: ", FlagOf(arg)), kOurs);
  }
  return absl::OkStatus();
}

absl::Status CheckStage(const json& users, const json& ours, const std::string& path) {
  for (const auto& [field, key] : {std::pair("env", "name"),
                                   {"ports", "containerPort"},
                                   {"ports", "name"},
                                   {"volumeMounts", "mountPath"}})
    if (absl::Status status = CheckItems(users, ours, field, key, path); !status.ok())
      return status;
  if (absl::Status status = CheckArgs(users, ours, path); !status.ok()) return status;
  if (Says(users, "terminationMessagePath")) return Bad(path + ".terminationMessagePath", kOurs);
  // One may give a probe more time, but not ask for something else.
  for (const char* probe : {"startupProbe", "livenessProbe", "readinessProbe"}) {
    const std::string probe_path = absl::StrCat(path, ".", probe);
    if (Says(users, probe) && At(users, probe).is_null()) return Bad(probe_path, kOurs);
    for (const char* handler : {"grpc", "httpGet", "exec", "tcpSocket"})
      if (Says(At(users, probe), handler))
        return Bad(absl::StrCat(probe_path, ".", handler), kOurs);
  }
  return absl::OkStatus();
}

absl::Status CheckExport(const json& users, const std::string& path) {
  for (auto field = users.begin(); users.is_object() && field != users.end(); ++field) {
    const auto is_it = [&](const char* may) { return field.key() == may; };
    if (!is_it("name") && std::none_of(std::begin(kOfExport), std::end(kOfExport), is_it))
      return Bad(absl::StrCat(path, ".", field.key()),
                 absl::StrCat("cannot be set; of the export Job's container only ",
                              absl::StrJoin(kOfExport, ", "), " can")
                     .c_str());
  }
  return absl::OkStatus();
}

absl::Status CheckMetadata(const json& users, const json& ours, const std::string& path) {
  for (auto field = users.begin(); users.is_object() && field != users.end(); ++field)
    if (field.key() != "labels" && field.key() != "annotations")
      return Bad(absl::StrCat(path, ".", field.key()),
                 "cannot be set; of a pod's metadata only labels and annotations can");
  const json &labels = At(users, "labels"), &own = At(ours, "labels");
  for (auto label = labels.begin(); labels.is_object() && label != labels.end(); ++label) {
    const bool made_by_sets = absl::StrContains(label.key(), "kubernetes.io/pod-");
    if (made_by_sets || (own.contains(label.key()) && own[label.key()] != *label))
      return Bad(absl::StrCat(path, ".labels[", label.key(), "]"), kOurs);
  }
  return absl::OkStatus();
}

absl::Status CheckUsers(const json& users, const json& ours) {
  for (auto field = users.begin(); field != users.end(); ++field)
    if (field.key() != "metadata" && field.key() != "spec")
      return Bad(absl::StrCat("template.", field.key()),
                 "is no field of a pod template; it has metadata and spec");
  const json &metadata = At(users, "metadata"), &spec = At(users, "spec");
  if (absl::Status status = CheckMetadata(metadata, At(ours, "metadata"), "template.metadata");
      !status.ok())
    return status;
  if (Says(spec, "terminationGracePeriodSeconds"))
    return Bad("template.spec.terminationGracePeriodSeconds",
               "follows from rollout.drainSeconds; set that one");
  for (const char* field : {"hostname", "subdomain", "restartPolicy"})
    if (Says(spec, field)) return Bad(absl::StrCat("template.spec.", field), kOurs);
  // `tmp` may be another volume, say one in memory.
  const json model{{"volumes", {{{"name", "model"}}}}};
  if (absl::Status status = CheckItems(spec, model, "volumes", "name", "template.spec");
      !status.ok())
    return status;
  for (const char* field : {"containers", "volumes"})
    if (Says(spec, field) && At(spec, field).is_null())
      return Bad(absl::StrCat("template.spec.", field), kOurs);
  const json& containers = At(spec, "containers");
  for (auto container = containers.begin(); containers.is_array() && container != containers.end();
       ++container) {
    if (At(*container, "name") == kExport) {
      if (absl::Status status = CheckExport(*container, "template.spec.containers[export]");
          !status.ok())
        return status;
    }
    if (At(*container, "name") != kStage) continue;
    const json& own = ours["spec"]["containers"][0];
    if (absl::Status status = CheckStage(*container, own, "template.spec.containers[stage]");
        !status.ok())
      return status;
  }
  return absl::OkStatus();
}

// Two tolerations of one taint would leave open which counts: the user's does.
void DropTolerationsThatUsersHave(const json& users, json* ours) {
  const json& theirs = At(At(users, "spec"), "tolerations");
  if (!theirs.is_array()) return;
  json& own = (*ours)["spec"]["tolerations"];
  json kept = json::array();
  for (const json& mine : own) {
    bool said = false;
    for (const json& item : theirs) said = said || At(item, "key") == mine["key"];
    if (!said) kept.push_back(mine);
  }
  own = std::move(kept);
}

void DropExport(json* users) {
  const json& containers = At(At(*users, "spec"), "containers");
  if (!containers.is_array()) return;
  std::erase_if((*users)["spec"]["containers"].get_ref<json::array_t&>(),
                [](const json& container) { return At(container, "name") == kExport; });
}

}  // namespace

absl::Status MergeInto(json* base, const json& patch, const std::string& path) {
  return MergeObject(base, patch, path);
}

json UsersExport(const json& users) {
  json shared = json::object();
  const json& annotations = At(At(users, "metadata"), "annotations");
  for (auto item = annotations.begin(); annotations.is_object() && item != annotations.end();
       ++item)
    if (absl::StartsWith(item.key(), kOfVolumes))
      shared["metadata"]["annotations"][item.key()] = *item;
  const json& spec = At(users, "spec");
  for (const char* field : kSharedWithExport)
    if (Says(spec, field)) shared["spec"][field] = spec[field];
  const json& nodes = At(At(spec, "affinity"), "nodeAffinity");  // ranks repel and attract ranks
  if (nodes.is_object()) shared["spec"]["affinity"]["nodeAffinity"] = nodes;
  const json& containers = At(spec, "containers");
  for (auto container = containers.begin(); containers.is_array() && container != containers.end();
       ++container)
    if (At(*container, "name") == kExport) shared["spec"]["containers"].push_back(*container);
  return shared;
}

absl::StatusOr<json> UsersTemplate(const Spec& spec, const Override* override) {
  json merged = spec.pod_template.is_object() ? spec.pod_template : json::object();
  if (override == nullptr) return merged;
  const json& theirs = At(At(override->pod_template, "spec"), "containers");
  for (auto container = theirs.begin(); theirs.is_array() && container != theirs.end(); ++container)
    if (At(*container, "name") == kExport)
      return Bad("overrides[" + override->name + "].template.spec.containers[export]",
                 "is of no rank; set it in spec.template");
  const auto merge = [&](const json& patch) { return MergeObject(&merged, patch, "template"); };
  if (override->pod_template.is_object())
    if (absl::Status status = merge(override->pod_template); !status.ok()) return status;
  if (override->node_selector.is_object())
    if (absl::Status status = merge({{"spec", {{"nodeSelector", override->node_selector}}}});
        !status.ok())
      return status;
  if (override->tolerations.is_array())
    if (absl::Status status = merge({{"spec", {{"tolerations", override->tolerations}}}});
        !status.ok())
      return status;
  if (!override->resources.is_object()) return merged;
  // In place of the template's, not merged: half of one's limits with half of another's is neither.
  json stage{{"name", kStage}, {"resources", nullptr}};
  for (const bool clear : {true, false}) {
    if (!clear) stage["resources"] = override->resources;
    json patch{{"spec", {{"containers", json::array({stage})}}}};
    if (absl::Status status = merge(patch); !status.ok()) return status;
  }
  return merged;
}

absl::StatusOr<json> MergeTemplate(const json& users, json ours) {
  if (users.is_null() || (users.is_object() && users.empty())) return ours;
  if (!users.is_object()) return Bad("template", "must be an object with fields");
  if (absl::Status status = CheckUsers(users, ours); !status.ok()) return status;
  DropTolerationsThatUsersHave(users, &ours);
  json for_ranks = users;
  DropExport(&for_ranks);
  if (absl::Status status = MergeObject(&ours, for_ranks, "template"); !status.ok()) return status;
  return ours;
}

}  // namespace echelon::op
