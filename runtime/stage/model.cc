#include "runtime/stage/model.h"

#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/exec/schema.h"
#include "runtime/graph/pt2_reader.h"
#include "runtime/passes/passes.h"
#include "runtime/stage/measure.h"

namespace echelon::stage {
namespace {

absl::StatusOr<std::vector<int64_t>> ReadTimes(const std::string& path, const graph::Graph& graph) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("--times ", path, ": cannot be opened"));
  const auto times = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!times.is_object())
    return absl::InvalidArgumentError(
        absl::StrCat("--times ", path, ": is no JSON object of node names and nanoseconds"));
  std::vector<int64_t> ns;
  for (const graph::Node& node : graph.nodes) {
    const auto found = times.find(node.name);
    if (found == times.end() || !found->is_number_integer() || found->get<int64_t>() < 0)
      return absl::InvalidArgumentError(absl::StrCat("--times ", path, ": no time for node ",
                                                     node.name, "; measure this model again"));
    ns.push_back(*found);
  }
  return ns;
}

absl::StatusOr<plan::Options> ParsePlanFlags(const PlanFlags& flags, int stages,
                                             const graph::Graph& graph) {
  plan::Options options{.stages = stages, .policy = flags.policy};
  const auto named = [](const char* flag, const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(flag, ": ", status.message()));
  };
  if (!flags.threshold.empty()) {
    const absl::StatusOr<int64_t> bytes = ParseBytes(flags.threshold);
    if (!bytes.ok()) return named("--threshold", bytes.status());
    options.threshold_bytes = *bytes;
  }
  if (!flags.points.empty()) options.points = absl::StrSplit(flags.points, ',');
  if (!flags.stage_memory.empty())
    for (const auto& part : absl::StrSplit(flags.stage_memory, ',')) {
      const absl::StatusOr<int64_t> bytes = ParseBytes(std::string(part));
      if (!bytes.ok()) return named("--stage-memory", bytes.status());
      options.stage_memory_bytes.push_back(*bytes);
    }
  if (!flags.stage_speed.empty())
    for (const auto& part : absl::StrSplit(flags.stage_speed, ',')) {
      double speed = 0;
      if (!absl::SimpleAtod(part, &speed) || !(speed > 0) || std::isinf(speed))
        return absl::InvalidArgumentError(
            absl::StrCat("--stage-speed: '", part, "' is no positive number; write it as 1,3"));
      options.stage_speed.push_back(speed);
    }
  if (graph.text) {
    const absl::StatusOr<int64_t> bytes = ParseBytes(flags.kv_memory);
    if (!bytes.ok()) return named("--kv-memory", bytes.status());
    options.kv_memory_bytes = *bytes;
  }
  if (!flags.times.empty()) {
    absl::StatusOr<std::vector<int64_t>> times = ReadTimes(flags.times, graph);
    if (!times.ok()) return times.status();
    options.node_times_ns = *std::move(times);
  }
  return options;
}

}  // namespace

absl::StatusOr<Model> OpenModel(const std::string& path) {
  absl::StatusOr<graph::Graph> graph = graph::ReadPt2(path);
  if (!graph.ok()) return graph.status();
  Model model{.graph = *std::move(graph), .schemas = exec::DispatcherSchemas()};
  for (const graph::Node& node : model.graph.nodes)
    if (!model.schemas(node.target))
      return absl::UnimplementedError(
          absl::StrCat(path, ": node ", node.name, ": operator ", node.target,
                       " is not known to this build; export the model without it"));
  passes::RunAll(&model.graph, model.schemas);
  model.batch = graph::BatchSymbol(model.graph, model.schemas);
  return model;
}

absl::StatusOr<int64_t> ParseBytes(const std::string& text) {
  static const auto* units = new std::map<std::string, double>{{"", 1},
                                                               {"B", 1},
                                                               {"K", 1 << 10},
                                                               {"KiB", 1 << 10},
                                                               {"KB", 1e3},
                                                               {"M", 1 << 20},
                                                               {"MiB", 1 << 20},
                                                               {"MB", 1e6},
                                                               {"G", 1 << 30},
                                                               {"GiB", 1 << 30},
                                                               {"GB", 1e9},
                                                               {"Gi", 1 << 30},
                                                               {"Mi", 1 << 20},
                                                               {"T", 1099511627776.0},
                                                               {"TiB", 1099511627776.0},
                                                               {"TB", 1e12}};
  const size_t end = std::min(text.find_first_not_of("0123456789."), text.size());
  double number = 0;
  const auto unit = units->find(text.substr(end));
  if (!absl::SimpleAtod(text.substr(0, end), &number) || unit == units->end() ||
      number * unit->second > 9e18)
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is no size; write it as 8GiB, 500MiB or 1000000"));
  return static_cast<int64_t>(number * unit->second);
}

absl::StatusOr<plan::Plan> PlanModel(const Model& model, const PlanFlags& flags, int stages) {
  absl::StatusOr<plan::Options> options = ParsePlanFlags(flags, stages, model.graph);
  if (!options.ok()) return options.status();
  if (options->policy == "measured" && options->node_times_ns.empty()) {
    absl::StatusOr<std::vector<int64_t>> times = MeasureNodes(model);
    if (!times.ok()) return times.status();
    options->node_times_ns = *std::move(times);
  }
  return plan::MakePlan(model.graph, model.schemas, *options);
}

}  // namespace echelon::stage
