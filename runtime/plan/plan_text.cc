#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "runtime/plan/cost.h"
#include "runtime/plan/plan.h"

namespace echelon::plan {
namespace {

constexpr size_t kMaxModules = 6;

// "layer.0, layer.1, layer.2" reads "layer.0-2".
std::vector<std::string> Runs(const std::vector<std::string>& modules) {
  std::vector<std::string> runs;
  std::string parent;
  int64_t first = -1, last = -1;
  const auto flush = [&] {
    if (first < 0) return;
    const std::string range = first == last ? absl::StrCat(first) : absl::StrCat(first, "-", last);
    runs.push_back(parent + range);
    first = -1;
  };
  for (const std::string& module : modules) {
    const size_t begin = module.rfind('.') == module.npos ? 0 : module.rfind('.') + 1;
    int64_t number = -1;
    if (!absl::SimpleAtoi(module.substr(begin), &number) || number < 0) {
      flush();
      runs.push_back(module);
      continue;
    }
    if (first < 0 || parent != module.substr(0, begin) || number != last + 1) {
      flush();
      parent = module.substr(0, begin);
      first = number;
    }
    last = number;
  }
  flush();
  return runs;
}

std::string ModulesText(const std::vector<std::string>& modules) {
  std::vector<std::string> runs = Runs(modules);
  const size_t more = runs.size() > kMaxModules ? runs.size() - (kMaxModules - 1) : 0;
  if (more > 0) {
    runs.resize(kMaxModules - 1);
    runs.push_back(absl::StrCat("and ", more, " more"));
  }
  return absl::StrJoin(runs, ", ");
}

// Of a language model, what a stage sends and caches is told for one token.
int64_t TokensAtExport(const graph::Graph& graph) {
  for (const graph::Input& input : graph.inputs)
    if (graph.text && input.name == graph::kTokens && graph.values[input.value].shape.size() == 2)
      return std::max<int64_t>(1, graph.values[input.value].shape[1].hint);
  return 1;
}

std::string KvText(const Plan& plan, const graph::Graph& graph) {
  if (!graph.text || plan.kv_blocks == 0) return "";
  const int64_t tokens = SaturatingMultiply(plan.kv_blocks, kKvBlockTokens);
  return absl::StrFormat("KV cache: %d blocks of %d tokens, %d tokens in all sequences together\n",
                         plan.kv_blocks, kKvBlockTokens, tokens);
}

}  // namespace

std::string ToText(const Plan& plan, const graph::Graph& graph) {
  const int64_t tokens = TokensAtExport(graph);
  std::vector<std::vector<std::string>> rows{
      {"stage", "nodes", "parameters", "weights", "sends", "time", "modules"}};
  if (graph.text) rows[0][4] = "sends a token", rows[0].insert(rows[0].begin() + 5, "KV a token");
  for (const Stage& stage : plan.stages) {
    const bool last = stage.rank + 1 == static_cast<int>(plan.stages.size());
    rows.push_back({absl::StrCat(stage.rank), absl::StrCat(stage.end - stage.begin),
                    CountText(stage.parameters), BytesText(stage.weight_bytes),
                    last ? "-" : BytesText(stage.send_bytes / tokens),
                    absl::StrFormat("%.0f %%", stage.share * 100), ModulesText(stage.modules)});
    if (graph.text)
      rows.back().insert(rows.back().begin() + 5, BytesText(stage.kv_bytes_per_token));
  }
  std::vector<size_t> width(rows[0].size());
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  }
  std::string out =
      absl::StrCat(graph.name, ": ", plan.stages.size(), " stages, policy ", plan.policy, "\n");
  for (const auto& row : rows) {
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      absl::StrAppend(&out, std::string(width[i] - row[i].size(), ' '), row[i], "  ");
    }
    absl::StrAppend(&out, row.back(), "\n");
  }
  return out + KvText(plan, graph);
}

}  // namespace echelon::plan
