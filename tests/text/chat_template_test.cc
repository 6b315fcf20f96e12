#include "runtime/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace echelon {
namespace {

using ::testing::HasSubstr;

ChatRequest Hello() { return {.messages_json = ChatMessagesJson({{"user", "Hi"}}), .now_s = 0}; }

absl::StatusOr<std::string> Rendered(std::string_view source, const ChatRequest& request = Hello(),
                                     const ChatTemplateLimits& limits = {}) {
  auto chat_template = ChatTemplate::Parse(source, {{"bos_token", "<s>"}}, limits);
  if (!chat_template.ok()) {
    return chat_template.status();
  }
  return (*chat_template)->Render(request);
}

std::string Text(std::string_view source) {
  auto text = Rendered(source);
  return text.ok() ? *text : text.status().ToString();
}

TEST(ChatTemplate, WritesMessagesAndThePromptForAnAnswer) {
  constexpr char kSource[] =
      "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m['content'] }}\n{% endfor %}"
      "{% if add_generation_prompt %}[assistant] {% endif %}";
  EXPECT_EQ(Text(kSource), "<s>[user] Hi\n[assistant] ");
  ChatRequest request = Hello();
  request.add_generation_prompt = false;
  EXPECT_EQ(*Rendered(kSource, request), "<s>[user] Hi\n");
}

TEST(ChatTemplate, PrintsValuesAsPythonDoes) {
  EXPECT_EQ(Text("{{ true }} {{ none }} {{ 1.0 }} {{ 1e20 }} {{ ['a', {'b': \"it's\"}] }}"),
            "True None 1.0 1e+20 ['a', {'b': \"it's\"}]");
  EXPECT_EQ(Text("{{ [1, none, true] | join('-') }}"), "1-None-True");
}

TEST(ChatTemplate, WritesJsonAsPythonDoes) {
  ChatRequest request = Hello();
  request.tools_json = R"([{"z": 1, "a": "é<\u2028", "f": 0.00001, "n": null, "e": []}])";
  EXPECT_EQ(*Rendered("{{ tools | tojson }}", request),
            "[{\"z\": 1, \"a\": \"é<\u2028\", \"f\": 1e-05, \"n\": null, \"e\": []}]");
  EXPECT_EQ(Text("{{ {'a': [1, 2]} | tojson(indent=2) }}"), "{\n  \"a\": [\n    1,\n    2\n  ]\n}");
  EXPECT_EQ(Text("{{ {'b': 'é', 'a': 1} | tojson(ensure_ascii=true, sort_keys=true, "
                 "separators=(',', ':')) }}"),
            R"({"a":1,"b":"\u00e9"})");
}

TEST(ChatTemplate, HasWhatTemplatesOfModelsUse) {
  EXPECT_EQ(Text("{% set ns = namespace(n=0) %}{% for i in range(9) %}{% if i == 2 %}"
                 "{% continue %}{% endif %}{% if i > 4 %}{% break %}{% endif %}"
                 "{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"),
            "8");
  EXPECT_EQ(Text("{{ ' x '.strip() }}{{ 'a,b'.split(',')[-1] }}{{ messages[0].get('no', 'd') }}"),
            "xbd");
  EXPECT_EQ(Text("{% generation %}a{% endgeneration %}{%- generation -%} b {%- endgeneration -%}"),
            "ab");
  EXPECT_EQ(Text("{{ strftime_now('%Y') | length }}"), "4");
  EXPECT_EQ(Text("{% macro f(x, y=2) %}{{ x }}{{ y }}{% endmacro %}{{ f(1) }}"), "12");
}

TEST(ChatTemplate, TakesFurtherVariables) {
  ChatRequest request = Hello();
  request.variables_json = R"({"enable_thinking": false})";
  EXPECT_EQ(*Rendered("{{ 'off' if enable_thinking is false }}", request), "off");
}

TEST(ChatTemplate, ReadsLoneSurrogatesAsReplacementCharacters) {
  ChatRequest request = Hello();
  request.messages_json = R"([{"role": "user", "content": "\ud83d \\ud83d \ud83d\ude80 \udc00"}])";
  EXPECT_EQ(*Rendered("{{ messages[0].content }}", request), "\uFFFD \\ud83d 🚀 \uFFFD");
}

TEST(ChatTemplate, PassesOnWhatTheTemplateRefuses) {
  auto text = Rendered("{{ raise_exception('roles must\nalternate') }}");
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(text.status().message(),
            "chat template: the template refuses the messages: roles must alternate");
}

TEST(ChatTemplate, NamesTheLineThatDoesNotParse) {
  auto chat_template = ChatTemplate::Parse("a\n{% for %}");
  EXPECT_EQ(chat_template.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(chat_template.status().message()), HasSubstr("line 2"));
}

TEST(ChatTemplate, RefusesMessagesThatAreNone) {
  for (const char* messages : {"", "{", "{}", "[]", "[1]", "[{}], \"x\": [", "null"}) {
    ChatRequest request = Hello();
    request.messages_json = messages;
    auto text = Rendered("{{ 1 }}", request);
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << messages;
    EXPECT_THAT(std::string(text.status().message()), HasSubstr("messages")) << messages;
  }
}

TEST(ChatTemplate, EndsWhatTakesTooManySteps) {
  auto text =
      Rendered("{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}");
  EXPECT_EQ(text.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(ChatTemplate, EndsWhatWritesTooMuch) {
  auto text = Rendered("{% for i in range(1000) %}0123456789{% endfor %}", Hello(),
                       {.max_output_bytes = 5000});
  EXPECT_EQ(text.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(text.status().message()), HasSubstr("5000 bytes"));
}

TEST(ChatTemplate, EndsWhatGoesTooDeep) {
  EXPECT_FALSE(Rendered("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").ok());
  EXPECT_FALSE(Rendered("{% set ns = namespace(x=[]) %}{% for i in range(90000) %}"
                        "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}")
                   .ok());
  EXPECT_TRUE(Rendered("{% set ns = namespace(x=[]) %}{% for i in range(90000) %}"
                       "{% set ns.x = [ns.x] %}{% endfor %}")
                  .ok());
  EXPECT_FALSE(ChatTemplate::Parse("{{ " + std::string(100000, '(')).ok());
  EXPECT_FALSE(ChatTemplate::Parse(std::string(2 << 20, 'x')).ok());
}

class ChatTemplateFiles : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::path(testing::TempDir()) /
                 testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  void Write(const char* name, std::string_view text) { std::ofstream(directory_ / name) << text; }
  std::string Prompt(const ChatRequest& request = Hello()) {
    auto chat_template = ChatTemplate::Load(directory_);
    return chat_template.ok() ? (*chat_template)->Render(request).value_or("failed")
                              : std::string(chat_template.status().message());
  }

  std::filesystem::path directory_;
};

TEST_F(ChatTemplateFiles, ComeFromTheConfiguration) {
  Write("tokenizer_config.json", R"({"chat_template": "{{ eos_token }}", "eos_token": "</s>"})");
  EXPECT_EQ(Prompt(), "</s>");
}

TEST_F(ChatTemplateFiles, InAFileOfTheirOwnComeFirst) {
  Write("tokenizer_config.json", R"({"chat_template": "old", "eos_token": {"content": "</s>"}})");
  Write("chat_template.jinja", "new {{ eos_token }}");
  EXPECT_EQ(Prompt(), "new </s>");
}

TEST_F(ChatTemplateFiles, MayHaveOneForTools) {
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "plain"},
                                     {"name": "tool_use", "template": "tools"}]})");
  EXPECT_EQ(Prompt(), "plain");
  ChatRequest request = Hello();
  request.tools_json = "[{}]";
  EXPECT_EQ(Prompt(request), "tools");
}

TEST_F(ChatTemplateFiles, MissingIsSaidPlainly) {
  Write("tokenizer_config.json", "{}");
  EXPECT_EQ(ChatTemplate::Load(directory_).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Prompt(), HasSubstr("has no chat template"));
}

TEST_F(ChatTemplateFiles, WithoutADefaultAreNamed) {
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": ""}]})");
  EXPECT_THAT(Prompt(), HasSubstr("(rag)"));
}

}  // namespace
}  // namespace echelon
