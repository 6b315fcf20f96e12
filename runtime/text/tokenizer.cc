#include "runtime/text/tokenizer.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/graph/status_macros.h"
#include "runtime/text/capi_status.h"
#include "runtime/text/model_files.h"

namespace echelon {
namespace {

constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;

bool IsId(int64_t id) { return id >= 0 && id <= std::numeric_limits<uint32_t>::max(); }

std::vector<AddedToken> ParseAddedTokens(const std::string& text) {
  std::vector<AddedToken> tokens;
  nlohmann::json list = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  for (const auto& entry : list) {
    tokens.push_back({entry.value("id", int64_t{0}), entry.value("content", std::string()),
                      entry.value("special", false)});
  }
  return tokens;
}

}  // namespace

void Tokenizer::Free::operator()(EchelonTokenizer* tokenizer) const {
  echelon_tokenizer_free(tokenizer);
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Load(
    const std::filesystem::path& directory) {
  const std::filesystem::path file = directory / "tokenizer.json";
  absl::StatusOr<std::string> json = ReadTextFile(file, kMaxTokenizerBytes);
  if (absl::IsNotFound(json.status())) {
    return absl::NotFoundError(
        absl::StrCat(file.string(), " does not exist; write it with transformers: ",
                     "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"));
  }
  ECHELON_RETURN_IF_ERROR(json.status());
  ECHELON_ASSIGN_OR_RETURN(TokenizerConfig config, ReadTokenizerConfig(directory));
  return Make(*json, config.added_tokens_json, file.string());
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Parse(
    std::string_view tokenizer_json, std::string_view tokenizer_config_json,
    std::string_view special_tokens_map_json) {
  ECHELON_ASSIGN_OR_RETURN(TokenizerConfig config,
                           ParseTokenizerConfig(tokenizer_config_json, special_tokens_map_json));
  return Make(tokenizer_json, config.added_tokens_json, "tokenizer.json");
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Make(std::string_view tokenizer_json,
                                                                 std::string_view added_tokens_json,
                                                                 std::string_view where) {
  auto result = std::make_shared<Tokenizer>();
  EchelonTextString error;
  result->tokenizer_.reset(echelon_tokenizer_new(tokenizer_json.data(), tokenizer_json.size(),
                                                 added_tokens_json.data(), added_tokens_json.size(),
                                                 &error));
  std::string message = TakeString(error);
  if (result->tokenizer_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(where), ": ", message));
  }
  EchelonTextString added;
  const EchelonTextCode code = echelon_tokenizer_added_tokens(result->tokenizer_.get(), &added);
  ECHELON_ASSIGN_OR_RETURN(std::string list, TakeResult(code, added, where));
  result->added_tokens_ = ParseAddedTokens(list);
  return result;
}

absl::StatusOr<std::vector<int64_t>> Tokenizer::Encode(std::string_view text,
                                                       const EncodeOptions& options) const {
  EchelonTextIds ids;
  EchelonTextString error;
  const EchelonTextCode code = echelon_tokenizer_encode(tokenizer_.get(), text.data(), text.size(),
                                                        options.add_special_tokens,
                                                        options.parse_special_tokens, &ids, &error);
  std::vector<int64_t> result(ids.data, ids.data + ids.size);
  echelon_text_ids_free(ids);
  ECHELON_RETURN_IF_ERROR(TakeResult(code, error).status());
  return result;
}

absl::StatusOr<std::string> Tokenizer::Decode(absl::Span<const int64_t> ids,
                                              bool skip_special_tokens) const {
  std::vector<uint32_t> known;
  known.reserve(ids.size());
  for (int64_t id : ids) {
    if (IsId(id)) {
      known.push_back(static_cast<uint32_t>(id));
    }
  }
  EchelonTextString text;
  const EchelonTextCode code = echelon_tokenizer_decode(tokenizer_.get(), known.data(),
                                                        known.size(), skip_special_tokens, &text);
  return TakeResult(code, text);
}

std::optional<int64_t> Tokenizer::TokenToId(std::string_view token) const {
  const int64_t id = echelon_tokenizer_token_to_id(tokenizer_.get(), token.data(), token.size());
  return id < 0 ? std::nullopt : std::optional(id);
}

std::optional<std::string> Tokenizer::IdToToken(int64_t id) const {
  if (!IsId(id)) {
    return std::nullopt;
  }
  EchelonTextString token;
  const bool found =
      echelon_tokenizer_id_to_token(tokenizer_.get(), static_cast<uint32_t>(id), &token);
  std::string text = TakeString(token);
  return found ? std::optional(std::move(text)) : std::nullopt;
}

int64_t Tokenizer::vocab_size() const {
  return static_cast<int64_t>(echelon_tokenizer_vocab_size(tokenizer_.get()));
}

}  // namespace echelon
