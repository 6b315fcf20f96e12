// A model's tokenizer: text to token ids and back, as transformers does it with the same files.
#ifndef ECHELON_RUNTIME_TEXT_TOKENIZER_H_
#define ECHELON_RUNTIME_TEXT_TOKENIZER_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

struct EchelonTokenizer;  // the C ABI's, behind this class

namespace echelon {

struct EncodeOptions {
  // What the tokenizer puts around a text of its own accord (a bos token, mostly). Off for what a
  // chat template wrote, since a template writes these itself.
  bool add_special_tokens = true;
  // Special tokens that stand in the text ("<|im_end|>") become their ids. Off, they are read as
  // the characters they are: for text of users who must not speak the model's control language.
  bool parse_special_tokens = true;
};

struct AddedToken {
  int64_t id = 0;
  std::string content;
  bool special = false;  // left out of decoded text
};

// Immutable: any number of threads may use one. Texts are UTF-8; bytes that are not are read as
// U+FFFD. clean_up_tokenization_spaces is not applied (transformers ignores it for BPE models too).
class Tokenizer {
 public:
  // DIR/tokenizer.json, with what tokenizer_config.json and special_tokens_map.json add to it, as
  // transformers' TokenizersBackend does. NOT_FOUND without tokenizer.json, INVALID_ARGUMENT for
  // one that is broken.
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Load(
      const std::filesystem::path& directory);
  // The same from the files' texts; an empty one is not there.
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Parse(
      std::string_view tokenizer_json, std::string_view tokenizer_config_json = "",
      std::string_view special_tokens_map_json = "");

  absl::StatusOr<std::vector<int64_t>> Encode(std::string_view text,
                                              const EncodeOptions& options = {}) const;
  // Ids that the vocabulary lacks give no text. Bytes that make no character come as U+FFFD.
  absl::StatusOr<std::string> Decode(absl::Span<const int64_t> ids,
                                     bool skip_special_tokens = true) const;

  std::optional<int64_t> TokenToId(std::string_view token) const;
  std::optional<std::string> IdToToken(int64_t id) const;
  // Tokens, added ones included. A model's logits may be wider (padded) or, where ids have gaps,
  // hold larger ids.
  int64_t vocab_size() const;
  // By id.
  const std::vector<AddedToken>& added_tokens() const { return added_tokens_; }

 private:
  friend class DecodeStream;
  struct Free {
    void operator()(EchelonTokenizer* tokenizer) const;
  };

  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Make(std::string_view tokenizer_json,
                                                               std::string_view added_tokens_json,
                                                               std::string_view where);

  std::unique_ptr<EchelonTokenizer, Free> tokenizer_;
  std::vector<AddedToken> added_tokens_;
};

}  // namespace echelon

#endif  // ECHELON_RUNTIME_TEXT_TOKENIZER_H_
