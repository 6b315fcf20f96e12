#include "runtime/text/model_files.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/graph/status_macros.h"

namespace echelon {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxConfigBytes = 64 << 20;
constexpr size_t kMaxTemplateBytes = 1 << 20;
constexpr std::array kNames = {"bos_token", "eos_token", "unk_token", "sep_token",
                               "pad_token", "cls_token", "mask_token"};

// A token is written as its text, or as an object with its text and flags.
std::string TextOf(const Json& token) {
  if (token.is_string()) {
    return token.get<std::string>();
  }
  if (token.is_object() && token.contains("content") && token["content"].is_string()) {
    return token["content"].get<std::string>();
  }
  return "";
}

Json Addition(const Json& token, bool only_if_missing, bool special) {
  auto flag = [&token](const char* name, bool otherwise) {
    return token.is_object() ? token.value(name, otherwise) : otherwise;
  };
  special = flag("special", special) || special;
  return Json{{"content", TextOf(token)},
              {"single_word", flag("single_word", false)},
              {"lstrip", flag("lstrip", false)},
              {"rstrip", flag("rstrip", false)},
              {"normalized", flag("normalized", !special)},
              {"special", special},
              {"only_if_missing", only_if_missing}};
}

bool IsNamed(const TokenizerConfig& config, const std::string& text) {
  return std::any_of(config.special_tokens.begin(), config.special_tokens.end(),
                     [&](const auto& named) { return named.second == text; });
}

// added_tokens_decoder by id, then the named tokens, then the further special ones.
std::string AddedTokens(const Json& json, const TokenizerConfig& config) {
  std::vector<std::pair<int64_t, Json>> listed;
  if (auto decoder = json.find("added_tokens_decoder");
      decoder != json.end() && decoder->is_object()) {
    for (const auto& [id, token] : decoder->items()) {
      int64_t number = 0;
      if (absl::SimpleAtoi(id, &number) && !TextOf(token).empty()) {
        listed.emplace_back(number, Addition(token, false, IsNamed(config, TextOf(token))));
      }
    }
  }
  std::stable_sort(listed.begin(), listed.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  Json all = Json::array();
  for (auto& [id, token] : listed) {
    all.push_back(std::move(token));
  }
  auto add_missing = [&all](const Json& token) {
    if (!TextOf(token).empty()) {
      all.push_back(Addition(token, true, true));
    }
  };
  for (const char* name : kNames) {
    if (json.contains(name)) {
      add_missing(json[name]);
    }
  }
  for (const char* list : {"extra_special_tokens", "additional_special_tokens"}) {
    if (auto found = json.find(list); found != json.end() && found->is_array()) {
      std::for_each(found->begin(), found->end(), add_missing);
      break;
    }
  }
  return all.dump();
}

void TakeChatTemplates(const Json& json, TokenizerConfig& config) {
  auto found = json.find("chat_template");
  if (found == json.end()) {
    return;
  }
  if (found->is_string()) {
    config.chat_templates["default"] = found->get<std::string>();
  } else if (found->is_array()) {
    for (const Json& entry : *found) {
      if (entry.is_object() && entry.contains("name") && entry["name"].is_string() &&
          entry.contains("template") && entry["template"].is_string()) {
        config.chat_templates[entry["name"].get<std::string>()] =
            entry["template"].get<std::string>();
      }
    }
  }
}

absl::StatusOr<Json> ParseObject(std::string_view text, std::string_view name) {
  if (text.empty()) {
    return Json::object();
  }
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(name), ": not a JSON object"));
  }
  return json;
}

// Empty where there is no such file.
absl::StatusOr<std::string> ReadOptional(const std::filesystem::path& file, size_t max_bytes) {
  absl::StatusOr<std::string> text = ReadTextFile(file, max_bytes);
  return absl::IsNotFound(text.status()) ? "" : text;
}

absl::Status ReadTemplateFiles(const std::filesystem::path& directory, TokenizerConfig& config) {
  std::map<std::string, std::string> files;
  ECHELON_ASSIGN_OR_RETURN(std::string main,
                           ReadOptional(directory / "chat_template.jinja", kMaxTemplateBytes));
  if (!main.empty()) {
    files["default"] = std::move(main);
  }
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(directory / "additional_chat_templates", error)) {
    if (entry.path().extension() == ".jinja") {
      ECHELON_ASSIGN_OR_RETURN(files[entry.path().stem().string()],
                               ReadTextFile(entry.path(), kMaxTemplateBytes));
    }
  }
  if (!files.empty()) {
    config.chat_templates = std::move(files);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::filesystem::path& file, size_t max_bytes) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(file, error);
  if (error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory) {
    return absl::NotFoundError(absl::StrCat(file.string(), " does not exist"));
  }
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.string(), " cannot be read: ", error.message()));
  }
  if (size > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.string(), " has ", size, " bytes, and at most ", max_bytes, " are taken"));
  }
  std::string text(size, '\0');
  std::ifstream stream(file, std::ios::binary);
  if (!stream.read(text.data(), static_cast<std::streamsize>(size))) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.string(), " cannot be read: ", std::strerror(errno)));
  }
  return text;
}

absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(std::string_view config,
                                                     std::string_view special_tokens_map) {
  ECHELON_ASSIGN_OR_RETURN(Json json, ParseObject(config, "tokenizer_config.json"));
  // The older file is only read where the newer one does not list the added tokens itself.
  if (!json.contains("added_tokens_decoder")) {
    ECHELON_ASSIGN_OR_RETURN(Json older,
                             ParseObject(special_tokens_map, "special_tokens_map.json"));
    json.update(older);
  }
  TokenizerConfig result;
  try {
    for (const char* name : kNames) {
      if (std::string text = json.contains(name) ? TextOf(json[name]) : ""; !text.empty()) {
        result.special_tokens[name] = std::move(text);
      }
    }
    result.added_tokens_json = AddedTokens(json, result);
    TakeChatTemplates(json, result);
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer_config.json: ", error.what()));
  }
  return result;
}

absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::filesystem::path& directory) {
  ECHELON_ASSIGN_OR_RETURN(std::string config,
                           ReadOptional(directory / "tokenizer_config.json", kMaxConfigBytes));
  ECHELON_ASSIGN_OR_RETURN(std::string special_tokens_map,
                           ReadOptional(directory / "special_tokens_map.json", kMaxConfigBytes));
  absl::StatusOr<TokenizerConfig> parsed = ParseTokenizerConfig(config, special_tokens_map);
  if (!parsed.ok()) {
    return absl::Status(parsed.status().code(),
                        absl::StrCat(directory.string(), "/", parsed.status().message()));
  }
  ECHELON_RETURN_IF_ERROR(ReadTemplateFiles(directory, *parsed));
  return parsed;
}

}  // namespace echelon
