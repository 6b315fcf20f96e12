// Objects out of what the server sends, one at a time: a page of 250 pods is megabytes, as a whole
// tree ten times that.
#ifndef ECHELON_OPERATOR_KUBE_LIST_PAGE_H_
#define ECHELON_OPERATOR_KUBE_LIST_PAGE_H_

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "operator/kube/skim.h"

namespace echelon::op {

struct PageEnd {
  std::string version, token;
  int items = 0;
};

// Calls on_item for each item as it is parsed, then forgets it. An error: the text is no list; some
// items may have been given away before.
absl::StatusOr<PageEnd> ReadPage(std::string_view text, const Parts& without,
                                 const std::function<void(nlohmann::json item)>& on_item);

struct WatchLine {
  std::string type;  // ADDED, MODIFIED, DELETED, BOOKMARK, ERROR
  nlohmann::json object;
};
absl::StatusOr<WatchLine> ReadWatchLine(std::string_view line, const Parts& without);

// "NAMESPACE/NAME" or "NAME"; "" where the object has no name.
std::string KeyOf(const nlohmann::json& object);
// metadata.FIELD, or "".
std::string MetaText(const nlohmann::json& object, const char* field);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_LIST_PAGE_H_
