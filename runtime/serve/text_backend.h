// What generates tokens behind the text doors: the head's driver.
#ifndef ECHELON_RUNTIME_SERVE_TEXT_BACKEND_H_
#define ECHELON_RUNTIME_SERVE_TEXT_BACKEND_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/step/step.h"

namespace echelon::serve {

struct TextModelInfo {
  std::string name;
  int32_t vocab_size = 0;
  int32_t max_model_len = 0;  // tokens of prompt and answer together
  std::vector<int32_t> eos_token_ids;
  int32_t bos_token_id = -1;  // -1: none
};

struct TokenRequest {
  std::vector<int32_t> prompt;  // at least one token
  int32_t max_tokens = 0;       // of the answer; 0: as many as the model's length leaves
  int32_t min_tokens = 0;       // until then neither eos nor a stop id is drawn
  bool ignore_eos = false;      // eos is drawn like any other token and ends nothing
  std::vector<int32_t> stop_token_ids;
  // How tokens are drawn. row, choice, position and seen are the driver's to fill in.
  step::Sample sampling;
  absl::Time deadline = absl::InfiniteFuture();
  std::shared_ptr<const std::atomic<bool>> cancelled;  // set when the client has gone; may be null
};

enum class FinishReason { kNone, kStop, kLength };  // kStop: eos or a stop id, which is the token

struct TokenEvent {
  step::Drawn drawn;
  FinishReason finish = FinishReason::kNone;  // kNone: more tokens follow
};

// Called with each token in order, from the driver's thread: it must not block. An error is the
// last call. Returns whether to go on: false ends the request without a further call (a stop
// string).
using OnToken = std::function<bool(absl::StatusOr<TokenEvent>)>;

class TextBackend {
 public:
  virtual ~TextBackend() = default;
  virtual const TextModelInfo& model() const = 0;
  virtual absl::Status Ready() const = 0;  // kUnavailable: why the group is not formed
  // Refusals (kInvalidArgument: names the field; kResourceExhausted: the queue is full;
  // kUnavailable) come through on_token, before Generate returns or after.
  virtual void Generate(TokenRequest request, OnToken on_token) = 0;
};

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_TEXT_BACKEND_H_
