#include "operator/kube/list_page.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace echelon::op {
namespace {

using nlohmann::json;

absl::Status NoJson(const char* what, std::string_view text) {
  return absl::DataLossError(absl::StrCat("the server sent ", what,
                                          " that is no JSON: ", std::string(text.substr(0, 100))));
}

}  // namespace

absl::StatusOr<PageEnd> ReadPage(std::string_view text, const Parts& without,
                                 const std::function<void(json item)>& on_item) {
  PageEnd end;
  const json list = Skim(text, without, ObjectAt::kItems, [&](json item) {
    ++end.items;
    on_item(std::move(item));
  });
  if (!list.is_object() || !list.contains("metadata")) return NoJson("a list", text);
  end.version = MetaText(list, "resourceVersion");
  end.token = MetaText(list, "continue");
  return end;
}

absl::StatusOr<WatchLine> ReadWatchLine(std::string_view line, const Parts& without) {
  json event = Skim(line, without, ObjectAt::kMember);
  if (!event.is_object() || !event.contains("type") || !event["type"].is_string() ||
      !event.contains("object") || !event["object"].is_object()) {
    return NoJson("a watch event", line);
  }
  return WatchLine{event["type"].get<std::string>(), std::move(event["object"])};
}

std::string MetaText(const json& object, const char* field) {
  const auto meta = object.find("metadata");
  if (meta == object.end() || !meta->is_object()) return "";
  const auto value = meta->find(field);
  return value == meta->end() || !value->is_string() ? "" : value->get<std::string>();
}

std::string KeyOf(const json& object) {
  const std::string ns = MetaText(object, "namespace"), name = MetaText(object, "name");
  return ns.empty() || name.empty() ? name : absl::StrCat(ns, "/", name);
}

}  // namespace echelon::op
