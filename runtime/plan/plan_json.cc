#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/graph/byte_source.h"
#include "runtime/graph/json_reader.h"
#include "runtime/graph/status_macros.h"
#include "runtime/plan/load.h"
#include "runtime/plan/plan.h"
#include "runtime/plan/plan_digest.h"

namespace echelon::plan {
namespace {

using graph::Graph;
using graph::Json;
using graph::JsonReader;

constexpr size_t kMaxJsonBytes = 64 << 20;
constexpr int kMaxJsonDepth = 8;
constexpr char kWhere[] = "the plan from rank 0";

class PlanReader {
 public:
  explicit PlanReader(const Graph& graph) : graph_(graph), load_(graph), reader_(kWhere) {}

  absl::StatusOr<Plan> Run(const Json& json) {
    Plan plan;
    plan.policy = reader_.String(json, "policy");
    plan.graph_digest = reader_.String(json, "graph_digest");
    plan.digest = reader_.String(json, "digest");
    if (reader_.Find(json, "kv_blocks")) plan.kv_blocks = reader_.Int(json, "kv_blocks");
    if (plan.kv_blocks < 0 || plan.kv_blocks > INT32_MAX) reader_.Fail("kv_blocks is out of range");
    const Json& stages = reader_.Array(json, "stages");
    if (!reader_.ok()) return reader_.status();
    if (plan.graph_digest != graph_.digest) {
      return absl::FailedPreconditionError(absl::StrCat(
          kWhere, " is for graph ", graph::Quoted(plan.graph_digest), ", this rank has ",
          graph::Quoted(graph_.digest), "; give all ranks the same model file"));
    }
    int begin = 0;
    for (size_t rank = 0; rank < stages.size() && reader_.ok(); ++rank) {
      ReadStage(stages[rank], static_cast<int>(rank), static_cast<int>(stages.size()), begin,
                &plan);
      if (reader_.ok()) begin = plan.stages.back().end;
    }
    if (begin != load_.nodes || stages.empty()) reader_.Fail("its stages do not cover the graph");
    if (reader_.ok() && DigestOf(plan) != plan.digest) reader_.Fail("its digest does not match");
    if (!reader_.ok()) return reader_.status();
    return plan;
  }

 private:
  void ReadStage(const Json& json, int rank, int stages, int begin, Plan* plan) {
    reader_.set_subject(absl::StrCat("stage ", rank));
    if (reader_.Int(json, "rank") != rank) return reader_.Fail("its rank is out of order");
    const int64_t from = reader_.Int(json, "begin"), to = reader_.Int(json, "end");
    if (from != begin || to < from || to > load_.nodes || (to == from && load_.nodes > 0)) {
      return reader_.Fail("its range of nodes is empty or out of order");
    }
    const Json& names = reader_.Array(json, "nodes");
    bool same = names.size() == static_cast<size_t>(to - from);
    for (size_t i = 0; same && i < names.size(); ++i)
      same = names[i] == graph_.nodes[from + i].name;
    if (!same) return reader_.Fail("its nodes have other names; are all ranks of one version?");
    Stage stage = DescribeStage(graph_, load_, rank, stages, begin, static_cast<int>(to));
    stage.share = reader_.AsDouble(reader_.At(json, "share"), "share");
    if (!(stage.share >= 0 && stage.share <= 1)) reader_.Fail("its share is not in 0..1");
    plan->stages.push_back(std::move(stage));
  }

  const Graph& graph_;
  const Load load_;
  JsonReader reader_;
};

}  // namespace

std::string ToJson(const Plan& plan, const Graph& graph) {
  nlohmann::ordered_json json{
      {"policy", plan.policy}, {"graph_digest", plan.graph_digest}, {"digest", plan.digest}};
  if (graph.text) {
    json["kv_blocks"] = plan.kv_blocks;
    json["kv_block_tokens"] = kKvBlockTokens;
  }
  json["stages"] = nlohmann::ordered_json::array();
  for (const Stage& stage : plan.stages) {
    std::vector<std::string> names;
    for (int i = stage.begin; i < stage.end; ++i) names.push_back(graph.nodes[i].name);
    json["stages"].push_back({{"rank", stage.rank},
                              {"begin", stage.begin},
                              {"end", stage.end},
                              {"nodes", names},
                              {"modules", stage.modules},
                              {"parameters", stage.parameters},
                              {"weight_bytes", stage.weight_bytes},
                              {"send_bytes", stage.send_bytes},
                              {"kv_bytes_per_token", stage.kv_bytes_per_token},
                              {"share", stage.share}});
  }
  // Names come from a file: bytes that are no UTF-8 are replaced rather than thrown at.
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

absl::StatusOr<Plan> FromJson(const std::string& json, const Graph& graph) {
  if (json.size() > kMaxJsonBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(kWhere, " has ", json.size(), " bytes, too many"));
  }
  ECHELON_ASSIGN_OR_RETURN(const Json parsed, graph::ParseJson(json, kMaxJsonDepth, kWhere));
  return PlanReader(graph).Run(parsed);
}

}  // namespace echelon::plan
