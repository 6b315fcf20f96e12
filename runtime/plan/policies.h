// The policies that place cuts without weighing time. All answer with bounds 0 < ... < nodes, the
// inner ones legal cuts.
#ifndef ECHELON_RUNTIME_PLAN_POLICIES_H_
#define ECHELON_RUNTIME_PLAN_POLICIES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/plan/load.h"

namespace echelon::plan {

// PyTorch PiPPy's split_into_equal_size: a stage takes nodes until their parameters pass total //
// stages. Where that gives fewer stages than asked for, the stage with the most parameters is
// halved until there are enough. Precondition: at least stages - 1 cuts.
std::vector<int> EqualSize(const Load& load, const std::vector<int>& cuts, int stages);

// The same walk over weight bytes; as many stages as it takes, which must be `stages`.
absl::StatusOr<std::vector<int>> Threshold(const Load& load, const std::vector<int>& cuts,
                                           int64_t threshold_bytes, int stages);

// A cut before the first node of each module.
absl::StatusOr<std::vector<int>> Points(const graph::Graph& graph, const std::vector<int>& cuts,
                                        const std::vector<std::string>& points, int stages);

}  // namespace echelon::plan

#endif  // ECHELON_RUNTIME_PLAN_POLICIES_H_
