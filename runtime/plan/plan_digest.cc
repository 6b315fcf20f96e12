#include "runtime/plan/plan_digest.h"

#include "runtime/graph/digest.h"

namespace echelon::plan {
namespace {

void AddIds(const std::vector<graph::ValueId>& ids, graph::Digest* digest) {
  digest->Add(static_cast<int64_t>(ids.size()));
  for (const graph::ValueId id : ids) digest->Add(int64_t{id});
}

}  // namespace

std::string DigestOf(const Plan& plan) {
  graph::Digest digest;
  digest.Add(plan.policy);
  digest.Add(plan.graph_digest);
  digest.Add(static_cast<int64_t>(plan.stages.size()));
  for (const Stage& stage : plan.stages) {
    for (const int number : {stage.rank, stage.begin, stage.end}) digest.Add(int64_t{number});
    AddIds(stage.receives, &digest);
    AddIds(stage.sends, &digest);
    digest.Add(static_cast<int64_t>(stage.modules.size()));
    for (const std::string& module : stage.modules) digest.Add(module);
    for (const int64_t number :
         {stage.parameters, stage.weight_bytes, stage.send_bytes, stage.kv_bytes_per_token}) {
      digest.Add(number);
    }
    digest.Add(stage.share);
  }
  digest.Add(plan.kv_blocks);
  return digest.Hex();
}

}  // namespace echelon::plan
