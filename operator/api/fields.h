// Reading an object's fields one by one. What is wrong is noted with the field's path, and the
// value stays as it was: a default.
#ifndef ECHELON_OPERATOR_API_FIELDS_H_
#define ECHELON_OPERATOR_API_FIELDS_H_

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace echelon::op {

struct Problems {
  std::vector<std::string> wrong;    // "spec.replicas is \"two\"; it must be an integer"
  std::vector<std::string> unknown;  // paths of fields that nobody read
};

class Fields {
 public:
  // A value that is absent or null reads as an empty object; `object` outlives this.
  Fields(const nlohmann::json& object, std::string path, Problems* problems);
  ~Fields();  // notes the fields that were never asked for
  Fields(const Fields&) = delete;
  Fields& operator=(const Fields&) = delete;

  bool Has(const char* key);
  const nlohmann::json& At(const char* key);  // null when absent
  Fields Child(const char* key);              // of an object
  std::vector<nlohmann::json> Items(const char* key, size_t max_items);
  std::string PathOf(std::string_view key) const;

  void Read(const char* key, bool* value);
  void Read(const char* key, int* value, int min, int max);
  void Read(const char* key, int64_t* value, int64_t min, int64_t max);
  void Read(const char* key, double* value, double min, double max);
  void Read(const char* key, std::string* value, size_t max_length);
  void Read(const char* key, std::string* value, std::initializer_list<const char*> choices);
  void ReadObject(const char* key, nlohmann::json* value);         // null or object
  void ReadArray(const char* key, nlohmann::json* value);          // null or array of objects
  void ReadStringsByName(const char* key, nlohmann::json* value);  // null or object of strings
  void Require(const char* key);                                   // present
  void Wrong(std::string_view key, std::string_view must);

 private:
  const nlohmann::json& object_;
  const std::string path_;
  Problems* const problems_;
  std::set<std::string, std::less<>> known_;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_API_FIELDS_H_
