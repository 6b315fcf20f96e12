// Revisions, names, and which ranks share a StatefulSet.
#include <algorithm>
#include <iterator>
#include <set>

#include "absl/strings/str_cat.h"
#include "operator/render/digest.h"
#include "operator/render/parts.h"
#include "operator/render/render.h"

namespace echelon::op {
namespace {

using nlohmann::json;

constexpr size_t kHashDigits = 8;

// The image that a pod template gives the container `stage`, or "".
std::string StageImage(const json& pod_template) {
  const json::json_pointer path("/spec/containers");
  if (!pod_template.is_object() || !pod_template.contains(path)) return "";
  const json& containers = pod_template[path];
  if (!containers.is_array()) return "";
  for (const json& container : containers) {
    if (!container.is_object() || !container.contains("name") || container["name"] != kStage ||
        !container.contains("image") || !container["image"].is_string())
      continue;
    return container["image"].get<std::string>();
  }
  return "";
}

// What a rank's override changes about its pod. Memory and speed are the plan's, which every rank
// knows whole.
json PodPart(const Override* override) {
  if (override == nullptr) return json::array({nullptr, nullptr, nullptr, nullptr});
  return json::array({override->resources, override->node_selector, override->tolerations,
                      override->pod_template});
}

}  // namespace

Revision MakeRevision(const Spec& spec, std::string_view runtime_image,
                      std::string_view exporter_image) {
  std::string image = StageImage(spec.pod_template);
  if (image.empty()) image = runtime_image;
  return RevisionFromData({{"spec", RevisionSpec(spec)},
                           {"image", image},
                           {"exporterImage", std::string(exporter_image)}});
}

Revision RevisionFromData(const json& data) {
  Revision revision{.hash = Digest(data, kHashDigits), .data = data};
  const auto text = [&](const char* key) {
    if (!data.is_object() || !data.contains(key) || !data[key].is_string()) return std::string();
    return data[key].get<std::string>();
  };
  revision.image = text("image");
  revision.exporter_image = text("exporterImage");
  return revision;
}

Spec SpecAt(const Deployment& d, const Revision& revision) {
  if (!revision.data.is_object() || !revision.data.contains("spec")) return d.spec;
  return WithRevisionSpec(d.spec, revision.data["spec"]);
}

std::string ExportedPath(const Model& model) {
  if (!model.is_directory()) return "";
  const json depends_on{model.path, model.dtype, model.max_model_len, model.revision};
  return absl::StrCat(model.path, "/.echelon/", Digest(depends_on, kHashDigits), ".pt2");
}

const Override* OverrideOf(const Spec& spec, int rank) {
  for (const Override& override : spec.overrides)
    if (rank >= override.first_rank && rank < override.first_rank + override.count)
      return &override;
  return nullptr;
}

std::vector<Run> EqualRuns(const Spec& spec) {
  // Pods can differ only where an override begins or ends.
  std::set<int> bounds{0, spec.parallelism.stages};
  for (const Override& override : spec.overrides) {
    bounds.insert(override.first_rank);
    bounds.insert(std::min(override.first_rank + override.count, spec.parallelism.stages));
  }
  std::vector<Run> runs;
  json before;
  for (auto bound = bounds.begin(); std::next(bound) != bounds.end(); ++bound) {
    if (*bound >= spec.parallelism.stages) break;
    const int count = *std::next(bound) - *bound;
    json part = PodPart(OverrideOf(spec, *bound));
    if (runs.empty() || part != before) {
      runs.push_back({.first = *bound, .count = count});
    } else {
      runs.back().count += count;
    }
    before = std::move(part);
  }
  return runs;
}

std::string SetName(const Deployment& d, const Revision& revision, int group, int first_rank) {
  return absl::StrCat(d.name, "-", revision.hash6(), "-", group, "-", first_rank);
}

std::string PodName(const Deployment& d, const Revision& revision, int group, int rank) {
  const Spec spec = SpecAt(d, revision);
  int first = 0;
  for (const Run& run : EqualRuns(spec))
    if (run.first <= rank) first = run.first;
  return absl::StrCat(SetName(d, revision, group, first), "-", rank);
}

std::string JobName(const Deployment& d, const Revision& revision) {
  return absl::StrCat(d.name, "-", revision.hash, "-export");
}

}  // namespace echelon::op
