#include "runtime/stage/text_sequence.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace echelon::stage {
namespace {

template <typename... What>
absl::Status Invalid(const What&... what) {
  return absl::InvalidArgumentError(absl::StrCat(what...));
}

absl::Status CheckLengths(const serve::TokenRequest& request, const serve::TextModelInfo& model) {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt == 0) return Invalid("prompt has no tokens; it needs at least one");
  if (prompt >= model.max_model_len)
    return Invalid("prompt has ", prompt, " tokens; model ", model.name, " takes ",
                   model.max_model_len, " of prompt and answer together");
  if (request.max_tokens < 0)
    return Invalid("max_tokens is ", request.max_tokens,
                   "; it must be at least 1 (0: as many as fit)");
  if (prompt + request.max_tokens > model.max_model_len)
    return Invalid("prompt has ", prompt, " tokens and max_tokens is ", request.max_tokens,
                   "; model ", model.name, " takes ", model.max_model_len, " together");
  const int64_t most = request.max_tokens > 0 ? request.max_tokens : model.max_model_len - prompt;
  if (request.min_tokens < 0 || request.min_tokens > most)
    return Invalid("min_tokens is ", request.min_tokens, "; it must be in 0..", most);
  return absl::OkStatus();
}

// The sampling options' rules are step's.
absl::Status CheckSampling(step::Sample sample, const step::Limits& limits) {
  sample.row = 0;
  sample.position = 0;
  sample.seen.clear();
  const step::Step probe{.sequences = {{.count = 1, .blocks = {0}}}, .samples = {sample}};
  const absl::Status status = step::Check(probe, limits);
  return status.ok() ? status
                     : Invalid(absl::StripPrefix(status.message(), "sample 0 of the step: "));
}

}  // namespace

absl::Status CheckRequest(const serve::TokenRequest& request, const serve::TextModelInfo& model,
                          const step::Limits& limits) {
  if (absl::Status status = CheckLengths(request, model); !status.ok()) return status;
  const auto is_token = [&](int32_t token) { return token >= 0 && token < model.vocab_size; };
  for (size_t i = 0; i < request.prompt.size(); ++i)
    if (!is_token(request.prompt[i]))
      return Invalid("prompt's token ", i, " is ", request.prompt[i], "; model ", model.name,
                     " has tokens 0..", model.vocab_size - 1);
  for (const int32_t token : request.stop_token_ids)
    if (!is_token(token))
      return Invalid("stop_token_ids has ", token, "; model ", model.name, " has tokens 0..",
                     model.vocab_size - 1);
  return CheckSampling(request.sampling, limits);
}

TextSequence::TextSequence(const serve::TokenRequest& request, const serve::TextModelInfo& model,
                           int64_t cache_tokens)
    : sampling_(request.sampling),
      ends_(request.stop_token_ids.begin(), request.stop_token_ids.end()),
      tokens_(request.prompt),
      prompt_tokens_(static_cast<int32_t>(request.prompt.size())),
      min_tokens_(request.min_tokens),
      has_penalty_(sampling_.repetition_penalty != 1 || sampling_.presence_penalty != 0 ||
                   sampling_.frequency_penalty != 0) {
  if (!request.ignore_eos) ends_.insert(model.eos_token_ids.begin(), model.eos_token_ids.end());
  if (request.max_tokens > 0) {
    max_tokens_ = prompt_tokens_ + request.max_tokens;
  } else {
    // The last token is drawn, but never fed back.
    const int64_t most = std::min<int64_t>(model.max_model_len, cache_tokens + 1);
    max_tokens_ = static_cast<int32_t>(std::max<int64_t>(most, prompt_tokens_ + 1));
  }
  std::map<int32_t, float> bias(sampling_.bias.begin(), sampling_.bias.end());
  for (const int32_t end : ends_) bias[end] = -std::numeric_limits<float>::infinity();
  bias_until_min_.assign(bias.begin(), bias.end());
  if (has_penalty_)
    for (const int32_t token : tokens_) seen_[token] = 0;
}

step::Sample TextSequence::NextSample() const {
  step::Sample sample = sampling_;
  sample.choice = 0;
  sample.position = static_cast<int32_t>(tokens_.size());
  sample.seen.assign(seen_.begin(), seen_.end());
  if (generated_tokens() < min_tokens_) sample.bias = bias_until_min_;
  return sample;
}

serve::FinishReason TextSequence::Take(int32_t token) {
  tokens_.push_back(token);
  if (has_penalty_) ++seen_[token];
  if (ends_.contains(token)) return serve::FinishReason::kStop;
  const bool is_full = static_cast<int32_t>(tokens_.size()) >= max_tokens_;
  return is_full ? serve::FinishReason::kLength : serve::FinishReason::kNone;
}

}  // namespace echelon::stage
