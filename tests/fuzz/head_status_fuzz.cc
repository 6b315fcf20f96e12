// A head's answer to GET /status is foreign bytes: what is taken of it stays within bounds.
#include <cstdio>
#include <cstdlib>

#include "operator/controller/project.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto head =
      echelon::op::HeadFromText(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!head.ok()) return 0;
  for (const echelon::op::HeadRank& rank : head->ranks) {
    const bool is_bounded = rank.rank >= 0 && rank.rank < 1024 && rank.loaded_bytes >= 0 &&
                            rank.total_bytes >= 0 && rank.joins >= 0 && rank.phase.size() <= 512 &&
                            rank.last_error.size() <= 512 && rank.incarnation.size() <= 512;
    if (is_bounded && head->ranks.size() <= 1024) continue;
    std::fprintf(stderr, "a head's answer broke its bounds\n");
    std::abort();
  }
  return 0;
}
