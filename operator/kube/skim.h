// Reads of an object's JSON what is wanted of it: the rest is passed over and takes no memory.
#ifndef ECHELON_OPERATOR_KUBE_SKIM_H_
#define ECHELON_OPERATOR_KUBE_SKIM_H_

#include <functional>
#include <string_view>
#include <vector>

#include "nlohmann/json.hpp"

namespace echelon::op {

// A member of an object, or of one of its members: {"", "status"}, {"spec", "template"}.
struct Part {
  std::string_view in, name;
};
using Parts = std::vector<Part>;

// Where the object is in the text: a plain answer is one, a watch event has one as a member, a list
// has many.
enum class ObjectAt { kTop = 1, kMember = 2, kItems = 3 };

// Discarded (is_discarded) where the text is no JSON. With kItems and on_item each element of the
// top's "items" is given away as soon as it is whole, and the array stays empty.
nlohmann::json Skim(std::string_view text, const Parts& without, ObjectAt at = ObjectAt::kTop,
                    const std::function<void(nlohmann::json item)>& on_item = nullptr);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_SKIM_H_
