// How the fake API server merges an applied object into a stored one: who set which field, lists
// with keys.
#ifndef ECHELON_TESTS_OPERATOR_KUBE_FAKE_MERGE_H_
#define ECHELON_TESTS_OPERATOR_KUBE_FAKE_MERGE_H_

#include <set>
#include <string>

#include "nlohmann/json.hpp"

namespace echelon::op {

using Json = nlohmann::json;
using Fields = std::set<std::string>;  // paths of leaves: "spec/containers/[name=stage]/image"

// The leaves that an object sets, without its identity (kind, name, version, ...).
Fields FieldsOf(const Json& object);
// Those whose value differs in `after`, or that are new there.
Fields ChangedFields(const Json& before, const Json& after);

// `live` with all of `applied` over it; lists with keys (containers, env, conditions, ...) element
// by element.
Json Merged(const Json& live, const Json& applied);

// Takes these leaves away, and what becomes empty by it.
void RemoveFields(Json& object, const Fields& fields);

}  // namespace echelon::op

#endif  // ECHELON_TESTS_OPERATOR_KUBE_FAKE_MERGE_H_
