#include "runtime/cli/deployment.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "operator/api/deployment.h"
#include "operator/render/deployment_file.h"
#include "operator/render/render.h"

namespace echelon {
namespace {

using nlohmann::json;

absl::StatusOr<op::Deployment> Choose(const DeploymentChoice& choice) {
  absl::StatusOr<std::vector<op::Deployment>> all = op::ReadDeploymentFile(choice.file);
  if (!all.ok()) return all.status();
  std::vector<std::string> names;
  for (op::Deployment& deployment : *all) {
    if (choice.name.empty() || deployment.name == choice.name) return std::move(deployment);
    names.push_back(deployment.name);
  }
  return absl::NotFoundError(absl::StrCat(choice.file, ": no PipelineDeployment '", choice.name,
                                          "'; there is ", absl::StrJoin(names, ", ")));
}

// Where the volume lies that the model's path is relative to.
absl::StatusOr<std::string> VolumeRoot(const op::ModelSource& source,
                                       const DeploymentChoice& choice) {
  if (!choice.model_dir.empty()) return choice.model_dir;
  switch (source.type) {
    case op::SourceType::kHostPath:
      return source.host_path;
    case op::SourceType::kPvc:
      return absl::FailedPreconditionError(
          absl::StrCat("its model lies on the volume claim ", source.claim_name,
                       "; say by --model-dir where its files are here"));
    case op::SourceType::kImage:
      return absl::FailedPreconditionError(
          absl::StrCat("its model lies in the image ", source.image,
                       "; say by --model-dir where its files are here"));
    case op::SourceType::kHttps:
      return absl::FailedPreconditionError(absl::StrCat(
          "its model lies at ", source.url, "; say by --model-dir where its files are here"));
  }
  return absl::InternalError("an unknown kind of source");
}

// Fields that differ from their defaults and change nothing here.
std::vector<std::string> Ignored(const op::Spec& spec) {
  const json given = op::ToJson(spec), defaults = op::ToJson(op::Spec{});
  const auto differs = [](const json& a, const json& b, const std::string& field) {
    return a.value(field, json()) != b.value(field, json());
  };
  std::vector<std::string> ignored;
  for (const auto& [field, value] : given.items()) {
    const bool is_used = field == "model" || field == "parallelism" || field == "overrides";
    if (!is_used && differs(given, defaults, field)) ignored.push_back(field);
  }
  for (const char* field : {"revision", "digest", "secretRef"})
    if (differs(given.value("model", json::object()), defaults.value("model", json::object()),
                field))
      ignored.push_back(absl::StrCat("model.", field));
  const json overrides = given.value("overrides", json::array());
  for (const char* field : {"resources", "nodeSelector", "tolerations", "template"}) {
    const auto has = [&](const json& one) { return !one.value(field, json()).is_null(); };
    if (std::any_of(overrides.begin(), overrides.end(), has))
      ignored.push_back(absl::StrCat("overrides.", field));
  }
  return ignored;
}

}  // namespace

absl::StatusOr<LocalDeployment> ReadDeployment(const DeploymentChoice& choice) {
  absl::StatusOr<op::Deployment> deployment = Choose(choice);
  if (!deployment.ok()) return deployment.status();
  const std::string who = absl::StrCat(choice.file, ": ", deployment->name, ": ");
  if (!deployment->invalid_reason.empty())
    return absl::FailedPreconditionError(absl::StrCat(who, deployment->invalid_message));
  op::Spec& spec = deployment->spec;
  const absl::StatusOr<std::string> root = VolumeRoot(spec.model.source, choice);
  if (!root.ok())
    return absl::Status(root.status().code(), absl::StrCat(who, root.status().message()));
  LocalDeployment local{.name = deployment->name,
                        .model = (std::filesystem::path(*root) / spec.model.path).string(),
                        .model_name = spec.model.name(),
                        .chunks = spec.parallelism.chunks,
                        .policy = spec.parallelism.policy,
                        .dtype = spec.model.dtype,
                        .max_model_len = static_cast<int>(spec.model.max_model_len),
                        .ignored = Ignored(spec)};
  std::error_code error;
  if (!std::filesystem::exists(local.model, error))
    return absl::NotFoundError(absl::StrCat(
        who, local.model, " is not there; say by --model-dir where the model's files are"));
  if (choice.stages > 0) spec.parallelism.stages = choice.stages;
  local.stages = spec.parallelism.stages;
  local.stage_memory = op::StageMemory(spec);
  local.stage_speed = op::StageSpeed(spec);
  return local;
}

}  // namespace echelon
