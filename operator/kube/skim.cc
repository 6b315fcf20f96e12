#include "operator/kube/skim.h"

#include <algorithm>
#include <string>
#include <utility>

namespace echelon::op {
namespace {

using nlohmann::json;

// Builds a tree from the parser's events. The stack holds the containers that are open; an element
// of one is only added while it is the innermost, so that the pointers stay good.
class Skimmer final : public nlohmann::json_sax<json> {
 public:
  Skimmer(const Parts& without, ObjectAt at, const std::function<void(json)>& on_item)
      : without_(without), level_(static_cast<size_t>(at)), on_item_(on_item) {}

  bool null() override { return Scalar(nullptr); }
  bool boolean(bool value) override { return Scalar(value); }
  bool number_integer(number_integer_t value) override { return Scalar(value); }
  bool number_unsigned(number_unsigned_t value) override { return Scalar(value); }
  bool number_float(number_float_t value, const string_t&) override { return Scalar(value); }
  bool string(string_t& value) override { return Scalar(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // not in JSON

  bool key(string_t& name) override {
    if (passed_over_ > 0) return true;
    const size_t level = open_.size() - 1;
    if (names_.size() <= level) names_.resize(level + 1);
    names_[level] = std::move(name);
    pass_over_ = IsUnwanted();
    return true;
  }

  bool start_object(size_t) override { return Start(json::value_t::object); }
  bool start_array(size_t) override { return Start(json::value_t::array); }
  bool end_array() override { return End(); }
  bool end_object() override { return End(); }

  bool parse_error(size_t, const std::string&, const json::exception&) override { return false; }

  json Take() { return std::move(top_); }

 private:
  bool IsUnwanted() const {
    const size_t depth = open_.size();
    if (depth < level_ || depth > level_ + 1) return false;
    const std::string& name = names_[depth - 1];
    const std::string_view in = depth == level_ ? std::string_view() : names_[depth - 2];
    return std::any_of(without_.begin(), without_.end(),
                       [&](const Part& part) { return part.in == in && part.name == name; });
  }

  template <typename Value>
  bool Scalar(Value&& value) {
    if (passed_over_ > 0) return true;
    if (!std::exchange(pass_over_, false)) Add(json(std::forward<Value>(value)));
    return true;
  }

  bool Start(json::value_t type) {
    if (passed_over_ > 0 || std::exchange(pass_over_, false)) {
      ++passed_over_;
      return true;
    }
    open_.push_back(Add(json(type)));
    return true;
  }

  bool End() {
    if (passed_over_ > 0) {
      --passed_over_;
      return true;
    }
    open_.pop_back();
    const bool is_item = on_item_ && level_ == static_cast<size_t>(ObjectAt::kItems) &&
                         open_.size() == 2 && open_.back()->is_array() && names_[0] == "items";
    if (is_item) {
      json item = std::move(open_.back()->back());
      open_.back()->clear();
      on_item_(std::move(item));
    }
    return true;
  }

  json* Add(json value) {
    if (open_.empty()) {
      top_ = std::move(value);
      return &top_;
    }
    json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    json& member = parent[names_[open_.size() - 1]];
    member = std::move(value);
    return &member;
  }

  const Parts& without_;
  const size_t level_;  // of the object's own members
  const std::function<void(json)>& on_item_;
  json top_;
  std::vector<json*> open_;
  std::vector<std::string> names_;  // of the member that is being read, at each level
  bool pass_over_ = false;          // the value that comes next
  int passed_over_ = 0;             // containers that are open within what is passed over
};

}  // namespace

json Skim(std::string_view text, const Parts& without, ObjectAt at,
          const std::function<void(json)>& on_item) {
  Skimmer skimmer(without, at, on_item);
  if (!json::sax_parse(text, &skimmer)) return json(json::value_t::discarded);
  return skimmer.Take();
}

}  // namespace echelon::op
