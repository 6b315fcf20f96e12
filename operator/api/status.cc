#include <algorithm>
#include <limits>
#include <string_view>

#include "operator/api/deployment.h"

namespace echelon::op {
namespace {

using nlohmann::json;

// The CRD's bounds. Whoever fills in a status need not know them: it can always be written.
constexpr size_t kMaxGroups = 512, kMaxRanks = 2048, kMaxConditions = 16, kMaxFailures = 16;
constexpr size_t kWord = 32, kLabel = 63, kReason = 128, kNode = 253, kEndpoint = 320,
                 kMessage = 1024;

// Bytes of the UTF-8 character that begins with this byte; 0 when none does.
size_t LengthOf(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead >= 0xf5) return 0;
  return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

// Cut to a number of bytes, never within a character; what is no UTF-8 becomes '?'.
std::string Cut(const std::string& text, size_t longest) {
  std::string clean;
  for (size_t i = 0; i < text.size();) {
    const size_t length = LengthOf(static_cast<unsigned char>(text[i]));
    bool whole = length > 0 && i + length <= text.size();
    for (size_t k = 1; whole && k < length; ++k)
      whole = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
    const std::string character = whole ? text.substr(i, length) : "?";
    if (clean.size() + character.size() > longest) break;
    clean += character;
    i += whole ? length : 1;
  }
  return clean;
}

void Put(json* object, const char* key, const std::string& value, size_t longest) {
  if (!value.empty()) (*object)[key] = Cut(value, longest);
}
void Put(json* object, const char* key, int64_t value) {
  if (value != 0) (*object)[key] = value;
}

std::string TimeText(absl::Time time) {
  return absl::FormatTime("%Y-%m-%d%ET%H:%M:%SZ", time, absl::UTCTimeZone());
}

const char* TextOf(Truth truth) {
  switch (truth) {
    case Truth::kTrue:
      return "True";
    case Truth::kFalse:
      return "False";
    case Truth::kUnknown:
      return "Unknown";
  }
  return "Unknown";
}

json ToJson(const GroupState& group) {
  json object{{"name", Cut(group.name, kLabel)}};
  Put(&object, "revision", group.revision, kLabel);
  Put(&object, "ready", group.ready, kWord);
  Put(&object, "epoch", group.epoch);
  if (group.waiting_since) object["waitingSince"] = TimeText(*group.waiting_since);
  if (group.retry_at) object["retryAt"] = TimeText(*group.retry_at);
  Put(&object, "attempts", group.attempts);
  return object;
}

json ToJson(const RankState& rank) {
  json object{{"pod", Cut(rank.pod, kLabel)}, {"rank", rank.rank}};
  Put(&object, "group", rank.group, kLabel);
  Put(&object, "node", rank.node, kNode);
  Put(&object, "phase", rank.phase, kWord);
  Put(&object, "loadedBytes", rank.loaded_bytes);
  Put(&object, "totalBytes", rank.total_bytes);
  Put(&object, "restarts", rank.restarts);
  Put(&object, "lastError", rank.last_error, kMessage);
  return object;
}

json ToJson(const Condition& condition) {
  json object{{"type", Cut(condition.type, kLabel)},
              {"status", TextOf(condition.status)},
              {"reason", Cut(condition.reason, kReason)},
              {"message", Cut(condition.message, kMessage)},
              {"lastTransitionTime", TimeText(condition.last_transition)}};
  Put(&object, "observedGeneration", condition.observed_generation);
  return object;
}

json ToJson(const Failure& failure) {
  json object{{"at", TimeText(failure.at)}};
  Put(&object, "pod", failure.pod, kLabel);
  Put(&object, "message", failure.message, kMessage);
  if (failure.count != 1) object["count"] = failure.count;
  return object;
}

// At most `most` of them, from the front or (newest last) from the back.
template <typename T>
void PutList(json* object, const char* key, const std::vector<T>& list, size_t most,
             bool keep_last = false) {
  const size_t count = std::min(list.size(), most);
  const size_t first = keep_last ? list.size() - count : 0;
  for (size_t i = 0; i < count; ++i) (*object)[key].push_back(ToJson(list[first + i]));
}

// ---- Reading ------------------------------------------------------------------------------------

std::string Text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

int64_t Number(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_integer()) return 0;
  if (found->is_number_unsigned() && found->get<uint64_t>() > INT64_MAX) return 0;
  return found->get<int64_t>();
}

int Int(const json& object, const char* key) {
  const int64_t number = Number(object, key);
  const bool fits =
      number >= std::numeric_limits<int>::min() && number <= std::numeric_limits<int>::max();
  return fits ? static_cast<int>(number) : 0;
}

std::optional<absl::Time> Time(const json& object, const char* key) {
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, Text(object, key), &time, &error)) return std::nullopt;
  if (time == absl::InfiniteFuture() || time == absl::InfinitePast()) return std::nullopt;
  return time;
}

// The objects in a list; anything else reads as absent.
std::vector<json> Objects(const json& object, const char* key) {
  std::vector<json> objects;
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) return objects;
  for (const json& item : *found)
    if (item.is_object()) objects.push_back(item);
  return objects;
}

GroupState GroupFrom(const json& object) {
  return {.name = Text(object, "name"),
          .revision = Text(object, "revision"),
          .ready = Text(object, "ready"),
          .epoch = Number(object, "epoch"),
          .waiting_since = Time(object, "waitingSince"),
          .retry_at = Time(object, "retryAt"),
          .attempts = Int(object, "attempts")};
}

RankState RankFrom(const json& object) {
  return {.pod = Text(object, "pod"),
          .group = Text(object, "group"),
          .rank = Int(object, "rank"),
          .node = Text(object, "node"),
          .phase = Text(object, "phase"),
          .loaded_bytes = Number(object, "loadedBytes"),
          .total_bytes = Number(object, "totalBytes"),
          .restarts = Int(object, "restarts"),
          .last_error = Text(object, "lastError")};
}

Condition ConditionFrom(const json& object) {
  const std::string status = Text(object, "status");
  return {.type = Text(object, "type"),
          .status = status == "True"    ? Truth::kTrue
                    : status == "False" ? Truth::kFalse
                                        : Truth::kUnknown,
          .reason = Text(object, "reason"),
          .message = Text(object, "message"),
          .observed_generation = Number(object, "observedGeneration"),
          .last_transition = Time(object, "lastTransitionTime").value_or(absl::Time())};
}

}  // namespace

json ToJson(const Status& status) {
  json object{{"observedGeneration", status.observed_generation},
              {"replicas", status.replicas},
              {"readyReplicas", status.ready_replicas}};
  Put(&object, "selector", status.selector, kMessage);
  Put(&object, "currentRevision", status.current_revision, kLabel);
  Put(&object, "updateRevision", status.update_revision, kLabel);
  Put(&object, "endpoint", status.endpoint, kEndpoint);
  Put(&object, "ready", status.ready, kWord);
  Put(&object, "reason", status.reason, kReason);
  PutList(&object, "groups", status.groups, kMaxGroups);
  PutList(&object, "ranks", status.ranks, kMaxRanks);
  PutList(&object, "conditions", status.conditions, kMaxConditions);
  PutList(&object, "failures", status.failures, kMaxFailures, /*keep_last=*/true);
  if (status.progress_at) object["progressAt"] = TimeText(*status.progress_at);
  return object;
}

Status StatusFromJson(const json& object) {
  Status status;
  if (!object.is_object()) return status;
  status.observed_generation = Number(object, "observedGeneration");
  status.replicas = Int(object, "replicas");
  status.ready_replicas = Int(object, "readyReplicas");
  status.selector = Text(object, "selector");
  status.current_revision = Text(object, "currentRevision");
  status.update_revision = Text(object, "updateRevision");
  status.endpoint = Text(object, "endpoint");
  status.ready = Text(object, "ready");
  status.reason = Text(object, "reason");
  for (const json& group : Objects(object, "groups")) status.groups.push_back(GroupFrom(group));
  for (const json& rank : Objects(object, "ranks")) status.ranks.push_back(RankFrom(rank));
  for (const json& condition : Objects(object, "conditions"))
    status.conditions.push_back(ConditionFrom(condition));
  for (const json& failure : Objects(object, "failures"))
    status.failures.push_back({.at = Time(failure, "at").value_or(absl::Time()),
                               .pod = Text(failure, "pod"),
                               .message = Text(failure, "message"),
                               .count = std::max(1, Int(failure, "count"))});
  status.progress_at = Time(object, "progressAt");
  return status;
}

}  // namespace echelon::op
