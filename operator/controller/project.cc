#include "operator/controller/project.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "operator/reconcile/failure.h"
#include "operator/reconcile/words.h"

namespace echelon::op {
namespace {

using nlohmann::json;

constexpr size_t kMaxText = 512;  // of a message that is kept
constexpr int kMaxDepth = 4;      // of a head's answer: {ranks: [{...}]}
constexpr int64_t kMaxRanks = 1024, kMaxJoins = 1 << 30;

const json& At(const json& from, std::initializer_list<const char*> path) {
  static const json kNothing;
  const json* at = &from;
  for (const char* name : path) {
    if (!at->is_object()) return kNothing;
    const auto found = at->find(name);
    if (found == at->end()) return kNothing;
    at = &*found;
  }
  return *at;
}

std::string Text(const json& from, std::initializer_list<const char*> path) {
  const json& value = At(from, path);
  if (!value.is_string()) return "";
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() <= kMaxText) return text;
  size_t end = kMaxText;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // whole UTF-8
  return text.substr(0, end);
}

int64_t Number(const json& from, std::initializer_list<const char*> path, int64_t absent = 0) {
  const json& value = At(from, path);
  return value.is_number_integer() ? value.get<int64_t>() : absent;
}

absl::Time Moment(const json& from, std::initializer_list<const char*> path) {
  absl::Time time;
  std::string error;
  const json& value = At(from, path);
  if (!value.is_string()) return absl::InfinitePast();
  if (!absl::ParseTime(absl::RFC3339_full, value.get_ref<const std::string&>(), &time, &error)) {
    return absl::InfinitePast();
  }
  return time;
}

int LabelNumber(const json& object, const char* label) {
  int number = 0;
  return absl::SimpleAtoi(Text(object, {"metadata", "labels", label}), &number) ? number : 0;
}

// The owner that controls it, as {kind, uid}.
std::pair<std::string, std::string> Controller(const json& object) {
  const json& owners = At(object, {"metadata", "ownerReferences"});
  if (!owners.is_array()) return {};
  for (const json& owner : owners) {
    const json& controls = At(owner, {"controller"});
    if (controls.is_boolean() && controls.get<bool>()) {
      return {Text(owner, {"kind"}), Text(owner, {"uid"})};
    }
  }
  return {};
}

bool Deleting(const json& object) {
  return At(object, {"metadata", "deletionTimestamp"}).is_string();
}

OwnedObject Owned(const json& object, std::string_view kind) {
  return {.kind = std::string(kind),
          .name = Text(object, {"metadata", "name"}),
          .uid = Text(object, {"metadata", "uid"}),
          .owner_uid = Controller(object).second,
          .applied = Text(object, {"metadata", "annotations", "echelon.dev/applied"}),
          .deleting = Deleting(object)};
}

const json& ConditionOf(const json& object, std::string_view type) {
  static const json kNothing;
  const json& conditions = At(object, {"status", "conditions"});
  if (!conditions.is_array()) return kNothing;
  for (const json& condition : conditions) {
    if (Text(condition, {"type"}) == type) return condition;
  }
  return kNothing;
}

bool IsTrue(const json& condition) { return Text(condition, {"status"}) == "True"; }

void ReadTermination(const json& terminated, PodView* pod) {
  if (!terminated.is_object()) return;
  const absl::Time at = Moment(terminated, {"finishedAt"});
  if (!pod->terminated_reason.empty() && at < pod->terminated_at) return;
  pod->terminated_reason = Text(terminated, {"reason"});
  pod->terminated_message = Text(terminated, {"message"});
  pod->terminated_exit_code = static_cast<int>(Number(terminated, {"exitCode"}));
  pod->terminated_at = at;
}

// What a container other than "stage" waits for, in words.
std::string Beside(const json& status) {
  std::string text = absl::StrCat("container ", Text(status, {"name"}));
  PodView last;
  ReadTermination(At(status, {"lastState", "terminated"}), &last);
  if (!last.terminated_reason.empty()) {
    absl::StrAppend(&text, ", ",
                    Count(static_cast<int>(Number(status, {"restartCount"})), "restart"), ", last ",
                    Termination(last));
  }
  return absl::StrCat(text, ": ", Text(status, {"state", "waiting", "message"}));
}

void ReadContainers(const json& object, PodView* pod) {
  const json& containers = At(object, {"status", "containerStatuses"});
  const json& inits = At(object, {"status", "initContainerStatuses"});
  for (const json* statuses : {&inits, &containers}) {
    if (!statuses->is_array()) continue;
    for (const json& status : *statuses) {
      const bool is_stage = statuses == &containers && Text(status, {"name"}) == "stage";
      const std::string reason = Text(status, {"state", "waiting", "reason"});
      const bool waits =
          !reason.empty() && reason != "PodInitializing" && reason != "ContainerCreating";
      if (waits && (is_stage || pod->waiting_reason.empty())) {
        pod->waiting_reason = reason;
        pod->waiting_message =
            is_stage ? Text(status, {"state", "waiting", "message"}) : Beside(status);
        pod->waiting_beside = !is_stage;
      }
      if (!is_stage) continue;
      pod->restarts = static_cast<int>(Number(status, {"restartCount"}));
      ReadTermination(At(status, {"lastState", "terminated"}), pod);
      ReadTermination(At(status, {"state", "terminated"}), pod);
    }
  }
}

// Of the moments at which the pod's kubelet has written, the newest.
absl::Time ReportedAt(const json& object) {
  absl::Time at = Moment(ConditionOf(object, "ContainersReady"), {"lastTransitionTime"});
  const json& statuses = At(object, {"status", "containerStatuses"});
  if (!statuses.is_array()) return at;
  for (const json& status : statuses) {
    for (const char* state : {"state", "lastState"}) {
      at = std::max({at, Moment(status, {state, "running", "startedAt"}),
                     Moment(status, {state, "terminated", "startedAt"}),
                     Moment(status, {state, "terminated", "finishedAt"})});
    }
  }
  return at;
}

}  // namespace

OwnedObject OwnedObjectFromJson(std::string_view kind, const json& object) {
  return Owned(object, kind);
}

RevisionView RevisionFromJson(const json& object) {
  RevisionView view;
  static_cast<OwnedObject&>(view) = Owned(object, "ControllerRevision");
  view.number = Number(object, {"revision"});
  view.data = At(object, {"data"});
  return view;
}

JobView JobFromJson(const json& object) {
  JobView job;
  static_cast<OwnedObject&>(job) = Owned(object, "Job");
  job.succeeded = static_cast<int>(Number(object, {"status", "succeeded"}));
  job.failed = static_cast<int>(Number(object, {"status", "failed"}));
  job.complete = IsTrue(ConditionOf(object, "Complete"));
  const json& failed = ConditionOf(object, "Failed");
  job.gave_up = IsTrue(failed);
  if (job.gave_up) job.message = Text(failed, {"message"});
  return job;
}

SetView SetFromJson(const json& object) {
  SetView set;
  static_cast<OwnedObject&>(set) = Owned(object, "StatefulSet");
  set.revision = Text(object, {"metadata", "labels", "echelon.dev/revision"});
  set.group = LabelNumber(object, "echelon.dev/group");
  set.first_rank = static_cast<int>(Number(object, {"spec", "ordinals", "start"}));
  set.replicas = static_cast<int>(Number(object, {"spec", "replicas"}, 1));
  set.created = Moment(object, {"metadata", "creationTimestamp"});
  return set;
}

PodView PodFromJson(const json& object) {
  PodView pod;
  pod.name = Text(object, {"metadata", "name"});
  pod.uid = Text(object, {"metadata", "uid"});
  pod.set_uid = Controller(object).second;
  pod.revision = Text(object, {"metadata", "labels", "echelon.dev/revision"});
  pod.group = LabelNumber(object, "echelon.dev/group");
  pod.rank = LabelNumber(object, "apps.kubernetes.io/pod-index");
  pod.node = Text(object, {"spec", "nodeName"});
  pod.ip = Text(object, {"status", "podIP"});
  pod.phase = Text(object, {"status", "phase"});
  pod.ready = IsTrue(ConditionOf(object, "Ready"));
  const json& scheduled = ConditionOf(object, "PodScheduled");
  pod.scheduled = !pod.node.empty() || IsTrue(scheduled);
  if (!pod.scheduled && Text(scheduled, {"status"}) == "False") {
    pod.unscheduled_message = Text(scheduled, {"message"});
  }
  pod.deleting = Deleting(object);
  pod.created = Moment(object, {"metadata", "creationTimestamp"});
  pod.deletion = Moment(object, {"metadata", "deletionTimestamp"});
  pod.grace = absl::Seconds(Number(object, {"metadata", "deletionGracePeriodSeconds"}));
  const json& disrupted = ConditionOf(object, "DisruptionTarget");
  pod.taint_evicted = IsTrue(disrupted) && Text(disrupted, {"reason"}) == "DeletionByTaintManager";
  if (pod.taint_evicted) pod.taint_evicted_at = Moment(disrupted, {"lastTransitionTime"});
  pod.reported_at = ReportedAt(object);
  ReadContainers(object, &pod);
  return pod;
}

ClaimView ClaimFromJson(const json& object) {
  ClaimView claim{.name = Text(object, {"metadata", "name"}),
                  .bound = Text(object, {"status", "phase"}) == "Bound"};
  const json& modes = At(object, {"spec", "accessModes"});
  if (!modes.is_array()) return claim;
  for (const json& mode : modes) {
    if (mode.is_string()) claim.access_modes.push_back(mode.get<std::string>());
  }
  return claim;
}

WarningView WarningFromJson(const json& object) {
  return {.kind = Text(object, {"involvedObject", "kind"}),
          .object = Text(object, {"involvedObject", "name"}),
          .reason = Text(object, {"reason"}),
          .message = Text(object, {"message"}),
          .last_seen = std::max({Moment(object, {"lastTimestamp"}), Moment(object, {"eventTime"}),
                                 Moment(object, {"series", "lastObservedTime"}),
                                 Moment(object, {"firstTimestamp"})})};
}

const Parts& Unread(std::string_view kind) {
  constexpr Part kManaged{"metadata", "managedFields"}, kSpec{"", "spec"}, kStatus{"", "status"};
  static const Parts any{kManaged}, metadata{kManaged, kSpec, kStatus}, job{kManaged, kSpec},
      set{kManaged, {"spec", "template"}, kStatus},
      pod{kManaged,
          {"spec", "containers"},
          {"spec", "initContainers"},
          {"spec", "volumes"},
          {"spec", "affinity"},
          {"spec", "topologySpreadConstraints"},
          {"spec", "tolerations"}};
  if (kind == "Pod") return pod;
  if (kind == "StatefulSet") return set;
  if (kind == "Job") return job;
  const bool is_standing =
      kind == "Service" || kind == "PodDisruptionBudget" || kind == "NetworkPolicy";
  return is_standing ? metadata : any;
}

absl::StatusOr<HeadView> HeadFromText(std::string_view body) {
  // What lies deeper than an answer of ours does is passed over while it is read, not kept.
  const auto keep = [](int depth, json::parse_event_t, json&) { return depth <= kMaxDepth; };
  const json answer = json::parse(body, keep, /*allow_exceptions=*/false);
  if (!answer.is_object() || !At(answer, {"ranks"}).is_array()) {
    return absl::InvalidArgumentError("its /status is no answer of a head");
  }
  HeadView head;
  head.epoch = Number(answer, {"epoch"});
  head.formed = At(answer, {"formed"}) == true;
  head.draining = At(answer, {"draining"}) == true;
  for (const json& rank : At(answer, {"ranks"})) {
    if (head.ranks.size() >= kMaxRanks) break;
    const int64_t number = Number(rank, {"rank"}, -1);
    if (number < 0 || number >= kMaxRanks) continue;
    head.ranks.push_back(
        {.rank = static_cast<int>(number),
         .phase = Text(rank, {"phase"}),
         .incarnation = Text(rank, {"incarnation"}),
         .loaded_bytes = std::max<int64_t>(0, Number(rank, {"loadedBytes"})),
         .total_bytes = std::max<int64_t>(0, Number(rank, {"totalBytes"})),
         .joins = static_cast<int>(std::clamp<int64_t>(Number(rank, {"joins"}), 0, kMaxJoins)),
         .last_error = Text(rank, {"lastError"})});
  }
  return head;
}

}  // namespace echelon::op
