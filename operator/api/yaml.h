// YAML as JSON, for what people write by hand and the API server takes.
#ifndef ECHELON_OPERATOR_API_YAML_H_
#define ECHELON_OPERATOR_API_YAML_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace echelon::op {

// The documents of a text, empty ones left out. Plain scalars have the types of YAML 1.2's core
// schema: "yes" and "on" are strings, 0o17 and 0x1f are numbers. JSON is YAML too.
// INVALID_ARGUMENT names line and column: bad syntax, a key twice, merge keys (<<), .inf and .nan,
// tags of programs, documents of more than 100,000 values or 64 levels, however they come about.
absl::StatusOr<std::vector<nlohmann::json>> ParseYaml(const std::string& text);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_API_YAML_H_
