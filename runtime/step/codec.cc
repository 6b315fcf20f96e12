#include <google/protobuf/repeated_field.h>

#include "absl/strings/str_cat.h"
#include "proto/step.pb.h"
#include "runtime/step/step.h"

namespace echelon::step {
namespace {

constexpr auto kLastCode = static_cast<uint32_t>(absl::StatusCode::kUnauthenticated);

using Numbers = google::protobuf::RepeatedField<uint32_t>;

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed step metadata: ", what));
}

// Numbers go over the wire unsigned; one beyond int32_t would come out negative.
bool IsInt(uint32_t number) { return number <= INT32_MAX; }

void RunsOf(const std::vector<int32_t>& blocks, Numbers* runs) {
  for (size_t i = 0; i < blocks.size();) {
    size_t end = i + 1;
    while (end < blocks.size() && blocks[end] == blocks[end - 1] + 1) ++end;
    runs->Add(static_cast<uint32_t>(blocks[i]));
    runs->Add(static_cast<uint32_t>(end - i));
    i = end;
  }
}

// Checked against the limits before anything is allocated: a run's length is a number, not bytes.
absl::Status BlocksOf(const Numbers& runs, const Limits& limits, std::vector<int32_t>* blocks) {
  const int64_t most = (int64_t{limits.length} + limits.block_tokens - 1) / limits.block_tokens;
  int64_t total = 0;
  if (runs.size() % 2 != 0) return Malformed("half a run of blocks");
  for (int i = 0; i < runs.size(); i += 2) {
    total += runs[i + 1];
    if (total > most)
      return Malformed(absl::StrCat(total, " blocks for a text of at most ", limits.length,
                                    " tokens, which has ", most));
    if (int64_t{runs[i]} + runs[i + 1] > limits.blocks || runs[i + 1] == 0)
      return Malformed(absl::StrCat("a run of ", runs[i + 1], " blocks from ", runs[i],
                                    " where the cache has ", limits.blocks));
  }
  blocks->reserve(total);
  for (int i = 0; i < runs.size(); i += 2)
    for (uint32_t k = 0; k < runs[i + 1]; ++k) blocks->push_back(static_cast<int32_t>(runs[i] + k));
  return absl::OkStatus();
}

template <typename Value, typename Values>
void PutPairs(const std::vector<std::pair<int32_t, Value>>& pairs, Numbers* steps, Values* values) {
  int32_t last = 0;
  for (const auto& [token, value] : pairs) {
    steps->Add(static_cast<uint32_t>(token - last));
    values->Add(value);
    last = token;
  }
}

template <typename Value, typename Values>
absl::Status TakePairs(const Numbers& steps, const Values& values,
                       std::vector<std::pair<int32_t, Value>>* pairs) {
  if (steps.size() != values.size()) return Malformed("tokens and their values differ in number");
  int64_t token = 0;
  for (int i = 0; i < steps.size(); ++i) {
    token += steps[i];
    if (token > INT32_MAX) return Malformed("a token beyond any vocabulary");
    pairs->emplace_back(static_cast<int32_t>(token), static_cast<Value>(values[i]));
  }
  return absl::OkStatus();
}

void Put(const Sample& from, v1::Sample* to) {
  to->set_row(from.row);
  to->set_seed(from.seed);
  to->set_choice(from.choice);
  to->set_position(from.position);
  to->set_temperature(from.temperature);
  to->set_top_k(from.top_k);
  if (from.top_p != 1) to->set_top_p(from.top_p);
  to->set_min_p(from.min_p);
  if (from.repetition_penalty != 1) to->set_repetition_penalty(from.repetition_penalty);
  to->set_presence_penalty(from.presence_penalty);
  to->set_frequency_penalty(from.frequency_penalty);
  PutPairs(from.seen, to->mutable_seen_steps(), to->mutable_seen_times());
  PutPairs(from.bias, to->mutable_bias_steps(), to->mutable_bias());
  if (from.logprobs >= 0) to->set_logprobs(from.logprobs);
}

absl::Status Take(const v1::Sample& from, Sample* to) {
  for (const uint32_t number : {from.row(), from.position(), from.top_k(), from.logprobs()})
    if (!IsInt(number)) return Malformed(absl::StrCat("number ", number, " in a sample"));
  to->row = static_cast<int32_t>(from.row());
  to->seed = from.seed();
  to->choice = from.choice();
  to->position = static_cast<int32_t>(from.position());
  to->temperature = from.temperature();
  to->top_k = static_cast<int32_t>(from.top_k());
  to->top_p = from.has_top_p() ? from.top_p() : 1;
  to->min_p = from.min_p();
  to->repetition_penalty = from.has_repetition_penalty() ? from.repetition_penalty() : 1;
  to->presence_penalty = from.presence_penalty();
  to->frequency_penalty = from.frequency_penalty();
  to->logprobs = from.has_logprobs() ? static_cast<int32_t>(from.logprobs()) : -1;
  absl::Status taken = TakePairs(from.seen_steps(), from.seen_times(), &to->seen);
  taken.Update(TakePairs(from.bias_steps(), from.bias(), &to->bias));
  return taken;
}

absl::Status Take(const v1::Sequence& from, const Limits& limits, Sequence* to) {
  if (!IsInt(from.start()) || !IsInt(from.count()))
    return Malformed(absl::StrCat("start ", from.start(), ", count ", from.count()));
  to->id = from.id();
  to->start = static_cast<int32_t>(from.start());
  to->count = static_cast<int32_t>(from.count());
  return BlocksOf(from.block_runs(), limits, &to->blocks);
}

bool Parse(std::string_view bytes, google::protobuf::MessageLite* message) {
  return bytes.size() <= INT32_MAX &&
         message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

}  // namespace

std::string Serialize(const Step& step) {
  v1::Step message;
  for (const Sequence& sequence : step.sequences) {
    v1::Sequence* to = message.add_sequences();
    to->set_id(sequence.id);
    to->set_start(sequence.start);
    to->set_count(sequence.count);
    RunsOf(sequence.blocks, to->mutable_block_runs());
  }
  for (const Sample& sample : step.samples) Put(sample, message.add_samples());
  return message.SerializeAsString();
}

std::string Serialize(const Result& result) {
  v1::Result message;
  for (const Drawn& drawn : result.drawn) {
    v1::Drawn* to = message.add_drawn();
    if (!drawn.status.ok()) {
      to->set_failed(static_cast<uint32_t>(drawn.status.code()));
      to->set_why(std::string(drawn.status.message()));
      continue;
    }
    to->set_token(drawn.token);
    to->set_logprob(drawn.logprob);
    for (const auto& [token, logprob] : drawn.top) {
      to->add_top(token);
      to->add_top_logprobs(logprob);
    }
  }
  return message.SerializeAsString();
}

absl::StatusOr<Step> ParseStep(std::string_view bytes, const Limits& limits) {
  v1::Step message;
  if (!Parse(bytes, &message)) return Malformed("no protobuf of echelon.step.v1.Step");
  if (message.sequences_size() > limits.sequences || message.samples_size() > limits.samples)
    return Malformed(absl::StrCat(message.sequences_size(), " sequences and ",
                                  message.samples_size(), " samples, at most ", limits.sequences,
                                  " and ", limits.samples, " are taken"));
  Step step;
  for (const v1::Sequence& from : message.sequences()) {
    absl::Status taken = Take(from, limits, &step.sequences.emplace_back());
    if (!taken.ok()) return taken;
  }
  for (const v1::Sample& from : message.samples()) {
    absl::Status taken = Take(from, &step.samples.emplace_back());
    if (!taken.ok()) return taken;
  }
  if (absl::Status fault = Check(step, limits); !fault.ok()) return fault;
  return step;
}

absl::StatusOr<Result> ParseResult(std::string_view bytes, size_t samples, const Limits& limits) {
  v1::Result message;
  if (!Parse(bytes, &message)) return Malformed("no protobuf of echelon.step.v1.Result");
  Result result;
  for (const v1::Drawn& from : message.drawn()) {
    Drawn& to = result.drawn.emplace_back();
    if (from.failed() > kLastCode) return Malformed(absl::StrCat("status ", from.failed()));
    if (from.failed() != 0) {
      to.status = absl::Status(static_cast<absl::StatusCode>(from.failed()), from.why());
      continue;
    }
    if (!IsInt(from.token())) return Malformed(absl::StrCat("token ", from.token()));
    to.token = static_cast<int32_t>(from.token());
    to.logprob = from.logprob();
    if (from.top_size() != from.top_logprobs_size()) return Malformed("tokens without logprobs");
    for (int i = 0; i < from.top_size(); ++i) {
      if (!IsInt(from.top(i))) return Malformed(absl::StrCat("token ", from.top(i)));
      to.top.emplace_back(static_cast<int32_t>(from.top(i)), from.top_logprobs(i));
    }
  }
  if (absl::Status fault = Check(result, samples, limits); !fault.ok()) return fault;
  return result;
}

}  // namespace echelon::step
