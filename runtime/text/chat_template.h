// A model's chat template: messages to the prompt the model was trained on.
#ifndef ECHELON_RUNTIME_TEXT_CHAT_TEMPLATE_H_
#define ECHELON_RUNTIME_TEXT_CHAT_TEMPLATE_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

struct EchelonTemplate;  // the C ABI's, behind this class

namespace echelon {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant", ...
  std::string content;
};
// As JSON, for ChatRequest.
std::string ChatMessagesJson(absl::Span<const ChatMessage> messages);

// What a template is given, as apply_chat_template gives it. Everything is JSON, in the order it
// was written in: templates print it.
struct ChatRequest {
  std::string messages_json;   // a list of at least one object
  std::string tools_json;      // a list; empty: none
  std::string documents_json;  // a list; empty: none
  std::string variables_json;  // an object, further variables (chat_template_kwargs); empty: none
  bool add_generation_prompt = true;
  std::optional<int64_t> now_s;  // for strftime_now, since 1970; the clock's unless given
};

struct ChatTemplateLimits {
  // Instructions of the template engine; a message takes some hundreds.
  uint64_t max_steps = 2'000'000;
  uint64_t max_output_bytes = uint64_t{64} << 20;
};

// Immutable: any number of threads may use one. Templates read no file and reach no network; size,
// depth and steps are bounded. A template that builds one string out of itself again and again can
// still take memory: take models from where you trust.
class ChatTemplate {
 public:
  // DIR/chat_template.jinja, or tokenizer_config.json's chat_template. NOT_FOUND when the model
  // has none, INVALID_ARGUMENT when it does not parse.
  static absl::StatusOr<std::shared_ptr<const ChatTemplate>> Load(
      const std::filesystem::path& directory, const ChatTemplateLimits& limits = {});
  // special_tokens: name ("bos_token") to text.
  static absl::StatusOr<std::shared_ptr<const ChatTemplate>> Parse(
      std::string_view source, const std::map<std::string, std::string>& special_tokens = {},
      const ChatTemplateLimits& limits = {});

  // The prompt, to be encoded without add_special_tokens. INVALID_ARGUMENT when the messages are no
  // such JSON or the template refuses them (raise_exception), RESOURCE_EXHAUSTED at a limit.
  absl::StatusOr<std::string> Render(const ChatRequest& request) const;

 private:
  struct Free {
    void operator()(EchelonTemplate* chat_template) const;
  };
  using Handle = std::unique_ptr<EchelonTemplate, Free>;

  static absl::StatusOr<Handle> Compile(std::string_view source, std::string_view where);

  Handle default_;
  Handle with_tools_;  // null: the default serves for tools too
  std::string special_tokens_json_;
  ChatTemplateLimits limits_;
};

}  // namespace echelon

#endif  // ECHELON_RUNTIME_TEXT_CHAT_TEMPLATE_H_
