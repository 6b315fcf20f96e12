#include "absl/strings/str_cat.h"
#include "runtime/step/step.h"

namespace echelon::step {
namespace {

// "4..12,40"
std::string RunsText(const std::vector<int32_t>& blocks) {
  std::string text;
  for (size_t i = 0; i < blocks.size();) {
    size_t end = i + 1;
    while (end < blocks.size() && blocks[end] == blocks[end - 1] + 1) ++end;
    absl::StrAppend(&text, i == 0 ? "" : ",", blocks[i]);
    if (end - i > 1) absl::StrAppend(&text, "..", blocks[end - 1]);
    i = end;
  }
  return text;
}

template <typename Value>
std::string PairsText(const std::vector<std::pair<int32_t, Value>>& pairs) {
  std::string text;
  for (const auto& [token, value] : pairs) absl::StrAppend(&text, " ", token, ":", value);
  return text;
}

}  // namespace

std::string ToText(const Step& step) {
  std::string text;
  for (const Sequence& sequence : step.sequences)
    absl::StrAppend(&text, "sequence ", sequence.id, ": positions ", sequence.start, "..",
                    int64_t{sequence.start} + sequence.count - 1, " in blocks ",
                    RunsText(sequence.blocks), "\n");
  for (size_t i = 0; i < step.samples.size(); ++i) {
    const Sample& s = step.samples[i];
    absl::StrAppend(&text, "sample ", i, ": row ", s.row, " position ", s.position);
    if (s.temperature == 0) {
      absl::StrAppend(&text, " greedy");
    } else {
      absl::StrAppend(&text, " temperature ", s.temperature, " seed ", s.seed);
      if (s.choice != 0) absl::StrAppend(&text, " choice ", s.choice);
      if (s.top_k != 0) absl::StrAppend(&text, " top_k ", s.top_k);
      if (s.top_p != 1) absl::StrAppend(&text, " top_p ", s.top_p);
      if (s.min_p != 0) absl::StrAppend(&text, " min_p ", s.min_p);
    }
    if (s.repetition_penalty != 1)
      absl::StrAppend(&text, " repetition_penalty ", s.repetition_penalty);
    if (s.presence_penalty != 0) absl::StrAppend(&text, " presence_penalty ", s.presence_penalty);
    if (s.frequency_penalty != 0)
      absl::StrAppend(&text, " frequency_penalty ", s.frequency_penalty);
    if (!s.seen.empty()) absl::StrAppend(&text, " seen", PairsText(s.seen));
    if (!s.bias.empty()) absl::StrAppend(&text, " bias", PairsText(s.bias));
    if (s.logprobs >= 0) absl::StrAppend(&text, " logprobs ", s.logprobs);
    absl::StrAppend(&text, "\n");
  }
  return text;
}

std::string ToText(const Result& result) {
  std::string text;
  for (size_t i = 0; i < result.drawn.size(); ++i) {
    const Drawn& drawn = result.drawn[i];
    if (!drawn.status.ok()) {
      absl::StrAppend(&text, "sample ", i, ": ", drawn.status.ToString(), "\n");
      continue;
    }
    absl::StrAppend(&text, "sample ", i, ": token ", drawn.token, " logprob ", drawn.logprob);
    if (!drawn.top.empty()) absl::StrAppend(&text, " top", PairsText(drawn.top));
    absl::StrAppend(&text, "\n");
  }
  return text;
}

}  // namespace echelon::step
