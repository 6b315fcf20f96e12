#include "operator/api/check.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace echelon::op {
namespace {

struct Refusal {
  const char* reason;
  std::string message;
};
using Refused = std::optional<Refusal>;

Refused CheckName(const std::string& name) {
  if (name.size() > kMaxNameLength)
    return Refusal{kNameTooLong,
                   absl::StrCat("metadata.name has ", name.size(), " characters; give at most ",
                                kMaxNameLength, ", because names of pods are made from it")};
  if (absl::EndsWith(name, "-ranks"))
    return Refusal{kInvalidName,
                   absl::StrCat("metadata.name '", name,
                                "' must not end with '-ranks': the Service of another "
                                "deployment's ranks is named so")};
  bool right = absl::ascii_islower(name.front()) && name.back() != '-';
  for (const char c : name)
    right = right && (absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-');
  if (right) return std::nullopt;
  return Refusal{kInvalidName, absl::StrCat("metadata.name '", name,
                                            "' must be of lower-case letters, digits and '-', and "
                                            "begin with a letter")};
}

Refused CheckPath(const std::string& path) {
  const auto bad = [](std::string_view why) {
    return Refusal{kBadPath, absl::StrCat("spec.model.path ", std::string(why))};
  };
  if (path.empty()) return bad("is empty");
  if (path.front() == '/') return bad("is relative to the volume: leave out the leading '/'");
  for (const absl::string_view part : absl::StrSplit(path, '/')) {
    if (part.empty()) return bad("has an empty part: write single slashes, none at the end");
    if (part == "." || part == "..") return bad("must not contain '.' or '..' as a part");
  }
  const bool plain = std::all_of(path.begin(), path.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || absl::StrContains("/._@+=~-", std::string(1, char(c)));
  });
  if (!plain) return bad("may have letters, digits and ._@+=~- only");
  if (path == ".pt2" || absl::EndsWith(path, "/.pt2")) return bad("names no file before '.pt2'");
  return std::nullopt;
}

Refused CheckModel(const Model& model) {
  if (Refused refused = CheckPath(model.path)) return refused;
  const ModelSource& source = model.source;
  const auto wrong = [](std::string message) { return Refusal{kInvalidSpec, std::move(message)}; };
  if (source.type == SourceType::kPvc && source.claim_name.empty())
    return wrong("spec.model.source.pvc.claimName is empty");
  if (source.type == SourceType::kImage && source.image.empty())
    return wrong("spec.model.source.image.reference is empty");
  if (source.type == SourceType::kHostPath &&
      (!absl::StartsWith(source.host_path, "/") ||
       absl::StrContains(absl::StrCat(source.host_path, "/"), "/../")))
    return wrong("spec.model.source.hostPath.path must be an absolute path without '..'");
  if (!model.is_directory() && (!model.dtype.empty() || model.max_model_len > 0))
    return wrong(
        "spec.model.dtype and maxModelLen belong to Hugging Face directories; a .pt2 file has them "
        "already");
  return std::nullopt;
}

// What the API has a place for, but no release can do yet.
Refused CheckSupported(const Spec& spec) {
  const auto refuse = [](std::string_view message) {
    return Refusal{kNotSupported, std::string(message)};
  };
  const Model& model = spec.model;
  if (model.source.type == SourceType::kHttps)
    return refuse("spec.model.source.type HTTPS is not built yet: use PVC, HostPath or Image");
  if (model.source.type == SourceType::kImage && model.is_directory())
    return refuse(
        "a Hugging Face directory in an image cannot be exported, because an image is read-only: "
        "use a PVC, or put a .pt2 file into the image");
  if (!model.digest.empty()) return refuse("spec.model.digest is not verified yet: leave it out");
  if (!model.secret.empty())
    return refuse("spec.model.secretRef is for downloads, which are not built yet: leave it out");
  if (spec.parallelism.stages == 0)
    return refuse("spec.parallelism.stages 0 (automatic) is not built yet: give a number from 1");
  if (spec.parallelism.ranks_per_pod > 1)
    return refuse("spec.parallelism.ranksPerPod above 1 is not built yet: leave it at 1");
  if (spec.scheduling.gang != "None")
    return refuse(
        "spec.scheduling.gang other than None is not built yet: groups are admitted one "
        "after another instead");
  if (spec.failure_policy.spares > 0)
    return refuse("spec.failurePolicy.spares above 0 is not built yet: leave it at 0");
  if (spec.pod_monitor)
    return refuse(
        "spec.observability.podMonitor is not built yet: the chart's podMonitor.enabled "
        "covers all deployments");
  return std::nullopt;
}

Refused CheckOverrides(const Spec& spec) {
  const auto wrong = [](std::string message) {
    return Refusal{kInvalidOverrides, std::move(message)};
  };
  std::vector<const Override*> by_rank;
  for (const Override& override : spec.overrides) {
    if (override.name.empty()) return wrong("an override has no name");
    if (override.first_rank + override.count > spec.parallelism.stages)
      return wrong(absl::StrCat("override ", override.name, " is for ranks ", override.first_rank,
                                " to ", override.first_rank + override.count - 1,
                                ", but ranks go from 0 to ", spec.parallelism.stages - 1));
    if (!override.memory.empty()) {
      const absl::StatusOr<int64_t> bytes = BytesOfQuantity(override.memory);
      if (!bytes.ok())
        return wrong(absl::StrCat("override ", override.name, ": memory ",
                                  std::string(bytes.status().message())));
    }
    by_rank.push_back(&override);
  }
  std::sort(by_rank.begin(), by_rank.end(),
            [](const Override* a, const Override* b) { return a->first_rank < b->first_rank; });
  for (size_t i = 1; i < by_rank.size(); ++i) {
    const Override &before = *by_rank[i - 1], &next = *by_rank[i];
    if (before.first_rank + before.count > next.first_rank)
      return wrong(absl::StrCat("overrides ", before.name, " and ", next.name, " both cover rank ",
                                next.first_rank));
    if (before.name == next.name)
      return wrong(absl::StrCat("two overrides are called ", next.name));
  }
  return std::nullopt;
}

Refused CheckRest(const Spec& spec) {
  if (spec.rollout.max_surge + spec.rollout.max_unavailable < 1)
    return Refusal{kInvalidSpec,
                   "spec.rollout: maxSurge or maxUnavailable must be at least 1, or nothing could "
                   "ever be replaced"};
  const std::vector<ServicePort>& ports = spec.service.ports;
  if (ports.empty()) return Refusal{kInvalidSpec, "spec.service.ports is empty"};
  if (ports.size() == 2 && (ports[0].name == ports[1].name || ports[0].port == ports[1].port))
    return Refusal{kInvalidSpec, "spec.service.ports: http and grpc need different ports"};
  return std::nullopt;
}

Refused FirstRefusal(const Deployment& deployment) {
  const Spec& spec = deployment.spec;
  if (Refused refused = CheckName(deployment.name)) return refused;
  if (Refused refused = CheckModel(spec.model)) return refused;
  if (Refused refused = CheckSupported(spec)) return refused;
  if (Refused refused = CheckOverrides(spec)) return refused;
  return CheckRest(spec);
}

}  // namespace

void Check(Deployment* deployment) {
  const Refused refused = FirstRefusal(*deployment);
  if (!refused) return;
  deployment->invalid_reason = refused->reason;
  deployment->invalid_message = refused->message;
}

}  // namespace echelon::op
