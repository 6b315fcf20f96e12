#include "runtime/sampling/sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/sampling/philox.h"

namespace echelon::sampling {
namespace {

struct Candidate {
  int32_t token = 0;
  double weight = 0;  // proportional to its probability; the greatest has 1
};

// e^x for x <= 0, by addition and multiplication alone: every machine gets the same bits.
double Exp(double x) {
  constexpr double kLog2E = 1.4426950408889634074, kLn2High = 6.93147180369123816490e-01,
                   kLn2Low = 1.90821492927058770002e-10;  // fdlibm's split of ln 2
  if (!(x > -708)) return 0;
  const double n = static_cast<double>(static_cast<int64_t>(x * kLog2E - 0.5));
  const double r = (x - n * kLn2High) - n * kLn2Low;  // |r| <= ln 2 / 2
  double sum = 1;
  for (int k = 13; k >= 1; --k) sum = 1 + sum * r / k;
  return sum * std::bit_cast<double>(static_cast<uint64_t>(static_cast<int64_t>(n) + 1023) << 52);
}

absl::Status CheckLogits(absl::Span<const float> logits) {
  for (size_t i = 0; i < logits.size(); ++i)
    if (std::isnan(logits[i]) || logits[i] == INFINITY)
      return absl::InternalError(absl::StrCat("the model gives a logit of ", logits[i],
                                              " for token ", i,
                                              ": its weights or its dtype are at fault"));
  return absl::OkStatus();
}

// Log probabilities under the model's own logits.
class LogProbs {
 public:
  explicit LogProbs(absl::Span<const float> logits) : logits_(logits) {
    greatest_ = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += Exp(double{logit} - greatest_);
    log_sum_ = std::log(sum);
  }
  float Of(int32_t token) const {
    return static_cast<float>(double{logits_[token]} - greatest_ - log_sum_);
  }
  std::vector<std::pair<int32_t, float>> Top(int32_t count) const {
    std::vector<int32_t> tokens(logits_.size());
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
    const size_t kept = std::min<size_t>(count, tokens.size());
    std::partial_sort(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(kept), tokens.end(),
                      [this](int32_t a, int32_t b) {
                        return logits_[a] != logits_[b] ? logits_[a] > logits_[b] : a < b;
                      });
    std::vector<std::pair<int32_t, float>> top;
    for (size_t i = 0; i < kept; ++i) top.emplace_back(tokens[i], Of(tokens[i]));
    return top;
  }

 private:
  absl::Span<const float> logits_;
  double greatest_ = 0, log_sum_ = 0;
};

// What becomes of a logit: never stays never, and what was a number stays one.
float Bounded(float logit, float adjusted) {
  constexpr float kMost = std::numeric_limits<float>::max();
  return logit == -INFINITY ? logit : std::clamp(adjusted, -kMost, kMost);
}

absl::Status Adjust(const step::Sample& sample, std::vector<float>* logits) {
  const auto outside = [&](int32_t token) {
    return absl::InvalidArgumentError(
        absl::StrCat("token ", token, " is none of the vocabulary's ", logits->size()));
  };
  const auto is_outside = [&](int32_t token) {
    return token < 0 || static_cast<size_t>(token) >= logits->size();
  };
  for (const auto& [token, bias] : sample.bias) {
    if (is_outside(token)) return outside(token);
    float& logit = (*logits)[token];
    logit = bias == -INFINITY ? bias : Bounded(logit, logit + bias);
  }
  for (const auto& [token, times] : sample.seen) {
    if (is_outside(token)) return outside(token);
    float& logit = (*logits)[token];
    logit = Bounded(
        logit, logit > 0 ? logit / sample.repetition_penalty : logit * sample.repetition_penalty);
    if (times > 0)
      logit = Bounded(logit, logit - (sample.presence_penalty +
                                      sample.frequency_penalty * static_cast<float>(times)));
  }
  return absl::OkStatus();
}

bool Precedes(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
}

// Sorts as much of the front as it takes for its weights to reach `share` of all; gives its length.
size_t SortUntil(double share, std::vector<Candidate>* candidates) {
  double all = 0;
  for (const Candidate& candidate : *candidates) all += candidate.weight;
  double sum = 0;
  size_t sorted = 0;
  for (size_t wanted = 256;; wanted *= 16) {
    const size_t end = std::min(wanted, candidates->size());
    const auto begin = candidates->begin();
    std::partial_sort(begin + static_cast<ptrdiff_t>(sorted), begin + static_cast<ptrdiff_t>(end),
                      candidates->end(), Precedes);
    for (; sorted < end; ++sorted) {
      sum += (*candidates)[sorted].weight;
      if (sum >= share * all) return sorted + 1;
    }
    if (end == candidates->size()) return end;
  }
}

// What the logits, over the temperature, leave after the cuts: sorted where there was a cut.
std::vector<Candidate> Candidates(const std::vector<float>& logits, float greatest,
                                  const step::Sample& sample) {
  std::vector<Candidate> candidates;
  const auto at_least = static_cast<double>(sample.min_p);
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = Exp((double{logits[i]} - greatest) / double{sample.temperature});
    if (weight > 0) candidates.push_back({static_cast<int32_t>(i), weight});
  }
  if (sample.top_k > 0 && static_cast<size_t>(sample.top_k) < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + (sample.top_k - 1), candidates.end(),
                     Precedes);
    candidates.resize(sample.top_k);
    std::sort(candidates.begin(), candidates.end(), Precedes);
  }
  if (sample.top_p < 1) candidates.resize(SortUntil(double{sample.top_p}, &candidates));
  if (sample.min_p > 0)
    std::erase_if(candidates, [=](const Candidate& c) { return c.weight < at_least; });
  return candidates;
}

int32_t Pick(const std::vector<Candidate>& candidates, const step::Sample& sample) {
  double all = 0;
  for (const Candidate& candidate : candidates) all += candidate.weight;
  const double at =
      all * Uniform(sample.seed, sample.choice, static_cast<uint32_t>(sample.position));
  double sum = 0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.weight;
    if (at < sum) return candidate.token;
  }
  return candidates.back().token;
}

}  // namespace

absl::StatusOr<step::Drawn> Draw(absl::Span<const float> logits, const step::Sample& sample) {
  if (absl::Status fault = CheckLogits(logits); !fault.ok()) return fault;
  std::vector<float> adjusted(logits.begin(), logits.end());
  if (absl::Status fault = Adjust(sample, &adjusted); !fault.ok()) return fault;
  const auto greatest = std::max_element(adjusted.begin(), adjusted.end());  // the first of equals
  if (greatest == adjusted.end() || *greatest == -INFINITY)
    return absl::InternalError("no token is left to draw: every logit is -inf");
  step::Drawn drawn;
  drawn.token = sample.temperature == 0 ? static_cast<int32_t>(greatest - adjusted.begin())
                                        : Pick(Candidates(adjusted, *greatest, sample), sample);
  if (sample.logprobs < 0) return drawn;
  const LogProbs model(logits);  // takes longer than the rest
  drawn.logprob = model.Of(drawn.token);
  if (sample.logprobs > 0) drawn.top = model.Top(sample.logprobs);
  return drawn;
}

}  // namespace echelon::sampling
