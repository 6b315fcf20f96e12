#include "runtime/schedule/dry_run.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace echelon::schedule {

std::string FillDrainTable(int stages, int chunks) {
  std::string text = "tick";
  for (int rank = 0; rank < stages; ++rank)
    absl::StrAppendFormat(&text, "  %6s", absl::StrCat("rank ", rank));
  text += "\n";
  for (int tick = 0; tick < chunks + stages - 1; ++tick) {
    absl::StrAppendFormat(&text, "%4d", tick);
    for (int rank = 0; rank < stages; ++rank) {
      const int chunk = tick - rank;
      absl::StrAppendFormat(&text, "  %6s",
                            chunk >= 0 && chunk < chunks ? absl::StrCat(chunk) : ".");
    }
    text += "\n";
  }
  return text;
}

double Simulate(const std::vector<double>& stage_ms, double hop_ms, int chunks) {
  std::vector<double> free_at(stage_ms.size(), 0);
  double last = 0;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    double at = 0;
    for (size_t rank = 0; rank < stage_ms.size(); ++rank) {
      if (rank > 0) at += hop_ms;
      at = std::max(at, free_at[rank]) + stage_ms[rank];
      free_at[rank] = at;
    }
    last = at;
  }
  return stage_ms.size() > 1 ? last + hop_ms : last;
}

double Simulate(int stages, double stage_ms, double hop_ms, int chunks) {
  return Simulate(std::vector<double>(static_cast<size_t>(stages), stage_ms), hop_ms, chunks);
}

double IdealSpeedup(int stages, int chunks) {
  return static_cast<double>(stages) * chunks / (chunks + stages - 1);
}

}  // namespace echelon::schedule
