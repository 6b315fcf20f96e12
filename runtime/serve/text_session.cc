#include "runtime/serve/text_session.h"

#include <string>
#include <utility>

#include "runtime/graph/status_macros.h"

namespace echelon::serve {
namespace {

absl::StatusOr<std::string> TextOf(const Tokenizer& tokenizer, int32_t token) {
  return tokenizer.Decode({int64_t{token}}, /*skip_special_tokens=*/false);
}

}  // namespace

TextSession::TextSession(std::shared_ptr<const Tokenizer> tokenizer,
                         const v1::GenerateRequest& request, const TokenRequest& tokens)
    : tokenizer_(std::move(tokenizer)),
      with_logprobs_(request.has_logprobs()),
      seed_(tokens.sampling.seed),
      prompt_tokens_(static_cast<int32_t>(tokens.prompt.size())),
      min_tokens_(tokens.min_tokens),
      stop_names_(request.stop().begin(), request.stop().end()),
      decode_(tokenizer_),
      stops_(stop_names_) {}

absl::StatusOr<v1::GenerateResponse> TextSession::Append(const TokenEvent& event) {
  v1::GenerateResponse response;
  if (++completion_tokens_ == 1) response.set_seed(seed_);
  response.add_token_ids(event.drawn.token);
  if (with_logprobs_) ECHELON_RETURN_IF_ERROR(AddLogprobs(event.drawn, &response));
  ECHELON_RETURN_IF_ERROR(AddText(event, &response));
  done_ = response.finish_reason() != v1::FINISH_REASON_NONE;
  if (done_) {
    response.mutable_usage()->set_prompt_tokens(prompt_tokens_);
    response.mutable_usage()->set_completion_tokens(completion_tokens_);
  }
  return response;
}

absl::Status TextSession::AddText(const TokenEvent& event, v1::GenerateResponse* response) {
  std::string text;
  if (event.finish != FinishReason::kStop) {
    ECHELON_ASSIGN_OR_RETURN(text, decode_.Append({int64_t{event.drawn.token}}));
  }
  if (event.finish != FinishReason::kNone) {
    ECHELON_ASSIGN_OR_RETURN(const std::string rest, decode_.Flush());
    text += rest;
  }
  StopStrings::Piece piece = stops_.Append(text, /*may_end=*/completion_tokens_ > min_tokens_);
  if (piece.stop) {
    response->set_finish_reason(v1::FINISH_REASON_STOP);
    response->set_stop(stop_names_[*piece.stop]);
  } else if (event.finish != FinishReason::kNone) {
    piece.text += stops_.Flush();
    const bool is_stop = event.finish == FinishReason::kStop;
    response->set_finish_reason(is_stop ? v1::FINISH_REASON_STOP : v1::FINISH_REASON_LENGTH);
    if (is_stop) response->set_stop_token_id(event.drawn.token);
  }
  response->set_text(std::move(piece.text));
  return absl::OkStatus();
}

absl::Status TextSession::AddLogprobs(const step::Drawn& drawn,
                                      v1::GenerateResponse* response) const {
  v1::TokenLogprob* const logprob = response->add_logprobs();
  logprob->set_token_id(drawn.token);
  logprob->set_logprob(drawn.logprob);
  ECHELON_ASSIGN_OR_RETURN(*logprob->mutable_token(), TextOf(*tokenizer_, drawn.token));
  for (const auto& [token, value] : drawn.top) {
    v1::TopLogprob* const top = logprob->add_top();
    top->set_token_id(token);
    top->set_logprob(value);
    ECHELON_ASSIGN_OR_RETURN(*top->mutable_token(), TextOf(*tokenizer_, token));
  }
  return absl::OkStatus();
}

void Join(v1::GenerateResponse&& next, v1::GenerateResponse* into) {
  std::string text = std::move(*into->mutable_text());
  text += next.text();
  into->MergeFrom(next);  // appends what is repeated, takes over what is set
  into->set_text(std::move(text));
}

}  // namespace echelon::serve
