#include "tests/text/tiny.h"

#include <cstdlib>
#include <iostream>

#include "nlohmann/json.hpp"

namespace echelon {
namespace {

using Json = nlohmann::ordered_json;

std::string Utf8(uint32_t code) {  // below U+0800
  return code < 0x80 ? std::string(1, static_cast<char>(code))
                     : std::string{static_cast<char>(0xC0 | code >> 6),
                                   static_cast<char>(0x80 | (code & 0x3F))};
}

// GPT-2's alphabet.
std::vector<std::string> ByteCharacters() {
  std::vector<std::string> characters(256);
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool shown =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    characters[byte] = Utf8(shown ? byte : next++);
  }
  return characters;
}

Json Added(int64_t id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

Json Bpe(const Json& vocab) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"vocab", vocab},
          {"merges", Json::array()}};
}

std::shared_ptr<const Tokenizer> Parsed(const std::string& json) {
  auto tokenizer = Tokenizer::Parse(json);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    std::abort();
  }
  return *std::move(tokenizer);
}

}  // namespace

std::string ByteLevelJson() {
  Json vocab = Json::object();
  for (const std::string& character : ByteCharacters()) {
    vocab[character] = vocab.size();
  }
  const Json level = {{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", true},
                      {"use_regex", true}};
  return Json{{"version", "1.0"},
              {"truncation", nullptr},
              {"padding", nullptr},
              {"added_tokens", {Added(256, "<end>", true), Added(257, "<note>", false)}},
              {"normalizer", nullptr},
              {"pre_tokenizer", level},
              {"post_processor", nullptr},
              {"decoder", level},
              {"model", Bpe(vocab)}}
      .dump();
}

std::string ByteFallbackJson() {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  constexpr char kHex[] = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    vocab[std::string("<0x") + kHex[byte / 16] + kHex[byte % 16] + ">"] = vocab.size();
  }
  for (const char* word : {"▁", "▁a", "▁b", "a", "b"}) {
    vocab[word] = vocab.size();
  }
  Json model = Bpe(vocab);
  model["byte_fallback"] = true;
  model["merges"] = {"▁ a", "▁ b"};
  return Json{
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", {Added(0, "<unk>", true), Added(1, "<s>", true), Added(2, "</s>", true)}},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "Metaspace"},
        {"replacement", "▁"},
        {"prepend_scheme", "first"},
        {"split", false}}},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single",
         {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
          {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"pair", Json::array()},
        {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders",
         {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
          {{"type", "ByteFallback"}},
          {{"type", "Fuse"}},
          {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
      {"model", model}}
      .dump();
}

std::shared_ptr<const Tokenizer> ByteLevel() { return Parsed(ByteLevelJson()); }
std::shared_ptr<const Tokenizer> ByteFallback() { return Parsed(ByteFallbackJson()); }

std::vector<int64_t> BytesOf(std::string_view text, int64_t first) {
  std::vector<int64_t> ids;
  for (char byte : text) {
    ids.push_back(first + static_cast<uint8_t>(byte));
  }
  return ids;
}

}  // namespace echelon
