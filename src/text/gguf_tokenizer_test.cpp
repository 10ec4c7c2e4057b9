// A tokenizer in the metadata of a GGUF file gives what the same tokenizer gives as tokenizer.json.
#include "text/gguf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/gguf.h"
#include "checkpoint/testing/gguf_tokenizer.h"
#include "text/tokenizer_test_data.h"

namespace qnext {
namespace {

using ::testing::AllOf;
using testing::GgufTokenizer;
using testing::GgufWriter;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// Metadata and the bytes that it points into.
struct File {
  explicit File(const GgufWriter& writer)
      : bytes(writer.bytes()),
        metadata(parse_gguf_header(std::as_bytes(std::span(bytes.data(), bytes.size())), "x.gguf")
                     .metadata) {}
  explicit File(const GgufTokenizer& tokenizer) : File(tokenizer.writer()) {}

  std::string bytes;
  GgufMetadata metadata;
};

void expect_error(const GgufTokenizer& tokenizer, const std::string& part) {
  const File file(tokenizer);
  EXPECT_THAT([&] { load_gguf_tokenizer(file.metadata); },
              ThrowsMessage<Error>(AllOf(HasSubstr("x.gguf: "), HasSubstr(part))));
}

GgufTokenizer small() {
  return GgufTokenizer(test::small_tokenizer());
}

void expect_same(const Tokenizer& found, const Tokenizer& expected, unsigned seed) {
  EXPECT_EQ(found.vocabulary_size(), expected.vocabulary_size());
  test::RandomText random(seed);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = random.text();
    for (const bool special : {true, false}) {
      const std::vector<int32_t> ids = expected.encode(text, special);
      ASSERT_EQ(found.encode(text, special), ids) << text;
      ASSERT_EQ(found.decode(ids, true), expected.decode(ids, true)) << text;
    }
  }
}

TEST(GgufTokenizer, GivesTheIdsOfQwen3) {
  const std::string json = read_file(QNEXT_QWEN3_TOKENIZER "/tokenizer.json");
  GgufTokenizer tokenizer(json::parse(json, "tokenizer.json"));
  tokenizer.pad_to(151936);
  tokenizer.ids["eos"] = 151645;
  const File file(tokenizer);
  const Tokenizer found = load_gguf_tokenizer(file.metadata);
  EXPECT_EQ(found.eos_token_id(), 151645);
  EXPECT_EQ(found.bos_token_id(), std::nullopt);
  EXPECT_EQ(found.token_bytes(151645), "<|im_end|>");
  EXPECT_TRUE(found.is_special(151645));
  expect_same(found, Tokenizer::load(QNEXT_QWEN3_TOKENIZER), 1);
}

TEST(GgufTokenizer, GivesTheIdsOfASmallOne) {
  const File file(small());
  expect_same(load_gguf_tokenizer(file.metadata),
              Tokenizer::from_json(test::small_tokenizer_json(), "small"), 2);
}

TEST(GgufTokenizer, HolesAndPaddingHaveNoToken) {
  GgufTokenizer tokenizer = small();
  tokenizer.pad_to(300);
  tokenizer.tokens[266] = "<late>";
  tokenizer.tokens[267] = "hole";
  tokenizer.tokens[268] = "<last>";
  tokenizer.kinds[266] = 4;
  tokenizer.kinds[267] = 2;
  tokenizer.kinds[268] = 3;
  const File file(tokenizer);
  const Tokenizer found = load_gguf_tokenizer(file.metadata);
  EXPECT_EQ(found.vocabulary_size(), 269);
  EXPECT_EQ(found.encode("<late><last>"), (std::vector<int32_t>{266, 268}));
  EXPECT_EQ(found.decode(std::vector<int32_t>{266, 267, 268, 299}), "<late><last>");
  EXPECT_EQ(found.token_bytes(267), "");
}

TEST(GgufTokenizer, SaysWhatIsWrong) {
  const auto broken = [](auto&& damage) {
    GgufTokenizer tokenizer = small();
    damage(tokenizer);
    return tokenizer;
  };
  expect_error(broken([](auto& t) { t.model = "llama"; }), "tokenizer.ggml.model \"llama\"");
  expect_error(broken([](auto& t) { t.split = "default"; }), "tokenizer.ggml.pre \"default\"");
  expect_error(broken([](auto& t) { t.kinds.pop_back(); }), "it has 265 entries for 266 tokens");
  expect_error(broken([](auto& t) { t.kinds[3] = 6; }), "token 3 is of kind 6");
  expect_error(broken([](auto& t) { t.tokens[7] = "\xE4\xBD\xA0"; }), "byte-level alphabet");
  expect_error(broken([](auto& t) { t.tokens[7] = ""; }), "byte-level alphabet");
  expect_error(broken([](auto& t) { t.tokens[7] = t.tokens[9]; }), "has two ids, 7 and 9");
  expect_error(broken([](auto& t) { t.tokens[264] = ""; }), "token 264 is empty");
  expect_error(broken([](auto& t) { t.tokens[264] = std::string(2000, 'x'); }), "longer than");
  expect_error(broken([](auto& t) { t.kinds[65] = 5; }), "has no token for byte");
  expect_error(broken([](auto& t) { t.merges[0] = "th"; }), "tokenizer.ggml.merges: 0: \"th\"");
  expect_error(broken([](auto& t) { t.merges[0] = "t h e"; }), "\"t h e\" is not two tokens");
  expect_error(broken([](auto& t) { t.merges[0] = "t q"; }), "\"tq\" is no token");
  expect_error(broken([](auto& t) { t.ids["eos"] = 266; }), "266 is none of 266 tokens");
  expect_error(broken([](auto& t) {
                 t.ids["bos"] = 264;
                 t.adds_bos = true;
               }),
               "tokenizer.ggml.add_bos_token");
}

TEST(GgufTokenizer, MissingKeysAreNamed) {
  const File empty((GgufWriter()));
  EXPECT_THAT([&] { load_gguf_tokenizer(empty.metadata); },
              ThrowsMessage<Error>(HasSubstr("tokenizer.ggml.model is missing")));
  EXPECT_FALSE(load_gguf_chat_template(empty.metadata).has_value());
}

TEST(GgufChatTemplate, KnowsTheSpecialTokensAndTheOneForTools) {
  GgufTokenizer tokenizer = small();
  tokenizer.ids["eos"] = 264;
  GgufWriter writer = tokenizer.writer();
  writer.add("tokenizer.chat_template", "{{ messages[0].content }}{{ eos_token }}");
  const json::Object message{{"role", "user"}, {"content", "hi"}};
  json::Object variables{{"messages", json::Array{message}}};
  const File plain(writer);
  EXPECT_EQ(load_gguf_chat_template(plain.metadata)->render(variables), "hi<s>");
  variables.set("tools", json::Array{json::Object{{"name", "look"}}});
  EXPECT_EQ(load_gguf_chat_template(plain.metadata)->render(variables), "hi<s>");
  writer.add("tokenizer.chat_template.tool_use", "{{ tools[0].name }}");
  const File with_tools(writer);
  EXPECT_EQ(load_gguf_chat_template(with_tools.metadata)->render(variables), "look");

  GgufWriter broken;
  broken.add("tokenizer.chat_template", "{% if %}");
  const File file(broken);
  EXPECT_THAT([&] { load_gguf_chat_template(file.metadata); },
              ThrowsMessage<Error>(HasSubstr("x.gguf: metadata tokenizer.chat_template: ")));
}

// --- written -----------------------------------------------------------------------------------

File written(const TokenizerDefinition& definition, int64_t vocabulary,
             std::optional<int32_t> eos = {}) {
  GgufWriter writer;
  write_gguf_tokenizer(definition, vocabulary, eos, writer);
  return File(writer);
}

TEST(GgufTokenizer, IsWrittenAsThePublishedConverterDoes) {
  const std::string json = read_file(QNEXT_QWEN3_TOKENIZER "/tokenizer.json");
  GgufTokenizer expected(json::parse(json, "tokenizer.json"));
  expected.pad_to(151936);
  const File file = written(load_tokenizer_definition(QNEXT_QWEN3_TOKENIZER), 151936);
  const GgufMetadata& metadata = file.metadata;
  EXPECT_EQ(metadata.string("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(metadata.string("tokenizer.ggml.pre"), "qwen2");
  const auto texts = [&](const char* key) {
    const std::vector<std::string_view> views = metadata.strings(key);
    return std::vector<std::string>(views.begin(), views.end());
  };
  EXPECT_EQ(texts("tokenizer.ggml.tokens"), expected.tokens);
  EXPECT_EQ(texts("tokenizer.ggml.merges"), expected.merges);
  EXPECT_EQ(*metadata.find_integers("tokenizer.ggml.token_type"),
            std::vector<int64_t>(expected.kinds.begin(), expected.kinds.end()));
  EXPECT_EQ(metadata.integer("tokenizer.ggml.eos_token_id"), 151645);
  EXPECT_EQ(metadata.find_boolean("tokenizer.ggml.add_bos_token"), false);
  expect_same(load_gguf_tokenizer(metadata), Tokenizer::load(QNEXT_QWEN3_TOKENIZER), 3);
}

TEST(GgufTokenizer, WrittenIsReadAgain) {
  const TokenizerDefinition definition =
      read_tokenizer_definition(test::small_tokenizer_json(), "small", {});
  const auto count = static_cast<int64_t>(definition.tokens.size());
  const File file = written(definition, count + 40, 3);
  EXPECT_EQ(file.metadata.strings("tokenizer.ggml.tokens").size(), definition.tokens.size() + 40);
  const Tokenizer found = load_gguf_tokenizer(file.metadata);
  EXPECT_EQ(found.eos_token_id(), 3);
  expect_same(found, Tokenizer::from_json(test::small_tokenizer_json(), "small"), 4);
}

TEST(GgufTokenizer, TemplatesAreReadAgain) {
  for (const bool with_tools : {false, true}) {
    std::optional<ChatTemplate> tools;
    if (with_tools) tools = ChatTemplate("tools {{ messages }}");
    const ModelChatTemplate chat_template(ChatTemplate("plain {{ messages }}\n"), std::move(tools),
                                          {});
    GgufWriter writer;
    write_gguf_chat_template(chat_template, writer);
    const File file(writer);
    const auto found = load_gguf_chat_template(file.metadata);
    ASSERT_TRUE(found);
    for (const json::Value& given : {json::Value(), json::Value(json::Array{1})}) {
      const json::Object variables{{"messages", "hi"}, {"tools", given}};
      EXPECT_EQ(found->render(variables), chat_template.render(variables));
    }
  }
}

}  // namespace
}  // namespace qnext
