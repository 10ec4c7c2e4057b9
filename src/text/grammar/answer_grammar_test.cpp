#include "text/grammar/answer_grammar.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "text/answer_parser.h"
#include "text/grammar/testing/grammar_texts.h"

namespace qnext::grammar {
namespace {

using Reasoning = AnswerForm::Reasoning;
using Kind = ContentForm::Kind;

const char* const tools_text = R"([
  {"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1,
      "maximum": 9}, "where": {"type": "object", "properties": {"note": {"type": "string"}},
      "additionalProperties": false}}, "required": ["city"], "additionalProperties": false}}},
  {"type": "function", "function": {"name": "stop", "parameters": {"type": "object",
    "properties": {"how": {"type": "string", "enum": ["now", "later"]}}}}}])";

AnswerForm form_of(Kind kind, CallForm calls, Reasoning reasoning = Reasoning::none) {
  AnswerForm form;
  form.content.kind = kind;
  form.calls = calls;
  form.reasoning = reasoning;
  const json::Value tools = json::parse(tools_text, "tools");
  for (const json::Value& tool : tools.as_array()) {
    const json::Value& function = *tool.find("function");
    form.tools.push_back(
        {function.find("name")->as_string(), *function.find("parameters"), "tool"});
  }
  return form;
}

GrammarReader reader_of(const AnswerForm& form) {
  const ToolSchemas schemas(json::parse(tools_text, "tools").as_array());
  return GrammarReader(answer_grammar(form, schemas));
}

void expect(GrammarReader reader, const std::vector<std::string>& valid,
            const std::vector<std::string>& invalid) {
  for (const std::string& text : valid) EXPECT_TRUE(testing::accepts(reader, text)) << text;
  for (const std::string& text : invalid) EXPECT_FALSE(testing::accepts(reader, text)) << text;
}

const std::string json_call =
    "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bern\", \"days\": "
    "3}}\n</tool_call>";
const std::string xml_call =
    "<tool_call>\n<function=weather>\n<parameter=city>\nBern\n</parameter>\n<parameter=days>\n3\n"
    "</parameter>\n</function>\n</tool_call>";

TEST(AnswerGrammar, RequiredCallsAreCallsOfDeclaredTools) {
  expect(reader_of(form_of(Kind::none, CallForm::json)),
         {json_call, json_call + "\n" + json_call,
          "<tool_call>{\"name\":\"stop\",\"arguments\":{}}</tool_call>"},
         {"", "text", "<tool_call>\n{\n\"name\":\"stop\",\"arguments\":{}}\n</tool_call>",
          "<tool_call>\n\n{\"name\":\"stop\",\"arguments\":{}}\n</tool_call>",
          "<tool_call>\n{\"name\":\"stop\",\"arguments\":{\n}}\n</tool_call>", "text" + json_call,
          json_call + "text", "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>",
          "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>",
          "<tool_call>\n{\"name\": \"stop\", \"arguments\": {\"how\": \"never\"}}\n</tool_call>",
          "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}"});
  AnswerForm one = form_of(Kind::none, CallForm::json);
  one.several_calls = false;
  expect(reader_of(one), {json_call}, {json_call + "\n" + json_call});
}

TEST(AnswerGrammar, XmlCallsHoldStringsAsTheyAre) {
  const auto weather = [](const std::string& city) {
    return "<tool_call>\n<function=weather>\n<parameter=city>\n" + city +
           "\n</parameter>\n</function>\n</tool_call>";
  };
  expect(reader_of(form_of(Kind::none, CallForm::xml)),
         {xml_call, xml_call + "\n" + xml_call, weather("a \"b\" <c> </d>\n\n{"), weather(""),
          "<tool_call>\n<function=weather>\n<parameter=city>\nx\n</parameter>\n<parameter=where>\n"
          "{\"note\": \"<\\/x\"}\n</parameter>\n</function>\n</tool_call>",
          "<tool_call>\n<function=stop>\n<parameter=how>\nlater\n</parameter>\n</function>\n</"
          "tool_call>"},
         {json_call, weather("a</parameter>b"),
          "<tool_call>\n<function=weather>\n</function>\n</tool_call>",
          "<tool_call>\n<function=weather>\n<parameter=city>\nx\n</parameter>\n<parameter=where>\n"
          "{\"note\": \"</parameter>\"}\n</parameter>\n</function>\n</tool_call>",
          "<tool_call>\n<function=stop>\n<parameter=how>\nnever\n</parameter>\n</function>\n</"
          "tool_call>"});
}

TEST(AnswerGrammar, UnderAutoTextIsFreeAndCallsAreNot) {
  for (const CallForm calls : {CallForm::json, CallForm::xml}) {
    const std::string& call = calls == CallForm::json ? json_call : xml_call;
    GrammarReader reader = reader_of(form_of(Kind::free, calls, Reasoning::begun));
    expect(reader_of(form_of(Kind::free, calls)),
           {"", "text", "text <tool_cal", "Let me see.\n" + call, call + "\nDone." + call,
            "\xff\x80 <<tool_<tool_call"},
           {"<tool_call>", "a<tool_call>b", call + "<tool_call>\n", "<<tool_call>{}"});
    expect(reader, {"hm <tool_call> </thin\n</think>\n\n" + call, "a</think>b"}, {"a", "a" + call});
    // Free where no tag has begun, and only there.
    int32_t at = reader.start();
    EXPECT_TRUE(reader.is_free(at));
    for (const char byte : std::string("x</think>\n\nword")) at = reader.next(at, byte);
    EXPECT_TRUE(reader.is_free(at));
    EXPECT_TRUE(reader.may_end(at));
    EXPECT_FALSE(reader.is_free(reader.next(at, '<')));
  }
}

TEST(AnswerGrammar, ContentHasItsForm) {
  AnswerForm form;
  form.content = {.kind = Kind::object, .schema = {}, .path = "", .expression = ""};
  expect(reader_of(form), {"{}", "{\"a\": [1]}"}, {"[]", "a", " {}", "<think>a</think>{}"});
  form.reasoning = Reasoning::possible;
  expect(reader_of(form), {"{}", "<think>a</think>\n\n{}"}, {"<think>a</think>", "<think>{}"});
  form.reasoning = Reasoning::begun;
  expect(reader_of(form), {"hm</think>{}"}, {"{}"});
  form.reasoning = Reasoning::none;
  form.content = {.kind = Kind::expression, .schema = {}, .path = "", .expression = "[0-9]{3}|x"};
  expect(reader_of(form), {"123", "x"}, {"1234", "ax", ""});
  form.content = {
      .kind = Kind::choice, .schema = {}, .path = "", .expression = "", .choices = {"yes", "no"}};
  expect(reader_of(form), {"yes", "no"}, {"yesno", "n"});
  AnswerForm either = form_of(Kind::object, CallForm::json);
  expect(reader_of(either), {"{}", json_call, "{\n  \"a\": \"</b>\"\n}"},
         {"text", "{}" + json_call});
  either.calls = CallForm::xml;
  expect(reader_of(either), {"{\"a\": \"</b>\"}", xml_call}, {});
}

// Whatever the grammar lets through, the parser of answers reads as the call that it is.
TEST(AnswerGrammar, TheParserReadsRandomCallsBack) {
  const ToolSchemas schemas(json::parse(tools_text, "tools").as_array());
  std::mt19937 random(5);
  for (const CallForm calls : {CallForm::json, CallForm::xml}) {
    AnswerForm form = form_of(Kind::none, calls);
    form.several_calls = false;
    GrammarReader reader(answer_grammar(form, schemas));
    int read = 0;
    for (int i = 0; i < 400; ++i) {
      const std::string text = testing::random_text(reader, random, 600);
      if (text.empty()) continue;
      AnswerParser parser({.in_reasoning = false, .tools = &schemas});
      std::vector<AnswerPart> parts = parser.push(text);
      for (const AnswerPart& part : parser.finish())
        append_part(parts, part.kind, part.call, part.text);
      ASSERT_EQ(parts.size(), 2u) << text;
      ASSERT_EQ(parts[0].kind, AnswerPart::Kind::call_name);
      const json::Value arguments = json::parse(parts[1].text, "arguments");
      const std::string& name = parts[0].text;
      const std::string schema = json::write(form.tools[name == "weather" ? 0 : 1].parameters);
      GrammarReader judge(testing::schema_grammar(schema));
      EXPECT_TRUE(testing::accepts(judge, json::write(arguments))) << text << "\n" << parts[1].text;
      ++read;
    }
    EXPECT_GT(read, 20);
  }
}

TEST(AnswerGrammar, RefusalsNameTheTool) {
  AnswerForm form = form_of(Kind::none, CallForm::json);
  form.tools[1].parameters = json::parse(R"({"properties": {"x": {"not": {}}}})", "schema");
  try {
    reader_of(form);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "tool#/properties/x: not cannot be enforced");
  }
  form.tools[1].parameters = relaxed_parameters(form.tools[1].parameters);
  EXPECT_NO_THROW(reader_of(form));
  EXPECT_EQ(call_form("...<function=f>..."), CallForm::xml);
  EXPECT_EQ(call_form("{{ messages }}"), CallForm::json);
}

}  // namespace
}  // namespace qnext::grammar
