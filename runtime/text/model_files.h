// What tokenizer_config.json and its neighbours say, as transformers' TokenizersBackend reads them
// (tokenization_utils_base.py, _from_pretrained). For this room's .cc files only.
#ifndef ECHELON_RUNTIME_TEXT_MODEL_FILES_H_
#define ECHELON_RUNTIME_TEXT_MODEL_FILES_H_

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace echelon {

struct TokenizerConfig {
  // bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token: those that are
  // set.
  std::map<std::string, std::string> special_tokens;
  std::string added_tokens_json = "[]";               // as capi.h's echelon_tokenizer_new takes it
  std::map<std::string, std::string> chat_templates;  // by name; the only one is called "default"
};

// The file's text; NOT_FOUND where there is none. At most `max_bytes` are read, a larger file is
// refused.
absl::StatusOr<std::string> ReadTextFile(const std::filesystem::path& file, size_t max_bytes);

// config: tokenizer_config.json; special_tokens_map: special_tokens_map.json. Empty: not there.
absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(std::string_view config,
                                                     std::string_view special_tokens_map);

// Both files of a model's directory, and its chat_template.jinja and additional_chat_templates/,
// which come before the configuration's templates. Each may be missing.
absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::filesystem::path& directory);

}  // namespace echelon

#endif  // ECHELON_RUNTIME_TEXT_MODEL_FILES_H_
