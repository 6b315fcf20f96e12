#include "runtime/graph/treespec.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "runtime/graph/status_macros.h"

namespace echelon::graph {
namespace {

constexpr int kMaxDepth = 200;
constexpr size_t kMaxNameBytes = 4096;
constexpr size_t kMaxAllNamesBytes = 64 << 20;

struct Key {
  std::string text;
  bool index = false;
};

class Namer {
 public:
  Namer(const std::string& where, const Json& namedtuples)
      : where_(where), reader_(std::string(where)), namedtuples_(namedtuples) {}

  absl::StatusOr<std::vector<std::string>> Run(const Json& spec) {
    reader_.set_subject("out_spec");
    const Json& pair = reader_.AsArray(spec, "out_spec");
    if (reader_.ok() && (pair.size() != 2 || pair[0] != 1)) reader_.Fail("its version is not 1");
    if (reader_.ok()) Walk(pair[1], "", true);
    if (!reader_.ok()) return reader_.status();
    return std::move(names_);
  }

 private:
  void Walk(const Json& spec, const std::string& prefix, bool top) {
    const Json& children = reader_.Array(spec, "children_spec");
    const Json* type = reader_.Find(spec, "type");
    if (!reader_.ok()) return;
    if (!type) return Add(prefix.empty() ? "output" : prefix);
    const std::vector<Key> keys = Keys(spec, reader_.AsString(*type, "type"), children.size());
    for (size_t i = 0; i < children.size() && reader_.ok(); ++i) {
      const bool numbered = top && keys[i].index;
      const std::string name = numbered         ? absl::StrCat("output_", keys[i].text)
                               : prefix.empty() ? keys[i].text
                                                : absl::StrCat(prefix, ".", keys[i].text);
      if (name.size() > kMaxNameBytes) return reader_.Fail("an output's name is too long");
      Walk(children[i], name, false);
    }
  }

  // Keys come in the context, itself JSON text: a list of keys (dict, ModelOutput), lists inside a
  // list (dataclass), or {"dict_context": [...]} (defaultdict). Sequences are numbered.
  std::vector<Key> Keys(const Json& spec, const std::string& type, size_t count) {
    std::vector<Key> keys;
    const bool sequence =
        type == "builtins.tuple" || type == "builtins.list" || type == "collections.deque";
    const Json* text = sequence ? nullptr : reader_.Find(spec, "context");
    if (text && type == "collections.namedtuple") {
      keys = FieldsOf(reader_.AsString(*text, "context"));
    } else if (text) {
      const auto context = ParseJson(reader_.AsString(*text, "context"), kMaxDepth, where_);
      if (context.ok()) keys = FromContext(*context);
    }
    if (keys.size() == count) return keys;
    keys.clear();
    for (size_t i = 0; i < count; ++i) keys.push_back({absl::StrCat(i), true});
    return keys;
  }

  // A namedtuple's context is its name; the fields stand in a table of the file.
  std::vector<Key> FieldsOf(const std::string& name) const {
    if (!namedtuples_.is_object()) return {};
    const Json* row = reader_.Find(namedtuples_, name.c_str());
    const Json* fields = row && row->is_object() ? reader_.Find(*row, "field_names") : nullptr;
    return fields ? FromContext(*fields) : std::vector<Key>();
  }

  std::vector<Key> FromContext(const Json& context) const {
    const Json* list = &context;
    if (const Json* inner = reader_.Find(context, "dict_context")) list = inner;
    if (list->is_array() && !list->empty() && list->front().is_array()) list = &list->front();
    std::vector<Key> keys;
    if (!list->is_array()) return keys;
    for (const Json& key : *list) {
      if (key.is_string())
        keys.push_back({key.get<std::string>()});
      else if (key.is_number_integer())
        keys.push_back({absl::StrCat(key.get<int64_t>()), true});
    }
    return keys;
  }

  void Add(const std::string& name) {
    if ((bytes_ += name.size()) > kMaxAllNamesBytes) return reader_.Fail("its names are too long");
    std::string unique = name;
    while (!taken_.insert(unique).second) unique = absl::StrCat(name, "_", ++copies_[name]);
    names_.push_back(std::move(unique));
  }

  const std::string where_;
  JsonReader reader_;
  const Json& namedtuples_;
  size_t bytes_ = 0;  // of all names: nesting repeats a key for each leaf under it
  std::vector<std::string> names_;
  absl::flat_hash_set<std::string> taken_;
  absl::flat_hash_map<std::string, int> copies_;  // of each name: the last number it was given
};

}  // namespace

absl::StatusOr<std::vector<std::string>> OutputNames(std::string_view out_spec,
                                                     const Json& namedtuples,
                                                     const std::string& where) {
  ECHELON_ASSIGN_OR_RETURN(const Json spec, ParseJson(out_spec, kMaxDepth, where));
  return Namer(where, namedtuples).Run(spec);
}

}  // namespace echelon::graph
