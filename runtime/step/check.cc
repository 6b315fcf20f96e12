#include <algorithm>
#include <cmath>
#include <set>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "runtime/step/step.h"

namespace echelon::step {
namespace {

absl::Status Fault(absl::string_view of, uint64_t id, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(of, " ", id, " of the step: ", what));
}

absl::Status TooMany(absl::string_view what, size_t count, int64_t limit) {
  return absl::InvalidArgumentError(
      absl::StrCat("the step has ", count, " ", what, ", at most ", limit, " are taken"));
}

absl::Status CheckSequence(const Sequence& sequence, const Limits& limits) {
  const auto fault = [&](const auto&... what) {
    return Fault("sequence", sequence.id, absl::StrCat(what...));
  };
  if (sequence.start < 0 || sequence.count < 1)
    return fault("start ", sequence.start, " and count ", sequence.count, " are no tokens");
  const int64_t end = int64_t{sequence.start} + sequence.count;
  if (end > limits.length) return fault(end, " tokens, at most ", limits.length);
  const auto blocks = static_cast<int64_t>(sequence.blocks.size());
  if (blocks * limits.block_tokens < end)
    return fault(blocks, " blocks of ", limits.block_tokens, " do not hold ", end, " tokens");
  if ((blocks - 1) * limits.block_tokens >= limits.length)
    return fault(blocks, " blocks hold more than ", limits.length, " tokens");
  for (const int32_t block : sequence.blocks)
    if (block < 0 || block >= limits.blocks)
      return fault("block ", block, " is none of the cache's ", limits.blocks);
  return absl::OkStatus();
}

// What one writes no other may see: blocks that are only read can be shared.
absl::Status CheckOverlaps(const std::vector<Sequence>& sequences, const Limits& limits) {
  struct Users {
    const Sequence *holder = nullptr, *writer = nullptr;
  };
  size_t count = 0;
  for (const Sequence& sequence : sequences) count += sequence.blocks.size();
  absl::flat_hash_map<int32_t, Users> users_of(count);
  for (const Sequence& sequence : sequences) {
    const int32_t first_written = sequence.start / limits.block_tokens;
    for (size_t i = 0; i < sequence.blocks.size(); ++i) {
      const int32_t block = sequence.blocks[i];
      Users& users = users_of[block];
      if (users.holder == &sequence)
        return Fault("sequence", sequence.id, absl::StrCat("block ", block, " is there twice"));
      const bool is_written = static_cast<int32_t>(i) >= first_written;
      const Sequence* other = is_written ? users.holder : users.writer;
      if (other != nullptr)
        return Fault("sequence", sequence.id,
                     absl::StrCat("block ", block, " is sequence ", other->id, "'s too"));
      users.holder = &sequence;
      if (is_written) users.writer = &sequence;
    }
  }
  return absl::OkStatus();
}

template <typename Value>
bool HasRisingTokens(const std::vector<std::pair<int32_t, Value>>& pairs, int32_t vocabulary) {
  int32_t next = 0;
  for (const auto& [token, value] : pairs) {
    if (token < next || token >= vocabulary) return false;
    next = token + 1;
  }
  return true;
}

absl::Status CheckSample(const Sample& sample, size_t index, int64_t tokens, const Limits& limits) {
  const auto fault = [&](const auto&... what) {
    return Fault("sample", index, absl::StrCat(what...));
  };
  if (sample.row < 0 || sample.row >= tokens)
    return fault("row ", sample.row, " is none of the step's ", tokens);
  if (sample.position < 0 || sample.position > limits.length)
    return fault("position ", sample.position, " is not in 0..", limits.length);
  if (!std::isfinite(sample.temperature) || sample.temperature < 0)
    return fault("temperature ", sample.temperature, " is not 0 or more");
  if (sample.top_k < 0) return fault("top_k ", sample.top_k, " is not 0 or more");
  if (!(sample.top_p > 0 && sample.top_p <= 1))
    return fault("top_p ", sample.top_p, " is not above 0 and at most 1");
  if (!(sample.min_p >= 0 && sample.min_p <= 1))
    return fault("min_p ", sample.min_p, " is not in 0..1");
  if (!std::isfinite(sample.repetition_penalty) || sample.repetition_penalty <= 0)
    return fault("repetition_penalty ", sample.repetition_penalty, " is not above 0");
  if (!std::isfinite(sample.presence_penalty) || !std::isfinite(sample.frequency_penalty))
    return fault("a penalty is not finite");
  if (!HasRisingTokens(sample.seen, limits.vocabulary) ||
      !HasRisingTokens(sample.bias, limits.vocabulary))
    return fault("tokens seen or biased are not rising below ", limits.vocabulary);
  for (const auto& [token, times] : sample.seen)
    if (times < 0 || times > limits.length)
      return fault("token ", token, " was not seen ", times, " times");
  for (const auto& [token, bias] : sample.bias)
    if (std::isnan(bias) || bias == INFINITY)
      return fault("bias ", bias, " of token ", token, " is neither finite nor -inf");
  if (sample.logprobs < -1 || sample.logprobs > limits.logprobs)
    return fault("logprobs ", sample.logprobs, " is not in -1..", limits.logprobs);
  return absl::OkStatus();
}

}  // namespace

absl::Status Check(const Step& step, const Limits& limits) {
  if (step.sequences.size() > static_cast<size_t>(limits.sequences))
    return TooMany("sequences", step.sequences.size(), limits.sequences);
  if (step.samples.size() > static_cast<size_t>(limits.samples))
    return TooMany("samples", step.samples.size(), limits.samples);
  int64_t tokens = 0;
  std::set<uint64_t> ids;
  for (const Sequence& sequence : step.sequences) {
    if (absl::Status fault = CheckSequence(sequence, limits); !fault.ok()) return fault;
    if (!ids.insert(sequence.id).second) return Fault("sequence", sequence.id, "is there twice");
    tokens += sequence.count;
  }
  if (tokens > limits.tokens) return TooMany("tokens", tokens, limits.tokens);
  if (absl::Status fault = CheckOverlaps(step.sequences, limits); !fault.ok()) return fault;
  for (size_t i = 0; i < step.samples.size(); ++i)
    if (absl::Status fault = CheckSample(step.samples[i], i, tokens, limits); !fault.ok())
      return fault;
  return absl::OkStatus();
}

absl::Status Check(const Result& result, size_t samples, const Limits& limits) {
  if (result.drawn.size() != samples)
    return absl::InvalidArgumentError(absl::StrCat("the step's result has ", result.drawn.size(),
                                                   " tokens drawn, ", samples, " were asked for"));
  for (size_t i = 0; i < result.drawn.size(); ++i) {
    const Drawn& drawn = result.drawn[i];
    if (!drawn.status.ok()) continue;
    const auto is_token = [&](int32_t token) { return token >= 0 && token < limits.vocabulary; };
    if (!is_token(drawn.token))
      return Fault("sample", i,
                   absl::StrCat("token ", drawn.token, " is none of ", limits.vocabulary));
    if (drawn.top.size() > static_cast<size_t>(limits.logprobs))
      return Fault("sample", i, absl::StrCat(drawn.top.size(), " logprobs"));
    bool is_number = !std::isnan(drawn.logprob);
    for (const auto& [token, logprob] : drawn.top) {
      if (!is_token(token)) return Fault("sample", i, absl::StrCat("top token ", token));
      is_number = is_number && !std::isnan(logprob);
    }
    if (!is_number) return Fault("sample", i, "a logprob is NaN");
  }
  return absl::OkStatus();
}

}  // namespace echelon::step
