#include "operator/api/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace echelon::op {
namespace {

using nlohmann::json;

constexpr int kMaxValues = 100'000;  // aliases make few bytes into many values
constexpr size_t kMaxDepth = 64;
constexpr char kCoreTag[] = "tag:yaml.org,2002:";

absl::Status Bad(const YAML::Mark& mark, const std::string& what) {
  if (mark.is_null()) return absl::InvalidArgumentError(what);
  return absl::InvalidArgumentError(
      absl::StrCat("line ", mark.line + 1, ", column ", mark.column + 1, ": ", what));
}

bool IsOneOf(const std::string& text, std::initializer_list<const char*> words) {
  for (const char* word : words)
    if (text == word) return true;
  return false;
}

std::optional<json> Integer(const std::string& text, size_t begin, int base) {
  const char *first = text.data() + begin, *last = text.data() + text.size();
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(first, last, number, base);
  if (first == last || end != last || error != std::errc()) return std::nullopt;
  return json(number);
}

// [-+]? ( digits [. digits]? | . digits ) ( e [-+]? digits )?
bool LooksLikeNumber(const std::string& text) {
  size_t i = text.find_first_of("+-") == 0 ? 1 : 0;
  const auto digits = [&] {
    const size_t from = i;
    while (i < text.size() && absl::ascii_isdigit(text[i])) ++i;
    return i - from;
  };
  size_t count = digits();
  if (i < text.size() && text[i] == '.') {
    ++i;
    count += digits();
  }
  if (count == 0) return false;
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    ++i;
    if (i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
    if (digits() == 0) return false;
  }
  return i == text.size();
}

// YAML 1.2.2, section 10.3.2: the tag resolution of plain scalars.
absl::StatusOr<json> Plain(const std::string& text, const YAML::Mark& mark) {
  if (IsOneOf(text, {"", "~", "null", "Null", "NULL"})) return json(nullptr);
  if (IsOneOf(text, {"true", "True", "TRUE"})) return json(true);
  if (IsOneOf(text, {"false", "False", "FALSE"})) return json(false);
  if (absl::StartsWith(text, "0o"))
    if (const auto number = Integer(text, 2, 8)) return *number;
  if (absl::StartsWith(text, "0x"))
    if (const auto number = Integer(text, 2, 16)) return *number;
  const std::string unsigned_text = text.substr(text.find_first_of("+-") == 0 ? 1 : 0);
  if (IsOneOf(unsigned_text, {".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"}))
    return Bad(mark, absl::StrCat("'", text, "' has no place in JSON; write a finite number"));
  if (!LooksLikeNumber(text)) return json(text);
  if (text.find_first_of(".eE") == std::string::npos) {
    int64_t number = 0;
    if (absl::SimpleAtoi(text, &number)) return json(number);
  }
  double number = 0;
  if (!absl::SimpleAtod(text, &number) || !std::isfinite(number))
    return Bad(mark, absl::StrCat("'", text, "' is too large a number"));
  return json(number);
}

// Values that an alias copies count again.
int CountValues(const json& value) {
  int count = 1;
  if (value.is_structured())
    for (const json& item : value) count += CountValues(item);
  return count;
}

// Builds JSON from the parser's events. After an error it lets events pass, and status() says it.
class Builder final : public YAML::EventHandler {
 public:
  const absl::Status& status() const { return status_; }
  std::vector<json>& documents() { return documents_; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    // yaml-cpp 0.7 makes documents without end of a stray ',' that it never steps over.
    if (mark.pos <= last_start_) Fail(mark, "this is no beginning of a document");
    last_start_ = mark.pos;
    anchors_.clear();
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (WantsKey()) return Fail(mark, "a field's name must be a word");
    Add(mark, json(nullptr), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (WantsKey()) return Fail(mark, "a field's name must be a word");
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) return Fail(mark, "an alias of what it is part of");
    values_ += CountValues(found->second) - 1;
    if (values_ > kMaxValues) return TooMany(mark);
    Add(mark, found->second, YAML::NullAnchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    if (!status_.ok()) return;
    if (WantsKey()) {
      if (text == "<<" && tag != "!")
        return Fail(mark, "merge keys (<<) are not of YAML 1.2; write the fields out");
      if (stack_.back().value.contains(text))
        return Fail(mark, absl::StrCat("field '", text, "' is there twice"));
      stack_.back().key = text;
      return;
    }
    absl::StatusOr<json> value = Scalar(mark, tag, text);
    if (!value.ok()) {
      status_ = value.status();
      return;
    }
    Add(mark, *std::move(value), anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, json::array());
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, json::object());
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Level {
    json value;
    std::optional<std::string> key;  // of an object, between it and its value
    YAML::anchor_t anchor;
    YAML::Mark mark;
  };

  void Fail(const YAML::Mark& mark, const std::string& what) {
    if (status_.ok()) status_ = Bad(mark, what);
  }
  void TooMany(const YAML::Mark& mark) {
    Fail(mark, absl::StrCat("more than ", kMaxValues, " values"));
  }

  bool WantsKey() const {
    return !stack_.empty() && stack_.back().value.is_object() && !stack_.back().key;
  }

  static absl::StatusOr<json> Scalar(const YAML::Mark& mark, const std::string& tag,
                                     const std::string& text) {
    if (tag == "!" || tag == absl::StrCat(kCoreTag, "str")) return json(text);
    const bool core = tag == "?" || tag.empty() ||
                      (absl::StartsWith(tag, kCoreTag) &&
                       IsOneOf(tag.substr(sizeof(kCoreTag) - 1), {"null", "bool", "int", "float"}));
    if (!core) return Bad(mark, absl::StrCat("tag ", tag, " is unknown; leave it out"));
    return Plain(text, mark);
  }

  void Open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, json value) {
    if (!status_.ok()) return;
    if (WantsKey()) return Fail(mark, "a field's name must be a word");
    if (tag.size() > 1 && !absl::StartsWith(tag, kCoreTag))
      return Fail(mark, absl::StrCat("tag ", tag, " is unknown; leave it out"));
    if (stack_.size() >= kMaxDepth)
      return Fail(mark, absl::StrCat("more than ", kMaxDepth, " levels"));
    stack_.push_back({std::move(value), std::nullopt, anchor, mark});
  }

  void Close() {
    if (!status_.ok() || stack_.empty()) return;
    Level done = std::move(stack_.back());
    stack_.pop_back();
    Add(done.mark, std::move(done.value), done.anchor);
  }

  void Add(const YAML::Mark& mark, json value, YAML::anchor_t anchor) {
    if (!status_.ok()) return;
    if (++values_ > kMaxValues) return TooMany(mark);
    if (anchor != YAML::NullAnchor) anchors_[anchor] = value;
    if (stack_.empty()) {
      if (!value.is_null()) documents_.push_back(std::move(value));
      return;
    }
    Level& parent = stack_.back();
    if (parent.value.is_array()) {
      parent.value.push_back(std::move(value));
      return;
    }
    parent.value[*parent.key] = std::move(value);
    parent.key.reset();
  }

  absl::Status status_;
  std::vector<json> documents_;
  std::vector<Level> stack_;
  std::map<YAML::anchor_t, json> anchors_;
  int values_ = 0;
  int last_start_ = -1;
};

}  // namespace

absl::StatusOr<std::vector<json>> ParseYaml(const std::string& text) {
  Builder builder;
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (builder.status().ok() && parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    return Bad(error.mark, error.msg);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
  if (!builder.status().ok()) return builder.status();
  return std::move(builder.documents());
}

}  // namespace echelon::op
