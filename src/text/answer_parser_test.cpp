#include "text/answer_parser.h"

#include <gtest/gtest.h>

#include <random>

namespace qnext {
namespace {

using Kind = AnswerPart::Kind;
using Parts = std::vector<AnswerPart>;

const ToolSchemas& schemas() {
  static const ToolSchemas tools(json::parse(R"([
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
      "properties": {"city": {"type": "string"}, "days": {"type": "integer"},
                     "wind": {"type": "boolean"}, "where": {"type": "object"},
                     "any": {"anyOf": [{"type": "string"}, {"type": "number"}]}}}}},
    {"type": "function", "function": {"name": "bare"}}])",
                                             "tools")
                                     .as_array());
  return tools;
}

void append(Parts& all, const Parts& more) {
  for (const AnswerPart& part : more) append_part(all, part.kind, part.call, part.text);
}

Parts parse_pieces(const std::vector<std::string>& pieces, const AnswerParserOptions& options) {
  AnswerParser parser(options);
  Parts all;
  for (const std::string& piece : pieces) append(all, parser.push(piece));
  append(all, parser.finish());
  return all;
}

Parts parse(const std::string& text, bool in_reasoning = false) {
  return parse_pieces({text}, {.in_reasoning = in_reasoning, .tools = &schemas()});
}

AnswerPart content(const std::string& text) {
  return {Kind::content, 0, text};
}
AnswerPart reasoning(const std::string& text) {
  return {Kind::reasoning, 0, text};
}

// Of the call `number`, whose arguments are whole.
void expect_call(const Parts& parts, int number, const std::string& name,
                 const std::string& arguments) {
  std::string names;
  std::string all;
  for (const AnswerPart& part : parts) {
    if (part.call != number) continue;
    if (part.kind == Kind::call_name) names += part.text;
    if (part.kind == Kind::call_arguments) all += part.text;
  }
  EXPECT_EQ(names, name);
  EXPECT_EQ(all, arguments);
  EXPECT_TRUE(json::parse(all, "arguments").is_object()) << all;
}

TEST(AnswerParser, ContentIsItself) {
  EXPECT_EQ(parse("Hello, <b>world</b> & </think> <tool>"),
            Parts{content("Hello, <b>world</b> & </think> <tool>")});
  EXPECT_EQ(parse(" a\n\n"), Parts{content(" a\n\n")});
  EXPECT_EQ(parse(""), Parts{});
  EXPECT_EQ(parse("<tool_cal"), Parts{content("<tool_cal")});
  EXPECT_EQ(parse("<thin"), Parts{content("<thin")});
}

TEST(AnswerParser, ReasoningStandsAtTheStart) {
  const Parts both = {reasoning("hm\n\nwell"), content("Yes")};
  EXPECT_EQ(parse("<think>\nhm\n\nwell\n</think>\n\nYes"), both);
  EXPECT_EQ(parse("\n<think>hm\n\nwell</think>Yes"), both);
  EXPECT_EQ(parse("hm\n\nwell\n</think>\n\nYes", true), both);
  EXPECT_EQ(parse("<think>\nhm\n\nwell\n</think>\n\nYes", true), both);
  EXPECT_EQ(parse("<think>\n\n</think>\n\nYes"), Parts{content("Yes")});
  EXPECT_EQ(parse("<think>cut of"), Parts{reasoning("cut of")});
  EXPECT_EQ(parse("a <think>b</think>"), Parts{content("a <think>b</think>")});
}

TEST(AnswerParser, ThePromptMayOpenTheReasoning) {
  EXPECT_TRUE(prompt_opens_reasoning("<|im_start|>assistant\n<think>\n"));
  EXPECT_TRUE(prompt_opens_reasoning("<think>"));
  EXPECT_FALSE(prompt_opens_reasoning("<think>\n\n</think>\n\n"));
  EXPECT_FALSE(prompt_opens_reasoning("<|im_start|>assistant\n"));
  EXPECT_FALSE(prompt_opens_reasoning(""));
}

TEST(AnswerParser, CallsInJson) {
  const Parts parts = parse(
      "<think>\na <tool_call> here\n</think>\n\nLet me see.\n"
      "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"}\\\"<\", \"days\": [1]}}\n"
      "</tool_call>\n<tool_call>\n{\"arguments\": {\"x\": 1}, \"id\": 7, \"name\": \"other\"}\n"
      "</tool_call>\n<tool_call>{\"name\": \"bare\"}</tool_call>\n"
      "<tool_call>{\"name\": \"bare\", \"arguments\": \"{\\\"y\\\": 2}\"}</tool_call>");
  EXPECT_EQ(parts[0], reasoning("a <tool_call> here"));
  EXPECT_EQ(parts[1], content("Let me see."));
  expect_call(parts, 0, "weather", R"({"city": "}\"<", "days": [1]})");
  expect_call(parts, 1, "other", R"({"x": 1})");
  expect_call(parts, 2, "bare", "{}");
  expect_call(parts, 3, "bare", R"({"y": 2})");
  EXPECT_EQ(parts.size(), 10u);
}

TEST(AnswerParser, CallsInXml) {
  const Parts parts = parse(
      "I look.\n\n<tool_call>\n<function=weather>\n<parameter=city>\nSão \"Paulo\"\n</a>\n\n"
      "</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=wind>\nTrue\n</parameter>\n"
      "<parameter=where>\n{\"lat\": 1.5}\n</parameter>\n<parameter=any>\nsome text\n</parameter>\n"
      "</function>\n</tool_call>\n<tool_call>\n<function=bare>\n</function>\n</tool_call>\n"
      "<tool_call><function=bare><parameter=n>1</parameter></function></tool_call>");
  EXPECT_EQ(parts[0], content("I look."));
  expect_call(parts, 0, "weather",
              R"({"city": "São \"Paulo\"\n</a>\n", "days": 3, "wind": true, )"
              R"("where": {"lat": 1.5}, "any": "some text"})");
  expect_call(parts, 1, "bare", "{}");
  expect_call(parts, 2, "bare", R"({"n": "1"})");
}

TEST(AnswerParser, WhatIsNoCallStaysContent) {
  for (const std::string text :
       {"<tool_call>", "<tool_call>\n", "a\n<tool_call>\nnothing</tool_call>", "<tool_call>{\"a\"",
        "<tool_call>{\"name\": 3}</tool_call>", "<tool_call>{\"name\": \"f\"",
        "<tool_call>{}</tool_call>", "<tool_call><function=f", "<tool_call><function=f\n>",
        "<tool_call>[1]</tool_call> b"}) {
    const Parts parts = parse(text);
    if (text.find("\"f\"") != std::string::npos) continue;  // begun, then cut off
    EXPECT_EQ(parts, Parts{content(text)}) << text;
  }
}

TEST(AnswerParser, CallsThatAreCutOffStayCutOff) {
  const Parts parts = parse("<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": \"ab");
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].text, "f");
  EXPECT_EQ(parts[1].text, "{\"x\": \"ab");
  const Parts broken = parse("<tool_call>{\"name\": \"f\" oops}</tool_call>after");
  EXPECT_EQ(broken.back(), content("after"));
}

TEST(AnswerParser, ArgumentsStream) {
  AnswerParser parser({.tools = &schemas()});
  EXPECT_EQ(parser.push("<tool_call>\n<function=weather>\n"),
            (Parts{{Kind::call_name, 0, "weather"}}));
  EXPECT_EQ(parser.push("<parameter=city>\nBer"),
            (Parts{{Kind::call_arguments, 0, "{\"city\": \"Ber"}}));
  EXPECT_EQ(parser.push("lin\n"), (Parts{{Kind::call_arguments, 0, "lin"}}));
  EXPECT_EQ(parser.push("</parameter>"), (Parts{{Kind::call_arguments, 0, "\""}}));
  EXPECT_EQ(parser.push("</function>"), (Parts{{Kind::call_arguments, 0, "}"}}));
}

TEST(AnswerParser, WithoutToolsCallsAreContent) {
  const std::string text = "<tool_call>{\"name\": \"f\"}</tool_call>\n";
  EXPECT_EQ(parse_pieces({text}, {}), Parts{content(text)});
}

// Texts put together from what parsers trip over, cut anywhere: the same parts.
TEST(AnswerParser, PiecesDoNotMatter) {
  const std::vector<std::string> fragments = {
      "<think>",
      "</think>",
      "\n",
      "\n\n",
      " ",
      "text",
      "é",
      "<",
      "</",
      "<tool_call>",
      "</tool_call>",
      "{\"name\": \"weather\"",
      ", \"arguments\": {\"city\": \"a}b\\\"\", \"n\": [1, {}]}",
      "}",
      "{\"name\": \"bare\", \"arguments\": {}}",
      "<function=weather>",
      "<function=bare>",
      "<parameter=city>",
      "<parameter=days>",
      "<parameter=where>",
      "</parameter>",
      "</function>",
      "3",
      "true",
      "{\"a\": null}",
      "\"",
      "\\",
      ":",
      ",",
      "name",
      "{",
      "[",
      "]",
      "<param",
      "{\"arguments\": {\"x\": 1}, \"name\": \"f\"}",
      "{\"name\": \"f\", \"arguments\": \"{}\"}"};
  std::mt19937 random(7);
  const auto below = [&](size_t limit) { return random() % limit; };
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (size_t i = below(14); i > 0; --i) text += fragments[below(fragments.size())];
    const AnswerParserOptions options{.in_reasoning = below(4) == 0,
                                      .tools = below(8) == 0 ? nullptr : &schemas()};
    std::vector<std::string> pieces;
    const size_t longest = 1 + below(9);
    for (size_t at = 0; at < text.size();) {
      pieces.push_back(text.substr(at, 1 + below(longest)));
      at += pieces.back().size();
    }
    ASSERT_EQ(parse_pieces(pieces, options), parse_pieces({text}, options)) << text;
  }
}

}  // namespace
}  // namespace qnext
