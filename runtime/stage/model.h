// A model file opened: its graph after passes, and what is known of its operators. No weights yet.
#ifndef ECHELON_RUNTIME_STAGE_MODEL_H_
#define ECHELON_RUNTIME_STAGE_MODEL_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/graph/batch.h"
#include "runtime/graph/graph.h"
#include "runtime/plan/plan.h"

namespace echelon::stage {

struct Model {
  graph::Graph graph;
  graph::SchemaLookup schemas;
  graph::BatchInfo batch;
};

// Errors name the file; an operator that this build does not know is named with its node.
absl::StatusOr<Model> OpenModel(const std::string& path);

// What people type for the planner, as strings of the command line.
struct PlanFlags {
  std::string policy = "balanced";
  std::string threshold;           // "500MiB"
  std::string points;              // "layer2,layer3"
  std::string stage_memory;        // "8GiB,24GiB"
  std::string stage_speed;         // "1,3"
  std::string kv_memory = "1GiB";  // text: of each stage's KV cache
  std::string
      times;  // path of a JSON file {"node name": nanoseconds}, from `echelon plan --measure`
};

// Adds --policy, --threshold, --split-points, --stage-memory, --stage-speed and --times to a
// CLI::App.
template <class App>
void AddPlanFlags(App& app, PlanFlags* flags) {
  app.add_option("--policy", flags->policy, "balanced, equal-size, threshold, points or measured")
      ->capture_default_str();
  app.add_option("--threshold", flags->threshold,
                 "for threshold: weight bytes a stage may hold, as 500MiB");
  app.add_option("--split-points", flags->points,
                 "for points: modules to cut before, as layer2,layer3");
  app.add_option("--stage-memory", flags->stage_memory,
                 "memory of each stage, as 8GiB,24GiB; one for all");
  app.add_option("--stage-speed", flags->stage_speed, "relative speed of each stage, as 1,3");
  app.add_option("--kv-memory", flags->kv_memory,
                 "language models: memory of each stage's KV cache; it bounds the tokens of all "
                 "sequences together, and is touched as they come")
      ->capture_default_str();
  app.add_option("--times", flags->times,
                 "for measured: node times, written by `echelon plan --measure`");
}

// Plans as the flags say; `measured` without --times measures here and now. Errors name the flag
// and what it should look like, or are MakePlan's.
absl::StatusOr<plan::Plan> PlanModel(const Model& model, const PlanFlags& flags, int stages);

absl::StatusOr<int64_t> ParseBytes(const std::string& text);  // "8GiB", "500MB", "1024"

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_MODEL_H_
