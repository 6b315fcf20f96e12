// Reads untrusted JSON without exceptions: every accessor is total. The first fault is kept (it
// names the file and the subject being read); after it, accessors return empty values, so that a
// caller checks ok() once per loop.
#ifndef ECHELON_RUNTIME_GRAPH_JSON_READER_H_
#define ECHELON_RUNTIME_GRAPH_JSON_READER_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace echelon::graph {

using Json = nlohmann::json;

// Refuses text nested deeper than max_depth, and text that is no JSON; `where` names it in the
// error.
absl::StatusOr<Json> ParseJson(std::string_view text, int max_depth, const std::string& where);

class JsonReader {
 public:
  explicit JsonReader(std::string where) : where_(std::move(where)) {}

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }
  void Fail(const std::string& what);
  // What is being read, for messages: "node linear_1".
  void set_subject(std::string subject) { subject_ = std::move(subject); }

  // Members of an object. Find: null when absent or JSON's null. The others fail when the member is
  // missing or of another kind.
  const Json* Find(const Json& object, const char* key) const;
  const Json& At(const Json& object, const char* key);
  const Json& Array(const Json& object, const char* key);   // empty array on failure
  const Json& Object(const Json& object, const char* key);  // empty object on failure
  const std::string& String(const Json& object, const char* key);
  int64_t Int(const Json& object, const char* key) { return AsInt(At(object, key), key); }
  bool Bool(const Json& object, const char* key) { return AsBool(At(object, key), key); }

  // Values themselves; `what` names them in the error.
  int64_t AsInt(const Json& value, const std::string& what);
  bool AsBool(const Json& value, const std::string& what);
  double AsDouble(const Json& value,
                  const std::string& what);  // also "Infinity", "-Infinity", "NaN"
  const std::string& AsString(const Json& value, const std::string& what);
  const Json& AsArray(const Json& value, const std::string& what);

  // A union of the schema: an object of one member, {"as_int": 4}.
  struct Union {
    const std::string& tag;
    const Json& value;
  };
  Union AsUnion(const Json& value, const std::string& what);

 private:
  std::string where_, subject_;
  absl::Status status_;
};

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_JSON_READER_H_
