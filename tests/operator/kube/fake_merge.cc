#include "tests/operator/kube/fake_merge.h"

#include <string_view>
#include <utility>
#include <vector>

namespace echelon::op {
namespace {

// What tells elements of a list apart, by the list's name; none: the list is one value.
std::vector<std::string> KeysOf(std::string_view list) {
  static constexpr std::string_view kByName[] = {"containers", "initContainers",  "env", "volumes",
                                                 "groups",     "imagePullSecrets"};
  for (const std::string_view name : kByName) {
    if (list == name) return {"name"};
  }
  if (list == "ports") return {"containerPort", "port", "protocol"};
  if (list == "volumeMounts") return {"mountPath"};
  if (list == "conditions") return {"type"};
  if (list == "ownerReferences") return {"uid"};
  if (list == "ranks") return {"pod"};
  if (list == "topologySpreadConstraints") return {"topologyKey", "whenUnsatisfiable"};
  return {};
}

// "[name=stage]"; "" where the element has none of its list's keys.
std::string KeyOf(std::string_view list, const Json& element) {
  if (!element.is_object()) return "";
  std::string key;
  for (const std::string& name : KeysOf(list)) {
    const auto value = element.find(name);
    if (value == element.end()) continue;
    key += (key.empty() ? "" : ",") + name + "=";
    key += value->is_string() ? value->get<std::string>() : value->dump();
  }
  return key.empty() ? "" : "[" + key + "]";
}

bool HasKeys(std::string_view name, const Json& value) {
  if (!value.is_array() || value.empty()) return false;
  for (const Json& element : value) {
    if (KeyOf(name, element).empty()) return false;
  }
  return true;
}

// "/" in a name (labels, annotations) would end it in a path.
std::string Escaped(const std::string& name) {
  std::string escaped;
  for (const char c : name) escaped += c == '/' ? '\1' : c;
  return escaped;
}

void Collect(const std::string& name, const Json& value, const std::string& path, Fields& fields) {
  if (value.is_object() && !value.empty()) {
    for (const auto& [key, child] : value.items()) {
      Collect(key, child, path + "/" + Escaped(key), fields);
    }
  } else if (HasKeys(name, value)) {
    for (const Json& element : value) {
      Collect("", element, path + "/" + Escaped(KeyOf(name, element)), fields);
    }
  } else {
    fields.insert(path);
  }
}

void CollectChanged(const std::string& name, const Json* before, const Json& after,
                    const std::string& path, Fields& fields) {
  if (before != nullptr && *before == after) return;
  if (after.is_object() && !after.empty()) {
    for (const auto& [key, child] : after.items()) {
      const Json* old = before != nullptr && before->is_object() && before->contains(key)
                            ? &(*before)[key]
                            : nullptr;
      CollectChanged(key, old, child, path + "/" + Escaped(key), fields);
    }
  } else if (HasKeys(name, after)) {
    for (const Json& element : after) {
      const Json* old = nullptr;
      const std::string key = KeyOf(name, element);
      for (size_t i = 0; before != nullptr && before->is_array() && i < before->size(); ++i) {
        if (KeyOf(name, (*before)[i]) == key) old = &(*before)[i];
      }
      CollectChanged("", old, element, path + "/" + Escaped(key), fields);
    }
  } else {
    fields.insert(path);
  }
}

Json WithoutIdentity(Json object) {
  object.erase("apiVersion");
  object.erase("kind");
  if (const auto meta = object.find("metadata"); meta != object.end() && meta->is_object()) {
    for (const char* name : {"name", "generateName", "namespace", "uid", "resourceVersion",
                             "generation", "creationTimestamp", "managedFields"}) {
      meta->erase(name);
    }
    if (meta->empty()) object.erase("metadata");
  }
  return object;
}

Json MergedValue(const std::string& name, const Json& live, const Json& applied) {
  if (live.is_object() && applied.is_object()) {
    Json merged = live;
    for (const auto& [key, value] : applied.items()) {
      const auto old = live.find(key);
      if (value.is_null()) {
        merged.erase(key);
      } else {
        merged[key] = old == live.end() ? value : MergedValue(key, *old, value);
      }
    }
    return merged;
  }
  if (!live.is_array() || !HasKeys(name, applied) || !(live.empty() || HasKeys(name, live))) {
    return applied;
  }
  Json merged = live;
  for (const Json& element : applied) {
    const std::string key = KeyOf(name, element);
    bool found = false;
    for (Json& old : merged) {
      if (KeyOf(name, old) != key) continue;
      old = MergedValue("", old, element);
      found = true;
    }
    if (!found) merged.push_back(element);
  }
  return merged;
}

// True: nothing is left of the value.
bool Prune(const std::string& name, Json& value, const std::string& path, const Fields& gone) {
  if (gone.contains(path)) return true;
  // Only look where something goes: the first path not before this one must lie below it.
  const auto below = gone.lower_bound(path + "/");
  if (below == gone.end() || !below->starts_with(path + "/")) return false;
  if (value.is_object()) {
    std::vector<std::string> empty;
    for (auto& [key, child] : value.items()) {
      if (Prune(key, child, path + "/" + Escaped(key), gone)) empty.push_back(key);
    }
    for (const std::string& key : empty) value.erase(key);
    return value.empty();
  }
  if (!HasKeys(name, value)) return false;
  Json kept = Json::array();
  for (Json& element : value) {
    if (!Prune("", element, path + "/" + Escaped(KeyOf(name, element)), gone)) {
      kept.push_back(std::move(element));
    }
  }
  value = std::move(kept);
  return value.empty();
}

}  // namespace

Fields FieldsOf(const Json& object) {
  Fields fields;
  const Json rest = WithoutIdentity(object);
  if (!rest.empty()) Collect("", rest, "", fields);
  return fields;
}

Fields ChangedFields(const Json& before, const Json& after) {
  Fields fields;
  const Json old = WithoutIdentity(before), now = WithoutIdentity(after);
  if (!now.empty()) CollectChanged("", &old, now, "", fields);
  return fields;
}

Json Merged(const Json& live, const Json& applied) { return MergedValue("", live, applied); }

void RemoveFields(Json& object, const Fields& fields) {
  if (!fields.empty()) Prune("", object, "", fields);
}

}  // namespace echelon::op
