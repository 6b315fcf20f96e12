#include "operator/reconcile/refusal.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "operator/reconcile/objects.h"
#include "operator/reconcile/reasons.h"
#include "operator/reconcile/words.h"

namespace echelon::op {
namespace {

// The first object under one of our names that is not ours; null: none.
const OwnedObject* Foreign(const Pass& pass) {
  const Deployment& wanted = pass.wanted;
  const Observed& observed = pass.observed;
  const Revision& revision = pass.generations.wanted().revision;
  const auto foreign = [&](const OwnedObject& object) { return object.owner_uid != wanted.uid; };
  for (const OwnedObject& object : observed.objects) {
    const bool ours = object.name == wanted.name ||
                      (object.kind == "Service" && object.name == wanted.name + "-ranks");
    if (ours && foreign(object)) return &object;
  }
  for (const RevisionView& view : observed.revisions) {
    if (foreign(view) && HashInName(wanted, view.name) == revision.hash) return &view;
  }
  for (const JobView& job : observed.jobs) {
    if (foreign(job) && wanted.spec.model.is_directory() &&
        HashInName(wanted, job.name) == revision.hash) {
      return &job;
    }
  }
  const std::string sets = absl::StrCat(wanted.name, "-", revision.hash6(), "-");
  for (const SetView& set : observed.sets) {
    if (foreign(set) && absl::StartsWith(set.name, sets)) return &set;
  }
  return nullptr;
}

std::optional<Cause> NameTaken(const Pass& pass) {
  const OwnedObject* object = Foreign(pass);
  if (object == nullptr) return std::nullopt;
  return Cause{reason::kNameTaken,
               OneLine(absl::StrCat(object->kind, " ", object->name, " exists and is not of this ",
                                    kKind, "; delete it, or choose another name"))};
}

std::optional<Cause> VolumeNotShared(const Pass& pass) {
  const Spec& spec = pass.wanted.spec;
  const int ranks = std::max(0, spec.replicas) * spec.parallelism.stages;
  if (spec.model.source.type != SourceType::kPvc || ranks <= 1) return std::nullopt;
  for (const ClaimView& claim : pass.observed.claims) {
    if (claim.name != spec.model.source.claim_name || claim.access_modes.empty()) continue;
    const bool shared = std::any_of(claim.access_modes.begin(), claim.access_modes.end(),
                                    [](const std::string& mode) {
                                      return mode != "ReadWriteOnce" && mode != "ReadWriteOncePod";
                                    });
    if (shared) continue;
    return Cause{reason::kVolumeNotShared,
                 absl::StrCat("claim ", claim.name, " is ", claim.access_modes.front(), ", but ",
                              Count(ranks, "rank"),
                              " need it; use a claim that is ReadOnlyMany or ReadWriteMany")};
  }
  return std::nullopt;
}

// Templates cannot be checked by the schema. Looked at before the first group of a revision, so
// that no old group goes for one that can never come.
std::optional<Cause> InvalidTemplate(const Pass& pass) {
  const auto& groups = pass.fleet.groups;
  if (std::any_of(groups.begin(), groups.end(), [](const Group& g) { return g.wanted_revision; })) {
    return std::nullopt;
  }
  const Generation& generation = pass.generations.wanted();
  const std::string sets = absl::StrCat(pass.wanted.name, "-", generation.revision.hash6(), "-");
  for (const WarningView& warning : pass.observed.warnings) {
    if (warning.kind == "StatefulSet" && warning.reason == reason::kInvalidTemplate &&
        absl::StartsWith(warning.object, sets)) {
      return Cause{reason::kInvalidTemplate, OneLine(warning.message)};
    }
  }
  const Spec& spec = pass.wanted.spec;
  if (!spec.pod_template.is_object() && spec.overrides.empty()) return std::nullopt;
  const absl::Status made = MakeSets(pass, generation, 0, generation.runs, nullptr);
  if (made.ok()) return std::nullopt;
  return Cause{reason::kInvalidTemplate, OneLine(made.message())};
}

}  // namespace

std::optional<Cause> FindRefusal(const Pass& pass) {
  const Deployment& wanted = pass.wanted;
  if (!wanted.invalid_reason.empty()) return Cause{wanted.invalid_reason, wanted.invalid_message};
  if (wanted.spec.suspend) return std::nullopt;  // nothing is made anyway, and pods may go
  for (const auto& look : {NameTaken, VolumeNotShared, InvalidTemplate}) {
    if (std::optional<Cause> cause = look(pass)) return cause;
  }
  return std::nullopt;
}

}  // namespace echelon::op
