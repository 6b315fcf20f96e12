// Paths and selectors as the API server reads them.
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "tests/operator/kube/fake_store.h"

namespace echelon::op {
namespace {

std::string Decoded(const std::string& text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      decoded += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

std::string Trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(' '), last = text.find_last_not_of(' ');
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

// Commas outside of parentheses part requirements.
std::vector<std::string> Requirements(const std::string& selector) {
  std::vector<std::string> all;
  std::string one;
  int depth = 0;
  for (const char c : selector) {
    depth += (c == '(') - (c == ')');
    if (c == ',' && depth == 0) {
      all.push_back(Trimmed(one));
      one.clear();
    } else {
      one += c;
    }
  }
  if (!Trimmed(one).empty()) all.push_back(Trimmed(one));
  return all;
}

// value: nullptr where there is none. One of: a=b a==b a!=b a !a, a in (b, c), a notin (b).
bool Holds(const std::string& requirement,
           const std::function<const std::string*(const std::string&)>& value_of) {
  if (const size_t in = requirement.find(" in ("), notin = requirement.find(" notin (");
      in != std::string::npos || notin != std::string::npos) {
    const size_t at = std::min(in, notin), open = requirement.find('(');
    const std::string* value = value_of(Trimmed(requirement.substr(0, at)));
    bool found = false;
    const std::string list = requirement.substr(open + 1, requirement.rfind(')') - open - 1);
    for (const std::string& one : std::vector<std::string>(absl::StrSplit(list, ','))) {
      found |= value != nullptr && *value == Trimmed(one);
    }
    return found == (in != std::string::npos);
  }
  const size_t equals = requirement.find('=');
  if (equals == std::string::npos) {
    return requirement.starts_with("!") ? value_of(requirement.substr(1)) == nullptr
                                        : value_of(requirement) != nullptr;
  }
  const bool differs = equals > 0 && requirement[equals - 1] == '!';
  const std::string name = Trimmed(requirement.substr(0, equals - (differs ? 1 : 0)));
  const size_t begin = requirement.find_first_not_of("= ", equals);
  const std::string wanted = begin == std::string::npos ? "" : requirement.substr(begin);
  const std::string* value = value_of(name);
  return (value != nullptr && *value == wanted) != differs;
}

const std::string* TextAt(const Json& object, const std::string& dotted) {
  const Json* at = &object;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(dotted, '.'))) {
    if (!at->is_object() || !at->contains(part)) return nullptr;
    at = &(*at)[part];
  }
  return at->is_string() ? &at->get_ref<const std::string&>() : nullptr;
}

}  // namespace

Target Target::Of(const std::string& path) {
  Target target;
  const size_t mark = path.find('?');
  std::vector<std::string> parts = absl::StrSplit(path.substr(0, mark), '/', absl::SkipEmpty());
  for (std::string& part : parts) part = Decoded(part);
  size_t at = 0;
  const auto next = [&] { return at < parts.size() ? parts[at++] : std::string(); };
  const bool core = next() == "api";
  target.group_version = next();
  if (!core) target.group_version += "/" + next();
  // /namespaces/NAME itself has no more than a subresource after it.
  if (at + 2 < parts.size() && parts[at] == "namespaces" && parts[at + 2] != "status" &&
      parts[at + 2] != "finalize") {
    ++at;
    target.ns = next();
  }
  target.plural = next();
  target.name = next();
  target.subresource = next();
  if (mark == std::string::npos) return target;
  for (const std::string& pair :
       std::vector<std::string>(absl::StrSplit(path.substr(mark + 1), '&'))) {
    const size_t equals = pair.find('=');
    target.query[pair.substr(0, equals)] =
        equals == std::string::npos ? "" : Decoded(pair.substr(equals + 1));
  }
  return target;
}

std::string Target::Param(const std::string& name) const {
  const auto found = query.find(name);
  return found == query.end() ? "" : found->second;
}

bool Filter::Has(const Json& object) const {
  const Json& meta = object["metadata"];
  if (!ns.empty() && meta.value("namespace", "") != ns) return false;
  for (const std::string& one : Requirements(label_selector)) {
    const auto label = [&](const std::string& name) -> const std::string* {
      const auto labels = meta.find("labels");
      if (labels == meta.end() || !labels->contains(name)) return nullptr;
      return &(*labels)[name].get_ref<const std::string&>();
    };
    if (!Holds(one, label)) return false;
  }
  for (const std::string& one : Requirements(field_selector)) {
    static const std::string kEmpty;  // an absent field compares as ""
    const auto field = [&](const std::string& name) {
      const std::string* text = TextAt(object, name);
      return text == nullptr ? &kEmpty : text;
    };
    if (!Holds(one, field)) return false;
  }
  return true;
}

}  // namespace echelon::op
