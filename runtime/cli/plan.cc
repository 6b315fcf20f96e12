#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/cli/commands.h"
#include "runtime/cli/model_dir.h"
#include "runtime/graph/printer.h"
#include "runtime/stage/flag_errors.h"
#include "runtime/stage/measure.h"
#include "runtime/stage/model.h"

namespace echelon {
namespace {

constexpr size_t kPrintedNodes = 400;  // a longer graph's code is printed only when asked for

struct PlanArguments {
  std::string model, measure;
  int stages = 2;
  stage::PlanFlags flags;
  ExportFlags exporting;
  bool json = false, code = false;
};

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "echelon plan: %s\n", std::string(status.message()).c_str());
  return 1;
}

absl::Status WriteTimes(const stage::Model& model, const std::string& path) {
  const absl::StatusOr<std::vector<int64_t>> times = stage::MeasureNodes(model);
  if (!times.ok()) return times.status();
  nlohmann::ordered_json json;
  for (size_t i = 0; i < times->size(); ++i) json[model.graph.nodes[i].name] = (*times)[i];
  std::ofstream file(path);
  file << json.dump(1) << '\n';
  if (!file.flush()) return absl::UnavailableError("--measure " + path + ": cannot be written");
  std::fprintf(stderr, "times of %zu nodes in %s: plan with --policy measured --times %s\n",
               times->size(), path.c_str(), path.c_str());
  return absl::OkStatus();
}

}  // namespace

int PlanMain(int argc, char** argv) {
  PlanArguments arguments;
  CLI::App app("Shows how a model would be split into stages. Reads the graph, no weights.",
               "echelon plan");
  app.footer("Example:\n  echelon plan net.pt2 --stages 2 --policy equal-size\n");
  app.add_option("model", arguments.model, "the .pt2 file, or a Hugging Face directory")
      ->required();
  app.add_option("--stages", arguments.stages, "number of stages")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  stage::AddPlanFlags(app, &arguments.flags);
  AddExportFlags(app, &arguments.exporting);
  app.add_flag("--json", arguments.json, "print the plan as JSON");
  app.add_flag("--code", arguments.code, "print every stage's code, however long");
  app.add_option("--measure", arguments.measure,
                 "run the model here and write each node's time to this file");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "echelon plan: %s; see --help\n", stage::FlagError(app, error).c_str());
    return 2;
  }
  std::string directory_name;
  if (IsModelDirectory(arguments.model)) {
    directory_name = std::filesystem::weakly_canonical(arguments.model).filename().string();
    const absl::StatusOr<std::string> file = ExportedModel(arguments.model, arguments.exporting);
    if (!file.ok()) return Fail(file.status());
    arguments.model = *file;
  } else if (absl::Status status = CheckExported(arguments.model, arguments.exporting);
             !status.ok()) {
    return Fail(status);
  }
  absl::StatusOr<stage::Model> model = stage::OpenModel(arguments.model);
  if (!model.ok()) return Fail(model.status());
  if (!directory_name.empty()) model->graph.name = directory_name;  // not the cached file's
  if (!arguments.measure.empty()) {
    const absl::Status status = WriteTimes(*model, arguments.measure);
    if (!status.ok()) return Fail(status);
    arguments.flags.times = arguments.measure;
    arguments.flags.policy = "measured";
  }
  const absl::StatusOr<plan::Plan> plan =
      stage::PlanModel(*model, arguments.flags, arguments.stages);
  if (!plan.ok()) return Fail(plan.status());
  if (arguments.json) {
    std::printf("%s\n", plan::ToJson(*plan, model->graph).c_str());
    return 0;
  }
  std::fputs(plan::ToText(*plan, model->graph).c_str(), stdout);
  if (model->graph.nodes.size() > kPrintedNodes && !arguments.code) {
    std::printf("\n%zu nodes; --code prints them\n", model->graph.nodes.size());
    return 0;
  }
  for (const plan::Stage& stage : plan->stages)
    std::printf("\n# stage %d\n%s", stage.rank,
                graph::PrintCode(model->graph, stage.begin, stage.end, stage.receives, stage.sends)
                    .c_str());
  return 0;
}

}  // namespace echelon
