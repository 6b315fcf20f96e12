// What runs: the StatefulSets of a group, and the Job that exports a directory.
#include "absl/strings/str_cat.h"
#include "operator/render/parts.h"
#include "operator/render/render.h"

namespace echelon::op {
namespace {

using nlohmann::json;

json ExportArgs(const Model& model) {
  json args{absl::StrCat(kModelMount, "/", model.path), "-o",
            absl::StrCat(kModelMount, "/", ExportedPath(model)), "--if-missing"};
  if (!model.dtype.empty()) {
    args.push_back("--dtype");
    args.push_back(model.dtype);
  }
  if (model.max_model_len > 0) {
    args.push_back("--max-model-len");
    args.push_back(absl::StrCat(model.max_model_len));
  }
  return args;
}

json ExportContainer(const Model& model, const Revision& revision) {
  return {{"name", kExport},
          {"image", revision.exporter_image},
          {"args", ExportArgs(model)},
          {"env",
           {{{"name", "HOME"}, {"value", "/tmp"}}, {{"name", "HF_HUB_OFFLINE"}, {"value", "1"}}}},
          {"resources", {{"requests", {{"cpu", "500m"}, {"memory", "2Gi"}}}}},
          {"terminationMessagePolicy", "FallbackToLogsOnError"},
          {"securityContext", RestrictedContainer()},
          {"volumeMounts",
           {{{"name", "model"}, {"mountPath", kModelMount}},
            {{"name", "tmp"}, {"mountPath", "/tmp"}}}}};
}

}  // namespace

absl::StatusOr<json> ExportJob(const Deployment& d, const Revision& revision) {
  constexpr int kDeadlineSeconds = 6 * 3600;  // slow volumes; a stuck one ends some day
  const Spec spec = SpecAt(d, revision);
  json pod{{"restartPolicy", "Never"},
           {"automountServiceAccountToken", false},
           {"enableServiceLinks", false},
           {"securityContext", RestrictedPod()},
           {"containers", {ExportContainer(spec.model, revision)}},
           {"volumes",
            {ModelVolume(spec.model.source, /*read_only=*/false),
             {{"name", "tmp"}, {"emptyDir", json::object()}}}}};
  // Its pod is no rank: without the label neither the budget nor the Services take it for one.
  json labels = CommonLabels(d);
  labels["echelon.dev/export"] = d.name;
  json job = Named(d, "batch/v1", "Job", JobName(d, revision));
  job["metadata"]["labels"][kRevisionLabel] = revision.hash;
  json pods{{"metadata", {{"labels", std::move(labels)}}}, {"spec", std::move(pod)}};
  if (absl::Status merged = MergeInto(&pods, UsersExport(spec.pod_template), "template");
      !merged.ok())
    return merged;
  job["spec"] = {{"backoffLimit", 3},
                 {"activeDeadlineSeconds", kDeadlineSeconds},
                 {"template", std::move(pods)}};
  return job;
}

absl::StatusOr<json> StatefulSet(const Deployment& d, const Revision& revision, int group,
                                 const Run& run) {
  const Spec spec = SpecAt(d, revision);
  absl::StatusOr<json> users = UsersTemplate(spec, OverrideOf(spec, run.first));
  if (!users.ok()) return users.status();
  absl::StatusOr<json> pods = MergeTemplate(*users, OurTemplate(d, spec, revision, group, run));
  if (!pods.ok()) return pods.status();
  json set = Named(d, "apps/v1", "StatefulSet", SetName(d, revision, group, run.first));
  json selector{{kDeploymentLabel, d.name},
                {kRevisionLabel, revision.hash},
                {kGroupLabel, absl::StrCat(group)},
                {kFirstRankLabel, absl::StrCat(run.first)}};
  set["metadata"]["labels"].update(selector);
  set["spec"] = {{"serviceName", absl::StrCat(d.name, "-ranks")},
                 {"replicas", run.count},
                 {"ordinals", {{"start", run.first}}},
                 {"podManagementPolicy", "Parallel"},
                 {"updateStrategy", {{"type", "OnDelete"}}},
                 {"revisionHistoryLimit", 0},
                 {"selector", {{"matchLabels", std::move(selector)}}},
                 {"template", *std::move(pods)}};
  return set;
}

}  // namespace echelon::op
