#include "runtime/graph/json_reader.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "runtime/graph/byte_source.h"

namespace echelon::graph {
namespace {

const std::string kNoText;
const Json kNull;
const Json kNoArray = Json::array();
const Json kNoObject = Json::object();

// Nesting of brackets outside strings. The parser itself does not recurse, but those who walk its
// result do.
int Depth(std::string_view text) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

absl::StatusOr<Json> ParseJson(std::string_view text, int max_depth, const std::string& where) {
  if (Depth(text) > max_depth) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": JSON nested deeper than ", max_depth, " levels"));
  }
  Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    return absl::DataLossError(absl::StrCat(where, ": not valid JSON; the file is damaged"));
  }
  return json;
}

void JsonReader::Fail(const std::string& what) {
  if (!ok()) return;
  status_ = absl::InvalidArgumentError(
      absl::StrCat(where_, ": ", subject_, subject_.empty() ? "" : ": ", what));
}

const Json* JsonReader::Find(const Json& object, const char* key) const {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

const Json& JsonReader::At(const Json& object, const char* key) {
  if (const Json* found = Find(object, key)) return *found;
  Fail(absl::StrCat("\"", key, "\" is missing"));
  return kNull;
}

const Json& JsonReader::Array(const Json& object, const char* key) {
  return AsArray(At(object, key), key);
}

const Json& JsonReader::Object(const Json& object, const char* key) {
  const Json& value = At(object, key);
  if (value.is_object()) return value;
  Fail(absl::StrCat("\"", key, "\" is not an object"));
  return kNoObject;
}

const std::string& JsonReader::String(const Json& object, const char* key) {
  return AsString(At(object, key), key);
}

int64_t JsonReader::AsInt(const Json& value, const std::string& what) {
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return static_cast<int64_t>(number);
    }
  } else if (value.is_number_integer()) {
    return value.get<int64_t>();
  }
  Fail(absl::StrCat("\"", what, "\" is not a 64-bit integer"));
  return 0;
}

bool JsonReader::AsBool(const Json& value, const std::string& what) {
  if (value.is_boolean()) return value.get<bool>();
  Fail(absl::StrCat("\"", what, "\" is neither true nor false"));
  return false;
}

double JsonReader::AsDouble(const Json& value, const std::string& what) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (value.is_number()) return value.get<double>();
  if (value == "Infinity") return kInfinity;
  if (value == "-Infinity") return -kInfinity;
  if (value == "NaN") return std::numeric_limits<double>::quiet_NaN();
  Fail(absl::StrCat("\"", what, "\" is not a number"));
  return 0;
}

const std::string& JsonReader::AsString(const Json& value, const std::string& what) {
  if (value.is_string()) return value.get_ref<const std::string&>();
  Fail(absl::StrCat("\"", what, "\" is not a string"));
  return kNoText;
}

const Json& JsonReader::AsArray(const Json& value, const std::string& what) {
  if (value.is_array()) return value;
  Fail(absl::StrCat("\"", what, "\" is not a list"));
  return kNoArray;
}

JsonReader::Union JsonReader::AsUnion(const Json& value, const std::string& what) {
  if (value.is_object() && value.size() == 1) {
    const auto member = value.begin();
    return {member.key(), member.value()};
  }
  Fail(absl::StrCat("\"", what, "\" is not one tagged value"));
  return {kNoText, kNull};
}

}  // namespace echelon::graph
