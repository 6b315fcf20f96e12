#include "runtime/cli/progress.h"

#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_format.h"
#include "runtime/plan/cost.h"

namespace echelon {

Progress::Progress(int ranks) : terminal_(::isatty(STDERR_FILENO) != 0), bars_(ranks) {}

std::string BarText(int rank, int64_t loaded_bytes, int64_t total_bytes) {
  constexpr int kCells = 24;
  const double part =
      total_bytes > 0 ? static_cast<double>(loaded_bytes) / static_cast<double>(total_bytes) : 1;
  const int cells = static_cast<int>(part * kCells);
  return absl::StrFormat("rank %d [%s%s] %3.0f %%  %s of %s", rank, std::string(cells, '#'),
                         std::string(kCells - cells, '-'), 100 * part,
                         plan::BytesText(loaded_bytes), plan::BytesText(total_bytes));
}

void Progress::Loading(int rank, int64_t loaded_bytes, int64_t total_bytes) {
  Bar& bar = bars_[rank];
  bar.loaded_bytes = loaded_bytes;
  bar.total_bytes = total_bytes;
  if (terminal_) {
    Erase();
    Draw();
    return;
  }
  const int quarters = total_bytes > 0 ? static_cast<int>(4 * loaded_bytes / total_bytes) : 4;
  if (quarters == bar.quarters) return;
  bar.quarters = quarters;
  std::fprintf(stderr, "rank %d: loaded %s of %s\n", rank, plan::BytesText(loaded_bytes).c_str(),
               plan::BytesText(total_bytes).c_str());
}

void Progress::Say(const std::string& line) {
  Erase();
  std::fprintf(stderr, "%s\n", line.c_str());
}

void Progress::Done() { drawn_ = 0; }

void Progress::Erase() {
  if (drawn_ > 0) std::fprintf(stderr, "\033[%dA\033[J", drawn_);
  drawn_ = 0;
}

void Progress::Draw() {
  for (size_t rank = 0; rank < bars_.size(); ++rank)
    std::fprintf(
        stderr, "%s\n",
        BarText(static_cast<int>(rank), bars_[rank].loaded_bytes, bars_[rank].total_bytes).c_str());
  drawn_ = static_cast<int>(bars_.size());
}

}  // namespace echelon
