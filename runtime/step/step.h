// What one step of a text model is about: whose tokens they are, where their keys and values lie,
// and what the last stage is to draw. Travels in link::Frame::rows; the answer returns likewise.
// Pure: no I/O, lock or clock.
#ifndef ECHELON_RUNTIME_STEP_STEP_H_
#define ECHELON_RUNTIME_STEP_STEP_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace echelon::step {

// Consecutive tokens of one sequence. A step's packed tokens are those of its sequences, in order.
struct Sequence {
  uint64_t id = 0;
  int32_t start = 0;            // position of the first token here: as many are cached already
  int32_t count = 0;            // tokens in this step, at least 1
  std::vector<int32_t> blocks;  // of the KV cache, by position; they cover start + count tokens
  bool operator==(const Sequence&) const = default;
};

// One token to be drawn. Several may be drawn from one row (choices of one prompt).
struct Sample {
  int32_t row = 0;  // among the rows that the model gives logits for (its input `rows`), in order
  uint64_t seed = 0;
  uint32_t choice = 0;
  int32_t position = 0;   // of the token to be drawn: the generator's counter
  float temperature = 0;  // 0: greedy
  int32_t top_k = 0;      // 0: off
  float top_p = 1;        // (0, 1]; 1: off
  float min_p = 0;        // [0, 1]; 0: off
  float repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  // Token -> times generated (0: only in the prompt), by rising token; given when a penalty is on.
  std::vector<std::pair<int32_t, int32_t>> seen;
  // Token -> what is added to its logit, by rising token; -infinity bans it.
  std::vector<std::pair<int32_t, float>> bias;
  // How many of the likeliest tokens to report beside the drawn one; -1: not its own either.
  int32_t logprobs = -1;
  bool operator==(const Sample&) const = default;
};

struct Step {
  std::vector<Sequence> sequences;
  std::vector<Sample> samples;
  bool operator==(const Step&) const = default;
};

struct Drawn {
  absl::Status status;  // why this sample could not be drawn; the rest then says nothing
  int32_t token = 0;
  float logprob = 0;                           // natural logarithm; 0 where it is not asked for
  std::vector<std::pair<int32_t, float>> top;  // token, logprob; likeliest first
  bool operator==(const Drawn&) const = default;
};

struct Result {
  std::vector<Drawn> drawn;  // one a sample, in order
  bool operator==(const Result&) const = default;
};

// What a receiver is ready for. Nothing larger is allocated, whatever the bytes claim.
struct Limits {
  int32_t tokens = 65536;    // of a step
  int32_t sequences = 4096;  // of a step
  int32_t samples = 4096;    // of a step
  int32_t length = 1 << 20;  // tokens of a sequence, cached ones included
  int32_t block_tokens = 16;
  int32_t blocks = 0;      // of the KV cache; ids are below
  int32_t vocabulary = 0;  // tokens are below
  int32_t logprobs = 128;  // of a sample
};

// kInvalidArgument names the sequence or sample and what is wrong with it: counts, limits, a block
// that is no block, is there twice, or is written by one sequence and held by another (blocks that
// are only read may be shared), tokens out of order, options out of range.
absl::Status Check(const Step& step, const Limits& limits);
// samples: as many as were asked for.
absl::Status Check(const Result& result, size_t samples, const Limits& limits);

// Protobuf (proto/step.proto). A decode step of one user takes some 40 bytes.
// Precondition: what Check demands of orders (seen, bias).
std::string Serialize(const Step& step);
std::string Serialize(const Result& result);

// Foreign bytes: kInvalidArgument, in one line, for what is malformed or fails Check.
absl::StatusOr<Step> ParseStep(std::string_view bytes, const Limits& limits);
absl::StatusOr<Result> ParseResult(std::string_view bytes, size_t samples, const Limits& limits);

// "sequence 7: positions 128..130 in blocks 4..12,40" and the like, a line each.
std::string ToText(const Step& step);
std::string ToText(const Result& result);

}  // namespace echelon::step

#endif  // ECHELON_RUNTIME_STEP_STEP_H_
