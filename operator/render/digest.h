#ifndef ECHELON_OPERATOR_RENDER_DIGEST_H_
#define ECHELON_OPERATOR_RENDER_DIGEST_H_

#include <nlohmann/json.hpp>
#include <string>

namespace echelon::op {

// The first `digits` (at most 64) hex digits of SHA-256 over canonical JSON: keys sorted, no
// spaces.
std::string Digest(const nlohmann::json& value, size_t digits);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RENDER_DIGEST_H_
