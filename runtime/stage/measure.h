// Node times for the policy `measured`: runs the whole model in this process a few times on made-up
// inputs.
#ifndef ECHELON_RUNTIME_STAGE_MEASURE_H_
#define ECHELON_RUNTIME_STAGE_MEASURE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/stage/model.h"

namespace echelon::stage {

// Mean nanoseconds of each node at the exported sizes; needs memory for all of the weights. Inputs
// are zeros, flags true.
absl::StatusOr<std::vector<int64_t>> MeasureNodes(const Model& model);

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_MEASURE_H_
