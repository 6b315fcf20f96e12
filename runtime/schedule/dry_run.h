// The fill-drain schedule without a pipeline: as a table to look at, and as the time it takes.
#ifndef ECHELON_RUNTIME_SCHEDULE_DRY_RUN_H_
#define ECHELON_RUNTIME_SCHEDULE_DRY_RUN_H_

#include <string>
#include <vector>

namespace echelon::schedule {

// Which chunk each rank works on at each tick; a dot where it idles. Both numbers are at least 1.
//   tick  rank 0  rank 1
//      0       0       .
//      1       1       0
//      2       .       1
std::string FillDrainTable(int stages, int chunks);

// Milliseconds from the first chunk's start on rank 0 until the last chunk's result is back at rank
// 0, when one chunk keeps rank r busy for stage_ms[r] and needs hop_ms from a rank to the next (and
// home, where there is more than one).
double Simulate(const std::vector<double>& stage_ms, double hop_ms, int chunks);
double Simulate(int stages, double stage_ms, double hop_ms, int chunks);  // all stages equal

// How much faster `stages` equal stages are than one, hops aside: P*M / (M + P - 1), as in GPipe
// (Huang et al., 2019).
double IdealSpeedup(int stages, int chunks);

}  // namespace echelon::schedule

#endif  // ECHELON_RUNTIME_SCHEDULE_DRY_RUN_H_
