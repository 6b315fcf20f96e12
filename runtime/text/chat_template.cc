#include "runtime/text/chat_template.h"

#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "runtime/graph/status_macros.h"
#include "runtime/text/capi_status.h"
#include "runtime/text/model_files.h"

namespace echelon {
namespace {

using Json = nlohmann::ordered_json;

// Bytes that are no UTF-8 become U+FFFD.
std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

EchelonTemplateVariable Variable(std::string_view name, std::string_view json) {
  return {name.data(), name.size(), json.data(), json.size()};
}

}  // namespace

std::string ChatMessagesJson(absl::Span<const ChatMessage> messages) {
  Json list = Json::array();
  for (const ChatMessage& message : messages) {
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  return Dump(list);
}

void ChatTemplate::Free::operator()(EchelonTemplate* chat_template) const {
  echelon_template_free(chat_template);
}

absl::StatusOr<ChatTemplate::Handle> ChatTemplate::Compile(std::string_view source,
                                                           std::string_view where) {
  EchelonTextString error;
  Handle handle(echelon_template_new(source.data(), source.size(), &error));
  std::string message = TakeString(error);
  if (handle == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(where), ": ", message));
  }
  return handle;
}

absl::StatusOr<std::shared_ptr<const ChatTemplate>> ChatTemplate::Load(
    const std::filesystem::path& directory, const ChatTemplateLimits& limits) {
  ECHELON_ASSIGN_OR_RETURN(TokenizerConfig config, ReadTokenizerConfig(directory));
  if (config.chat_templates.empty()) {
    return absl::NotFoundError(absl::StrCat(
        directory.string(), " has no chat template (chat_template.jinja, or chat_template in ",
        "tokenizer_config.json): the model is not made for chat; send it a plain prompt"));
  }
  auto found = config.chat_templates.find("default");
  if (found == config.chat_templates.end()) {
    const auto name = [](std::string* out, const auto& entry) { out->append(entry.first); };
    return absl::InvalidArgumentError(
        absl::StrCat(directory.string(), " has chat templates (",
                     absl::StrJoin(config.chat_templates, ", ", name),
                     ") and none is called default; name one so in tokenizer_config.json"));
  }
  const std::string where = absl::StrCat(directory.string(), ": chat template");
  auto result = std::make_shared<ChatTemplate>();
  ECHELON_ASSIGN_OR_RETURN(result->default_, Compile(found->second, where));
  if (auto tools = config.chat_templates.find("tool_use"); tools != config.chat_templates.end()) {
    ECHELON_ASSIGN_OR_RETURN(result->with_tools_, Compile(tools->second, where));
  }
  result->special_tokens_json_ = Dump(config.special_tokens);
  result->limits_ = limits;
  return result;
}

absl::StatusOr<std::shared_ptr<const ChatTemplate>> ChatTemplate::Parse(
    std::string_view source, const std::map<std::string, std::string>& special_tokens,
    const ChatTemplateLimits& limits) {
  auto result = std::make_shared<ChatTemplate>();
  ECHELON_ASSIGN_OR_RETURN(result->default_, Compile(source, "chat template"));
  result->special_tokens_json_ = Dump(special_tokens);
  result->limits_ = limits;
  return result;
}

absl::StatusOr<std::string> ChatTemplate::Render(const ChatRequest& request) const {
  auto or_null = [](const std::string& json) -> std::string_view {
    return json.empty() ? "null" : std::string_view(json);
  };
  const bool has_tools = !request.tools_json.empty();
  std::vector<EchelonTemplateVariable> variables = {
      Variable("", special_tokens_json_),
      Variable("",
               request.variables_json.empty() ? "{}" : std::string_view(request.variables_json)),
      Variable("messages", request.messages_json),
      Variable("tools", or_null(request.tools_json)),
      Variable("documents", or_null(request.documents_json)),
      Variable("add_generation_prompt", request.add_generation_prompt ? "true" : "false"),
  };
  EchelonTextString text;
  const EchelonTextCode code = echelon_template_render(
      (has_tools && with_tools_ ? with_tools_ : default_).get(), variables.data(), variables.size(),
      {limits_.max_steps, limits_.max_output_bytes}, request.now_s.value_or(std::time(nullptr)),
      &text);
  return TakeResult(code, text, "chat template");
}

}  // namespace echelon
