// A model's directory is foreign bytes: a template (first byte 't', then the source) or a
// tokenizer.json (first byte anything else), and what users send through it. The Rust crates are
// not instrumented, so that this finds panics, hangs and growth from the kept inputs'
// neighbourhood.
#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/text/chat_template.h"
#include "runtime/text/decode_stream.h"
#include "runtime/text/tokenizer.h"

namespace {

constexpr std::string_view kText = "Hi <s>\xE4\xBD\xA0 \xF0\x9F\x91\xA9  \n\xFF</s>";

void Template(std::string_view source) {
  auto chat_template = echelon::ChatTemplate::Parse(
      source, {{"bos_token", "<s>"}}, {.max_steps = 20'000, .max_output_bytes = 1 << 20});
  if (chat_template.ok()) {
    const std::string messages = echelon::ChatMessagesJson(
        {{"system", "Be brief."}, {"user", std::string(kText)}, {"assistant", "Yes."}});
    (void)(*chat_template)->Render({.messages_json = messages, .tools_json = "[{}]", .now_s = 0});
  }
  (void)echelon::ChatTemplate::Parse("{{ messages | tojson }}")
      .value()
      ->Render({.messages_json = std::string(source), .now_s = 0});
}

void Tokens(std::string_view json) {
  auto tokenizer = echelon::Tokenizer::Parse(json);
  if (!tokenizer.ok()) {
    return;
  }
  auto ids = (*tokenizer)->Encode(kText);
  (void)(*tokenizer)->Encode(kText, {.parse_special_tokens = false});
  if (!ids.ok()) {
    return;
  }
  ids->insert(ids->end(), {0, 1, 2, 3, 300, -1});
  (void)(*tokenizer)->Decode(*ids);
  echelon::DecodeStream stream(*tokenizer);
  for (int64_t id : *ids) {
    (void)stream.Append({id});
  }
  (void)stream.Flush();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (!input.empty()) {
    input[0] == 't' ? Template(input.substr(1)) : Tokens(input.substr(1));
  }
  return 0;
}
