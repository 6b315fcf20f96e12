// The balanced split: a dynamic programme over legal cuts.
#ifndef ECHELON_RUNTIME_PLAN_PARTITION_H_
#define ECHELON_RUNTIME_PLAN_PARTITION_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/plan/load.h"

namespace echelon::plan {

struct Machines {                     // one entry a stage
  std::vector<double> speed;          // relative, above 0
  std::vector<int64_t> memory_bytes;  // INT64_MAX: unlimited
};

// Time of a stage: compute / speed, and what it sends at the reference link's bandwidth.
int64_t StageTime(int64_t compute_ns, double speed, int64_t send_bytes);

// Bounds b_0 = 0 < b_1 < ... < b_S = nodes, each inner one of `cuts` (ascending), with the least
// time of the slowest stage under each stage's memory; of those the least bytes sent, then the most
// even times. Empty when none fits. Precondition: at least S - 1 cuts; one cost a node.
std::vector<int> Balance(const Load& load, const std::vector<int>& cuts,
                         const std::vector<int64_t>& node_costs, const Machines& machines);

}  // namespace echelon::plan

#endif  // ECHELON_RUNTIME_PLAN_PARTITION_H_
