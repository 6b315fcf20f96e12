#include "operator/api/fields.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace echelon::op {
namespace {

using nlohmann::json;

const json& Null() {
  static const json* null = new json();
  return *null;
}

const json& ObjectOrNull(const json& value) { return value.is_object() ? value : Null(); }

// A value short enough for a message.
std::string Shown(const json& value) {
  constexpr size_t kLongest = 60;
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > kLongest) text = absl::StrCat(text.substr(0, kLongest), "...");
  return text;
}

// As a schema counts them: code points of UTF-8.
size_t Characters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char byte) { return (byte & 0xC0) != 0x80; }));
}

}  // namespace

Fields::Fields(const json& object, std::string path, Problems* problems)
    : object_(ObjectOrNull(object)), path_(std::move(path)), problems_(problems) {
  if (!object.is_object() && !object.is_null())
    problems_->wrong.push_back(
        absl::StrCat(path_, " is ", Shown(object), "; it must be an object with fields"));
}

Fields::~Fields() {
  if (!object_.is_object()) return;
  for (auto field = object_.begin(); field != object_.end(); ++field)
    if (known_.count(field.key()) == 0) problems_->unknown.push_back(PathOf(field.key()));
}

std::string Fields::PathOf(std::string_view key) const {
  std::string path = path_;
  path += '.';
  path += key;
  return path;
}

const json& Fields::At(const char* key) {
  known_.insert(key);
  if (!object_.is_object()) return Null();
  const auto found = object_.find(key);
  return found == object_.end() ? Null() : *found;
}

bool Fields::Has(const char* key) { return !At(key).is_null(); }

Fields Fields::Child(const char* key) { return Fields(At(key), PathOf(key), problems_); }

std::vector<json> Fields::Items(const char* key, size_t max_items) {
  const json& value = At(key);
  if (value.is_null()) return {};
  if (!value.is_array()) {
    Wrong(key, "a list");
    return {};
  }
  if (value.size() > max_items) {
    problems_->wrong.push_back(absl::StrCat(PathOf(key), " has ", value.size(),
                                            " items; there may be at most ", max_items));
    return {};
  }
  return value.get_ref<const json::array_t&>();
}

void Fields::Wrong(std::string_view key, std::string_view must) {
  const auto found = object_.find(std::string(key));
  problems_->wrong.push_back(absl::StrCat(PathOf(key), " is ",
                                          found == object_.end() ? "missing" : Shown(*found),
                                          "; it must be ", std::string(must)));
}

void Fields::Read(const char* key, bool* value) {
  const json& found = At(key);
  if (found.is_null()) return;
  if (!found.is_boolean()) return Wrong(key, "true or false");
  *value = found.get<bool>();
}

void Fields::Read(const char* key, int64_t* value, int64_t min, int64_t max) {
  const json& found = At(key);
  if (found.is_null()) return;
  const bool fits = found.is_number_unsigned()
                        ? max >= 0 && found.get<uint64_t>() <= static_cast<uint64_t>(max)
                        : found.is_number_integer() && found.get<int64_t>() <= max;
  if (!fits || found.get<int64_t>() < min)
    return Wrong(key, absl::StrCat("an integer from ", min, " to ", max));
  *value = found.get<int64_t>();
}

void Fields::Read(const char* key, int* value, int min, int max) {
  int64_t wide = *value;
  Read(key, &wide, static_cast<int64_t>(min), static_cast<int64_t>(max));
  *value = static_cast<int>(wide);
}

void Fields::Read(const char* key, double* value, double min, double max) {
  const json& found = At(key);
  if (found.is_null()) return;
  if (!found.is_number() || !(found.get<double>() >= min && found.get<double>() <= max))
    return Wrong(key, absl::StrCat("a number from ", min, " to ", max));
  *value = found.get<double>();
}

void Fields::Read(const char* key, std::string* value, size_t max_length) {
  const json& found = At(key);
  if (found.is_null()) return;
  if (!found.is_string()) return Wrong(key, "a string");
  if (Characters(found.get_ref<const std::string&>()) > max_length)
    return Wrong(key, absl::StrCat("at most ", max_length, " characters long"));
  *value = found.get<std::string>();
}

void Fields::Read(const char* key, std::string* value, std::initializer_list<const char*> choices) {
  const json& found = At(key);
  if (found.is_null()) return;
  for (const char* choice : choices) {
    if (found == choice) {
      *value = choice;
      return;
    }
  }
  Wrong(key, absl::StrCat("one of ", absl::StrJoin(choices, ", ")));
}

void Fields::ReadObject(const char* key, json* value) {
  const json& found = At(key);
  if (found.is_null()) return;
  if (!found.is_object()) return Wrong(key, "an object with fields");
  *value = found;
}

void Fields::ReadArray(const char* key, json* value) {
  const json& found = At(key);
  if (found.is_null()) return;
  bool right = found.is_array();
  if (right)
    for (const json& item : found) right = right && item.is_object();
  if (!right) return Wrong(key, "a list of objects");
  *value = found;
}

void Fields::ReadStringsByName(const char* key, json* value) {
  const json& found = At(key);
  if (found.is_null()) return;
  bool right = found.is_object();
  if (right)
    for (const json& item : found) right = right && item.is_string();
  if (!right) return Wrong(key, "an object of strings; put numbers in quotes");
  *value = found;
}

void Fields::Require(const char* key) {
  if (!Has(key)) problems_->wrong.push_back(absl::StrCat(PathOf(key), " is missing"));
}

}  // namespace echelon::op
