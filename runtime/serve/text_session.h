// From the tokens of one answer to what its reader gets.
#ifndef ECHELON_RUNTIME_SERVE_TEXT_SESSION_H_
#define ECHELON_RUNTIME_SERVE_TEXT_SESSION_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "proto/generate.pb.h"
#include "runtime/serve/text_backend.h"
#include "runtime/text/decode_stream.h"
#include "runtime/text/stop_strings.h"
#include "runtime/text/tokenizer.h"

namespace echelon::serve {

// One thread at a time.
class TextSession {
 public:
  // `request` as it came, `tokens` what ReadTextRequest made of it.
  TextSession(std::shared_ptr<const Tokenizer> tokenizer, const v1::GenerateRequest& request,
              const TokenRequest& tokens);

  // What this token adds to the answer. Text that may become a stop string is held back until it is
  // known; a stop string, a stop token and the end of sequence are no part of the text. The last
  // response has a finish_reason: the event's own, or that a stop string was met.
  absl::StatusOr<v1::GenerateResponse> Append(const TokenEvent& event);

  bool done() const { return done_; }

 private:
  absl::Status AddText(const TokenEvent& event, v1::GenerateResponse* response);
  absl::Status AddLogprobs(const step::Drawn& drawn, v1::GenerateResponse* response) const;

  const std::shared_ptr<const Tokenizer> tokenizer_;
  const bool with_logprobs_;
  const uint64_t seed_;
  const int32_t prompt_tokens_, min_tokens_;
  const std::vector<std::string> stop_names_;
  DecodeStream decode_;
  StopStrings stops_;
  int32_t completion_tokens_ = 0;
  bool done_ = false;
};

// Adds a response to one that follows it at once: text, tokens and logprobs in their order.
void Join(v1::GenerateResponse&& next, v1::GenerateResponse* into);

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_TEXT_SESSION_H_
