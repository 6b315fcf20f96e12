// The parsers of a step's metadata and result on foreign bytes: what they accept passes the check,
// stays within the limits and goes over the wire again as it was.
#include <cstdio>
#include <cstdlib>

#include "runtime/step/step.h"

namespace {

void Check(bool held, const char* what) {
  if (held) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const echelon::step::Limits limits{.tokens = 4096,
                                     .sequences = 64,
                                     .samples = 64,
                                     .length = 8192,
                                     .block_tokens = 16,
                                     .blocks = 2048,
                                     .vocabulary = 1000,
                                     .logprobs = 20};
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (const auto step = echelon::step::ParseStep(bytes, limits); step.ok()) {
    for (const echelon::step::Sequence& sequence : step->sequences)
      Check(sequence.blocks.size() <= 512, "blocks within the length");
    const auto again = echelon::step::ParseStep(Serialize(*step), limits);
    Check(again.ok() && *again == *step, "step comes back");
    (void)ToText(*step);
  }
  if (const auto result = echelon::step::ParseResult(bytes, 2, limits); result.ok()) {
    const auto again = echelon::step::ParseResult(Serialize(*result), 2, limits);
    Check(again.ok() && *again == *result, "result comes back");
    (void)ToText(*result);
  }
  return 0;
}
