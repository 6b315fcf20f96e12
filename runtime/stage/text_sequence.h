// One text request as the head knows it: its tokens so far, how the next is drawn, and when it
// ends. Pure.
#ifndef ECHELON_RUNTIME_STAGE_TEXT_SEQUENCE_H_
#define ECHELON_RUNTIME_STAGE_TEXT_SEQUENCE_H_

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "runtime/serve/text_backend.h"
#include "runtime/step/step.h"

namespace echelon::stage {

// kInvalidArgument names the field, what it is and what it may be.
absl::Status CheckRequest(const serve::TokenRequest& request, const serve::TextModelInfo& model,
                          const step::Limits& limits);

class TextSequence {
 public:
  // Precondition: CheckRequest(request) is ok. cache_tokens: what the whole KV cache holds; an
  // answer whose length was left open goes no further.
  TextSequence(const serve::TokenRequest& request, const serve::TextModelInfo& model,
               int64_t cache_tokens);

  // Of the prompt and the answer so far: from these it can be computed again.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  int32_t prompt_tokens() const { return prompt_tokens_; }
  int32_t generated_tokens() const { return static_cast<int32_t>(tokens_.size()) - prompt_tokens_; }
  int32_t max_tokens() const { return max_tokens_; }  // of prompt and answer

  // How the token after tokens() is drawn; row is left to the caller.
  step::Sample NextSample() const;
  // Adds the token drawn. Whether it is the last.
  serve::FinishReason Take(int32_t token);

 private:
  const step::Sample sampling_;
  std::vector<std::pair<int32_t, float>> bias_until_min_;  // the request's, and no end
  std::set<int32_t> ends_;                                 // eos and stop ids
  std::vector<int32_t> tokens_;
  int32_t prompt_tokens_ = 0, min_tokens_ = 0, max_tokens_ = 0;
  bool has_penalty_ = false;
  std::map<int32_t, int32_t> seen_;  // as in step::Sample; kept where there is a penalty
};

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_TEXT_SEQUENCE_H_
