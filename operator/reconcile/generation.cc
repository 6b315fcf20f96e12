#include "operator/reconcile/generation.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"

namespace echelon::op {
namespace {

constexpr size_t kHashLength = 8;
constexpr size_t kKeptForRollback = 3;

bool IsOurs(const Deployment& wanted, const OwnedObject& object) {
  return object.owner_uid == wanted.uid && !object.deleting;
}

std::string TextIn(const nlohmann::json& data, const char* field) {
  const auto found = data.find(field);
  return found != data.end() && found->is_string() ? found->get<std::string>() : "";
}

const nlohmann::json* SpecIn(const RevisionView& view) {
  if (!view.data.is_object()) return nullptr;
  const auto spec = view.data.find("spec");
  return spec != view.data.end() && spec->is_object() ? &*spec : nullptr;
}

Generation Recorded(const Deployment& wanted, const RevisionView& view) {
  Generation generation{.number = view.number, .recorded = true};
  generation.revision = {.hash = HashInName(wanted, view.name),
                         .data = view.data,
                         .image = TextIn(view.data, "image"),
                         .exporter_image = TextIn(view.data, "exporterImage")};
  return generation;
}

void FillRuns(const Spec& spec, Generation* generation) {
  generation->runs = EqualRuns(spec);
  generation->ranks = std::max(1, spec.parallelism.stages);
}

Generation Wanted(const Deployment& wanted, const Observed& observed, const Settings& settings) {
  const nlohmann::json spec = RevisionSpec(wanted.spec);
  const RevisionView* match = nullptr;
  int64_t newest = 0;
  for (const RevisionView& view : observed.revisions) {
    newest = std::max(newest, view.number);
    if (!IsOurs(wanted, view) || HashInName(wanted, view.name).empty()) continue;
    const nlohmann::json* recorded = SpecIn(view);
    if (recorded == nullptr || *recorded != spec) continue;
    if (match == nullptr || match->number < view.number) match = &view;
  }
  Generation generation;
  if (match != nullptr) {
    generation = Recorded(wanted, *match);
  } else {
    generation.revision =
        MakeRevision(wanted.spec, settings.runtime_image, settings.exporter_image);
    generation.number = newest + 1;
  }
  FillRuns(wanted.spec, &generation);
  return generation;
}

Generation Past(const Deployment& wanted, const Observed& observed, const std::string& hash) {
  for (const RevisionView& view : observed.revisions) {
    if (!IsOurs(wanted, view) || HashInName(wanted, view.name) != hash) continue;
    if (SpecIn(view) == nullptr) break;
    Generation generation = Recorded(wanted, view);
    FillRuns(SpecAt(wanted, generation.revision), &generation);
    return generation;
  }
  return {.revision = {.hash = hash}};
}

}  // namespace

std::string HashInName(const Deployment& wanted, const std::string& name) {
  const size_t prefix = wanted.name.size() + 1;
  if (name.size() < prefix + kHashLength || !absl::StartsWith(name, wanted.name) ||
      name[prefix - 1] != '-') {
    return "";
  }
  const std::string rest = name.substr(prefix + kHashLength);
  return rest.empty() || rest == "-export" ? name.substr(prefix, kHashLength) : "";
}

Generations FindGenerations(const Deployment& wanted, const Observed& observed,
                            const Settings& settings) {
  Generations generations;
  if (wanted.invalid_reason.empty()) {
    Generation now = Wanted(wanted, observed, settings);
    generations.wanted_hash = now.revision.hash;
    generations.by_hash.emplace(generations.wanted_hash, std::move(now));
  } else {
    // What cannot be served has no revision: what runs goes on as the last one that was wanted.
    generations.wanted_hash = wanted.status.update_revision;
  }
  for (const SetView& set : observed.sets) {
    if (!IsOurs(wanted, set) || generations.by_hash.contains(set.revision)) continue;
    generations.by_hash.emplace(set.revision, Past(wanted, observed, set.revision));
  }
  generations.by_hash.try_emplace(generations.wanted_hash,
                                  Generation{.revision = {.hash = generations.wanted_hash}});
  return generations;
}

std::vector<const OwnedObject*> Outdated(const Deployment& wanted, const Observed& observed,
                                         const Generations& generations) {
  std::set<std::string> needed;
  for (const auto& [hash, generation] : generations.by_hash) needed.insert(hash);
  for (const PodView& pod : observed.pods) needed.insert(pod.revision);

  std::vector<const RevisionView*> idle;
  for (const RevisionView& view : observed.revisions) {
    const std::string hash = HashInName(wanted, view.name);
    if (IsOurs(wanted, view) && !hash.empty() && !needed.contains(hash)) idle.push_back(&view);
  }
  std::sort(idle.begin(), idle.end(), [](const RevisionView* a, const RevisionView* b) {
    return a->number != b->number ? a->number > b->number : a->name < b->name;
  });
  std::vector<const OwnedObject*> outdated;
  for (size_t i = 0; i < idle.size(); ++i) {
    if (i < kKeptForRollback) {
      needed.insert(HashInName(wanted, idle[i]->name));
    } else {
      outdated.push_back(idle[i]);
    }
  }
  for (const JobView& job : observed.jobs) {
    const std::string hash = HashInName(wanted, job.name);
    if (IsOurs(wanted, job) && !hash.empty() && !needed.contains(hash)) outdated.push_back(&job);
  }
  return outdated;
}

}  // namespace echelon::op
