#include "runtime/serve/text_request.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/graph/status_macros.h"

namespace echelon::serve {
namespace {

constexpr int kMaxStops = 64;
constexpr size_t kMaxStopBytes = 1024;
constexpr int kMaxStopTokens = 1024;
constexpr int kMaxBiases = 4096;
constexpr int kMaxLogprobs = 20;
constexpr float kMaxBias = 100;
constexpr float kMaxPenalty = 2;
constexpr float kMaxRepetitionPenalty = 100;
// No tokenizer has a longer token, so a longer text cannot fit: it need not be split to know that.
constexpr int64_t kMaxBytesOfToken = 256;
constexpr int64_t kMaxOtherBytes = 1 << 20;  // options: biases, stop strings

template <typename... Words>
absl::Status Bad(const Words&... words) {
  return absl::InvalidArgumentError(absl::StrCat(words...));
}

absl::Status CheckToken(absl::string_view field, int64_t token, const TextModelInfo& model) {
  if (token >= 0 && token < model.vocab_size) return absl::OkStatus();
  return Bad(field, " ", token, " is no token of the model: ids are below ", model.vocab_size);
}

// ---- The prompt

absl::Status CheckBytes(absl::string_view field, size_t bytes, const TextModelInfo& model) {
  if (static_cast<int64_t>(bytes) <= kMaxBytesOfToken * model.max_model_len)
    return absl::OkStatus();
  return Bad(field, ": ", bytes, " bytes of text are more than the ", model.max_model_len,
             " tokens that the model takes");
}

absl::Status CheckLength(int64_t prompt, const TextModelInfo& model) {
  if (prompt < model.max_model_len) return absl::OkStatus();
  return Bad("the prompt has ", prompt, " tokens; the model takes ", model.max_model_len,
             " of prompt and answer together");
}

absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view field, const std::string& text,
                                            bool add_special_tokens, const TextModelInfo& model,
                                            const Tokenizer& tokenizer) {
  ECHELON_RETURN_IF_ERROR(CheckBytes(field, text.size(), model));
  ECHELON_ASSIGN_OR_RETURN(
      const std::vector<int64_t> ids,
      tokenizer.Encode(text, EncodeOptions{.add_special_tokens = add_special_tokens}));
  for (const int64_t id : ids)
    if (id < 0 || id >= model.vocab_size)
      return Bad(field, " holds '", tokenizer.IdToToken(id).value_or("?"), "', token ", id,
                 " of tokenizer.json, which the model does not know: its ids are below ",
                 model.vocab_size);
  return std::vector<int32_t>(ids.begin(), ids.end());
}

absl::StatusOr<std::vector<int32_t>> FromMessages(const v1::ChatMessages& messages,
                                                  const TextModelInfo& model,
                                                  const TextFiles& files) {
  if (messages.messages().empty()) return Bad("messages: give at least one");
  if (files.chat_template == nullptr)
    return Bad("messages: model '", model.name, "' has no chat template; give text instead");
  std::vector<ChatMessage> list;
  for (const v1::ChatMessage& message : messages.messages()) {
    if (message.role().empty())
      return Bad("messages[", list.size(), "].role is empty; give system, user or assistant");
    list.push_back({message.role(), message.content()});
  }
  const absl::StatusOr<std::string> text =
      files.chat_template->Render({.messages_json = ChatMessagesJson(list)});
  if (!text.ok())
    return absl::Status(text.status().code(), absl::StrCat("messages: ", text.status().message()));
  return Encode("messages", *text, /*add_special_tokens=*/false, model, *files.tokenizer);
}

absl::StatusOr<std::vector<int32_t>> Prompt(const v1::GenerateRequest& request,
                                            const TextModelInfo& model, const TextFiles& files) {
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kText: {
      ECHELON_ASSIGN_OR_RETURN(
          std::vector<int32_t> ids,
          Encode("text", request.text(), /*add_special_tokens=*/true, model, *files.tokenizer));
      // Models that have a bos token were trained to begin with it, so an empty text is one too.
      if (ids.empty() && model.bos_token_id >= 0) ids.push_back(model.bos_token_id);
      if (ids.empty()) return Bad("text: is empty; give at least one token of it");
      return ids;
    }
    case v1::GenerateRequest::kMessages:
      return FromMessages(request.messages(), model, files);
    case v1::GenerateRequest::kTokenIds: {
      const auto& ids = request.token_ids().ids();
      if (ids.empty()) return Bad("token_ids: give at least one");
      for (const int32_t id : ids) ECHELON_RETURN_IF_ERROR(CheckToken("token_ids:", id, model));
      return std::vector<int32_t>(ids.begin(), ids.end());
    }
    case v1::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return Bad("there is no prompt; give text, messages or token_ids");
}

// ---- The answer's end

absl::Status ReadLength(const v1::GenerateRequest& request, const TextModelInfo& model,
                        TokenRequest* into) {
  const auto prompt = static_cast<int64_t>(into->prompt.size());
  ECHELON_RETURN_IF_ERROR(CheckLength(prompt, model));
  const int64_t room = model.max_model_len - prompt;
  if (request.max_tokens() > room && !request.clip_max_tokens())
    return Bad("max_tokens ", request.max_tokens(), " after a prompt of ", prompt,
               " is more than the model's ", model.max_model_len, "; give at most ", room);
  into->max_tokens = static_cast<int32_t>(std::min<int64_t>(request.max_tokens(), room));
  const int64_t most = into->max_tokens > 0 ? into->max_tokens : room;
  if (request.min_tokens() > most)
    return Bad("min_tokens ", request.min_tokens(), " is more than the ", most,
               " that the answer may have");
  into->min_tokens = request.min_tokens();
  return absl::OkStatus();
}

absl::Status ReadEnd(const v1::GenerateRequest& request, const TextModelInfo& model,
                     TokenRequest* into) {
  if (request.max_tokens() < 0)
    return Bad("max_tokens ", request.max_tokens(), " is not 0 or more");
  if (request.min_tokens() < 0)
    return Bad("min_tokens ", request.min_tokens(), " is not 0 or more");
  if (request.stop_size() > kMaxStops)
    return Bad("stop: ", request.stop_size(), " strings, at most ", kMaxStops, " are taken");
  for (const std::string& stop : request.stop()) {
    if (stop.empty()) return Bad("stop: an empty string ends nothing; leave it out");
    if (stop.size() > kMaxStopBytes)
      return Bad("stop: a string of ", stop.size(), " bytes, at most ", kMaxStopBytes, " may be");
  }
  if (request.stop_token_ids_size() > kMaxStopTokens)
    return Bad("stop_token_ids: ", request.stop_token_ids_size(), " tokens, at most ",
               kMaxStopTokens, " are taken");
  for (const int32_t id : request.stop_token_ids())
    ECHELON_RETURN_IF_ERROR(CheckToken("stop_token_ids:", id, model));
  into->ignore_eos = request.ignore_eos();
  into->stop_token_ids.assign(request.stop_token_ids().begin(), request.stop_token_ids().end());
  return absl::OkStatus();
}

// ---- Sampling

absl::Status CheckPenalty(absl::string_view field, float penalty) {
  if (penalty >= -kMaxPenalty && penalty <= kMaxPenalty) return absl::OkStatus();
  return Bad(field, " ", penalty, " is not between -", kMaxPenalty, " and ", kMaxPenalty);
}

absl::Status ReadBias(const v1::GenerateRequest& request, const TextModelInfo& model,
                      step::Sample* sample) {
  const auto& bias = request.logit_bias();
  if (bias.size() > kMaxBiases)
    return Bad("logit_bias: ", bias.size(), " tokens, at most ", kMaxBiases, " are taken");
  for (const auto& [token, value] : bias) {
    ECHELON_RETURN_IF_ERROR(CheckToken("logit_bias: token", token, model));
    if (!(std::abs(value) <= kMaxBias) && value != -INFINITY)
      return Bad("logit_bias: ", value, " of token ", token, " is not between -", kMaxBias, " and ",
                 kMaxBias);
    sample->bias.emplace_back(token, value);
  }
  std::sort(sample->bias.begin(), sample->bias.end());
  return absl::OkStatus();
}

uint64_t RandomSeed() {
  std::random_device random;
  return uint64_t{random()} << 32 | random();
}

absl::StatusOr<step::Sample> ReadSample(const v1::GenerateRequest& request,
                                        const TextModelInfo& model) {
  step::Sample sample;
  sample.temperature = request.temperature();
  sample.top_k = request.top_k();
  sample.top_p = request.has_top_p() ? request.top_p() : 1;
  sample.min_p = request.min_p();
  sample.repetition_penalty = request.has_repetition_penalty() ? request.repetition_penalty() : 1;
  sample.presence_penalty = request.presence_penalty();
  sample.frequency_penalty = request.frequency_penalty();
  if (!std::isfinite(sample.temperature) || sample.temperature < 0)
    return Bad("temperature ", sample.temperature, " is not 0 or more");
  if (sample.top_k < 0) return Bad("top_k ", sample.top_k, " is not 0 or more");
  if (!(sample.top_p > 0 && sample.top_p <= 1))
    return Bad("top_p ", sample.top_p, " is not above 0 and at most 1");
  if (!(sample.min_p >= 0 && sample.min_p <= 1))
    return Bad("min_p ", sample.min_p, " is not between 0 and 1");
  if (!(sample.repetition_penalty >= 1 / kMaxRepetitionPenalty &&
        sample.repetition_penalty <= kMaxRepetitionPenalty))
    return Bad("repetition_penalty ", sample.repetition_penalty, " is not between ",
               1 / kMaxRepetitionPenalty, " and ", kMaxRepetitionPenalty);
  ECHELON_RETURN_IF_ERROR(CheckPenalty("presence_penalty", sample.presence_penalty));
  ECHELON_RETURN_IF_ERROR(CheckPenalty("frequency_penalty", sample.frequency_penalty));
  ECHELON_RETURN_IF_ERROR(ReadBias(request, model, &sample));
  if (request.has_logprobs()) {
    if (request.logprobs() < 0 || request.logprobs() > kMaxLogprobs)
      return Bad("logprobs ", request.logprobs(), " is not between 0 and ", kMaxLogprobs);
    sample.logprobs = std::min(request.logprobs(), model.vocab_size);
  }
  sample.seed = request.has_seed() ? request.seed() : RandomSeed();
  return sample;
}

}  // namespace

absl::StatusOr<TextFiles> LoadTextFiles(const std::filesystem::path& directory) {
  TextFiles files;
  ECHELON_ASSIGN_OR_RETURN(files.tokenizer, Tokenizer::Load(directory));
  auto chat_template = ChatTemplate::Load(directory);
  if (chat_template.ok()) {
    files.chat_template = *std::move(chat_template);
  } else if (chat_template.status().code() != absl::StatusCode::kNotFound) {
    return chat_template.status();
  }
  return files;
}

int64_t MaxRequestBytes(const TextModelInfo& model) {
  return kMaxBytesOfToken * model.max_model_len + kMaxOtherBytes;
}

absl::Status CheckPromptSize(const v1::GenerateRequest& request, const TextModelInfo& model) {
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kText:
      return CheckBytes("text", request.text().size(), model);
    case v1::GenerateRequest::kMessages: {
      // Each becomes a token at least; what a template makes of many takes much memory.
      if (request.messages().messages_size() > model.max_model_len)
        return Bad("messages: ", request.messages().messages_size(), " of them are more than the ",
                   model.max_model_len, " tokens that the model takes");
      size_t bytes = 0;
      for (const v1::ChatMessage& message : request.messages().messages())
        bytes += message.role().size() + message.content().size();
      return CheckBytes("messages", bytes, model);
    }
    case v1::GenerateRequest::kTokenIds:
      return CheckLength(request.token_ids().ids_size(), model);
    case v1::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenRequest> ReadTextRequest(const v1::GenerateRequest& request,
                                             const TextModelInfo& model, const TextFiles& files) {
  if (!request.model().empty() && request.model() != model.name)
    return absl::NotFoundError(absl::StrCat(
        "model '", request.model(), "' is not here; this server serves '", model.name, "'"));
  ECHELON_RETURN_IF_ERROR(CheckPromptSize(request, model));
  TokenRequest result;
  // What costs nothing to refuse is refused before a long text is split into tokens.
  ECHELON_ASSIGN_OR_RETURN(result.sampling, ReadSample(request, model));
  ECHELON_RETURN_IF_ERROR(ReadEnd(request, model, &result));
  ECHELON_ASSIGN_OR_RETURN(result.prompt, Prompt(request, model, files));
  ECHELON_RETURN_IF_ERROR(ReadLength(request, model, &result));
  return result;
}

}  // namespace echelon::serve
