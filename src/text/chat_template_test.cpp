#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace qnext {
namespace {

const std::string templates = QNEXT_SOURCE_DIR "/tests/data/chat-templates/";

// Each published template on each reference conversation: the very bytes of Python's jinja2.
TEST(ChatTemplate, RendersPublishedTemplatesExactly) {
  const json::Value cases = json::parse_file(templates + "cases.json");
  int rendered = 0;
  for (const json::Value& one : cases.as_array()) {
    const std::string name = one.find("template")->as_string();
    SCOPED_TRACE(name + " " + one.find("case")->as_string());
    json::Object variables{{"messages", *one.find("messages")}, {"add_generation_prompt", true}};
    for (const char* key : {"tools", "add_generation_prompt"})
      if (const json::Value* value = one.find(key)) variables.set(key, *value);
    if (const json::Value* more = one.find("kwargs"))
      for (const auto& [key, value] : more->as_object()) variables.set(key, value);
    const ChatTemplate chat(read_file(templates + name));
    if (const json::Value* expected = one.find("rendered"))
      EXPECT_EQ(chat.render(variables), expected->as_string());
    else
      EXPECT_THROW(chat.render(variables), Error);
    ++rendered;
  }
  EXPECT_EQ(rendered, 36);
}

class ModelFolder : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "chat_template_" +
            testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(path_);
    std::filesystem::create_directory(path_);
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  void write(const std::string& name, std::string_view text) {
    write_file(path_ + "/" + name, text);
  }
  std::string render(const json::Object& variables) {
    return ModelChatTemplate::load(path_)->render(variables);
  }
  std::string path_;
};

TEST_F(ModelFolder, WithoutTemplateHasNone) {
  EXPECT_FALSE(ModelChatTemplate::load(path_));
  write("tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_FALSE(ModelChatTemplate::load(path_));
}

TEST_F(ModelFolder, ReadsStringAndSpecialTokens) {
  write("tokenizer_config.json",
        R"({"chat_template": "{{ bos_token }}|{{ eos_token }}|{{ pad_token is defined }}",
            "bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>",
            "pad_token": null})");
  EXPECT_EQ(render({}), "<s>|</s>|False");
  EXPECT_EQ(render({{"bos_token", "mine"}}), "mine|</s>|False");
}

TEST_F(ModelFolder, PrefersTheFileOfItsOwn) {
  write("tokenizer_config.json", R"({"chat_template": "config", "bos_token": "<s>"})");
  write("chat_template.jinja", "file {{ bos_token }}");
  EXPECT_EQ(render({}), "file <s>");
}

TEST_F(ModelFolder, PicksTheTemplateForTools) {
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "default", "template": "plain"},
                              {"name": "tool_use", "template": "tools"}]})");
  EXPECT_EQ(render({}), "plain");
  EXPECT_EQ(render({{"tools", nullptr}}), "plain");
  EXPECT_EQ(render({{"tools", json::Array{json::Value("f")}}}), "tools");
}

TEST_F(ModelFolder, RefusesAListWithoutDefault) {
  write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})");
  EXPECT_THROW(ModelChatTemplate::load(path_), Error);
  write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_THROW(ModelChatTemplate::load(path_), Error);
}

TEST(ChatTemplate, RendersALongConversationFast) {
  json::Array messages;
  for (int i = 0; i < 200; ++i)
    messages.push_back(
        json::Object{{"role", i % 2 ? "assistant" : "user"}, {"content", std::string(2000, 'x')}});
  const ChatTemplate chat(read_file(templates + "Qwen3-0.6B.jinja"));
  const json::Object variables{{"messages", messages}};
  const auto start = std::chrono::steady_clock::now();
  const std::string text = chat.render(variables);
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  RecordProperty("milliseconds", std::to_string(took.count()));
  EXPECT_GT(text.size(), 200u * 2000u);
  EXPECT_LT(took.count(), 500.0);  // measured: about 2; the margin is for sanitizers
}

}  // namespace
}  // namespace qnext
