// Schemas with instances of their own, keyword by keyword; tests/json_schema_client.py has another
// judge.
#include "text/grammar/json_schema.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "text/grammar/testing/grammar_texts.h"

namespace qnext::grammar {
namespace {

struct Case {
  const char* schema;
  std::vector<const char*> valid;
  std::vector<const char*> invalid;
};

void check(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    SCOPED_TRACE(one.schema);
    GrammarReader reader(testing::schema_grammar(one.schema));
    for (const char* text : one.valid) EXPECT_TRUE(testing::accepts(reader, text)) << text;
    for (const char* text : one.invalid) EXPECT_FALSE(testing::accepts(reader, text)) << text;
  }
}

TEST(JsonSchema, AnyValue) {
  const std::vector<const char*> values = {"null",
                                           "true",
                                           "-0.5e+10",
                                           "0",
                                           "\"\"",
                                           "\"a\\u00e9\\n\\\"\xc3\xa9\"",
                                           "[]",
                                           "[1, [2,{}]]",
                                           "{}",
                                           "{\"a\": {\"b\": [\n  1\n]}}",
                                           "\"\\ud83d\\ude00\""};
  const std::vector<const char*> none = {
      "",       "nul",      "01",           "-",    "1.",    "1e",     "+1",         "\"",
      "\"\n\"", "\"\\x\"",  "\"\\ud83d\"",  "[1,]", "[1 2]", "{a: 1}", "{\"a\" 1}",  "{\"a\": 1,}",
      "tru",    "\"\xff\"", "\"\xc0\x80\"", "1 ",   " 1",    "'a'",    "{\"a\":1}}", "1e999"};
  check({{"true", values, none},
         {"{}", values, none},
         {R"({"title": "x", "default": 3})", values, none}});
}

TEST(JsonSchema, TypesAndValues) {
  check({
      {R"({"type": "null"})", {"null"}, {"0", "\"null\""}},
      {R"({"type": "boolean"})", {"true", "false"}, {"1"}},
      {R"({"type": "integer"})", {"0", "-12", "123456789012345678"}, {"1.0", "-0", "00", "1e3"}},
      {R"({"type": "number"})", {"0", "-1.5", "1e9", "-0.0"}, {"\"1\"", ".5"}},
      {R"({"type": ["string", "null"]})", {"\"a\"", "null"}, {"1"}},
      {R"({"type": ["integer", "number"]})", {"1", "1.5"}, {"null"}},
      {R"({"enum": ["a", "ab", 1, null, [1, {"x": 2}], 2.0]})",
       {"\"a\"", "\"ab\"", "1", "null", "[1, {\"x\": 2}]", "[1,{\"x\":2}]", "2", "2.0"},
       {"\"abc\"", "2.5", "[1]", "\"\\u0061\""}},
      {R"({"const": "</tag>"})", {"\"</tag>\""}, {"\"x\""}},
      {R"({"type": "string", "enum": ["a", 1]})", {"\"a\""}, {"1"}},
      {R"({"enum": ["a", "abc"], "minLength": 2})", {"\"abc\""}, {"\"a\""}},
      {R"({"enum": [1, 2, 3, 4], "multipleOf": 2, "minimum": 3})", {"4"}, {"2", "3"}},
      {R"({"allOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]})", {"2"}, {"1", "3"}},
  });
}

TEST(JsonSchema, Strings) {
  check({
      {R"({"type": "string", "minLength": 2, "maxLength": 3})",
       {"\"ab\"", "\"abc\"", "\"\xc3\xa9\xf0\x9f\x98\x80\"", "\"\\n\\u0041\"",
        "\"\\ud83d\\ude00x\""},
       {"\"a\"", "\"abcd\"", "\"\\ud83d\\ude00\""}},
      {R"({"type": "string", "minLength": 300, "maxLength": 700})", {}, {"\"a\""}},
      {R"({"type": "string", "pattern": "^[a-z]+[0-9]$"})", {"\"ab1\""}, {"\"1\"", "\"ab1x\""}},
      {R"({"type": "string", "pattern": "\"|\\\\|\\n"})",
       {"\"a\\\"\"", "\"\\\\\"", "\"\\n\""},
       {"\"n\""}},
      {R"({"type": "string", "pattern": "^a", "maxLength": 2})",
       {"\"a\"", "\"ab\""},
       {"\"abc\"", "\"b\""}},
      {R"({"type": "string", "format": "date"})",
       {"\"2024-02-29\"", "\"2023-12-31\""},
       {"\"2023-02-29\"", "\"2023-13-01\"", "\"2023-04-31\"", "\"1900-02-29\""}},
      {R"({"type": "string", "format": "date-time"})",
       {"\"2024-02-29T23:59:59Z\"", "\"2024-01-01T00:00:00.123+02:00\""},
       {"\"2024-01-01\"", "\"2024-01-01T24:00:00Z\""}},
      {R"({"type": "string", "format": "uuid"})",
       {"\"123e4567-e89b-12d3-a456-426614174000\""},
       {"\"123\""}},
      {R"({"type": "string", "format": "ipv4"})",
       {"\"192.168.0.255\""},
       {"\"256.0.0.1\"", "\"1.2.3\""}},
      {R"({"type": "string", "format": "email"})",
       {"\"a.b@example.org\""},
       {"\"a@\"", "\"a b@c.d\""}},
      {R"({"type": "string", "format": "no-such-format"})", {"\"x\""}, {"1"}},
  });
  std::string text(300, 'x');
  GrammarReader reader(
      testing::schema_grammar(R"({"type": "string", "minLength": 300, "maxLength": 700})"));
  EXPECT_TRUE(testing::accepts(reader, "\"" + text + "\""));
  EXPECT_TRUE(testing::accepts(reader, "\"" + std::string(700, 'y') + "\""));
  EXPECT_FALSE(testing::accepts(reader, "\"" + std::string(701, 'y') + "\""));
  EXPECT_FALSE(testing::accepts(reader, "\"" + std::string(299, 'y') + "\""));
}

TEST(JsonSchema, Numbers) {
  check({
      {R"({"type": "integer", "minimum": 3, "maximum": 120})",
       {"3", "9", "10", "99", "100", "120"},
       {"2", "121", "1000", "-5", "03"}},
      {R"({"type": "integer", "minimum": -20, "exclusiveMaximum": 5})",
       {"-20", "-9", "0", "4"},
       {"-21", "5", "-100", "-0"}},
      {R"({"type": "integer", "exclusiveMinimum": -1})", {"0", "1", "99999"}, {"-1", "-2"}},
      {R"({"type": "integer", "maximum": -10})", {"-10", "-11", "-999"}, {"-9", "0", "5"}},
      {R"({"type": "number", "minimum": 0.5, "maximum": 2.25})",
       {"0.5", "0.50", "1", "2.25", "2.2", "2.249999"},
       {"0.4", "2.26", "0", "2.2500001", "1e0", "3"}},
      {R"({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})",
       {"0.1", "0.0001", "0.99"},
       {"0", "0.0", "1", "1.0", "-0.5"}},
      {R"({"type": "number", "minimum": -1.5, "maximum": -0.5})",
       {"-1.5", "-1", "-0.5", "-0.75"},
       {"-1.51", "-0.4", "0", "1"}},
      {R"({"type": "number", "minimum": 0})", {"0", "-0", "-0.0", "12.5"}, {"-1", "-0.1"}},
      {R"({"type": "integer", "multipleOf": 7})", {"0", "14", "-21", "700000007"}, {"1", "15"}},
      {R"({"type": "integer", "multipleOf": 4, "minimum": 10, "maximum": 20})",
       {"12", "16", "20"},
       {"8", "14", "24"}},
      {R"({"allOf": [{"type": "integer", "multipleOf": 4}, {"multipleOf": 6}]})",
       {"12", "24"},
       {"4", "6"}},
      {R"({"type": "number", "multipleOf": 0.01})", {"1", "1.5", "1.25"}, {"1.255", "1e2"}},
      {R"({"allOf": [{"minimum": 2}, {"minimum": 5}, {"type": "integer", "maximum": 6}]})",
       {"5", "6"},
       {"4", "7"}},
      {R"({"type": "integer", "minimum": 5, "exclusiveMinimum": true})", {"6"}, {"5"}},
      {R"({"type": "number", "minimum": 1e3, "maximum": 1.5e3})",
       {"1000", "1499.9", "1500"},
       {"999", "1500.1"}},
  });
}

TEST(JsonSchema, Arrays) {
  check({
      {R"({"type": "array", "items": {"type": "integer"}})",
       {"[]", "[1]", "[1, 2]", "[\n  1,\n  2\n]"},
       {"[\"a\"]", "[1,]"}},
      {R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2})",
       {"[1]", "[1,2]"},
       {"[]", "[1,2,3]"}},
      {R"({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false})",
       {"[]", "[\"a\"]", "[\"a\",1]"},
       {"[1]", "[\"a\",1,2]"}},
      {R"({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "null"}, "minItems": 2})",
       {"[\"a\",null]", "[\"a\",null,null]"},
       {"[\"a\"]", "[\"a\",1]"}},
      {R"({"type": "array", "items": [{"type": "string"}], "additionalItems": false})",
       {"[]", "[\"a\"]"},
       {"[\"a\",1]"}},
      {R"({"type": "array", "maxItems": 0})", {"[]", "[\n]"}, {"[1]"}},
      {R"({"type": "array", "minItems": 3, "items": {"const": 1}})",
       {"[1,1,1]", "[1,1,1,1,1]"},
       {"[1,1]"}},
      {R"({"type": "array", "items": false})", {"[]"}, {"[1]"}},
      {R"({"type": "array", "minItems": 2})", {"[1,{}]"}, {"[1]"}},
  });
}

TEST(JsonSchema, Objects) {
  check({
      {R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": true},
           "required": ["b"], "additionalProperties": false})",
       {"{\"b\":\"\"}", "{\"a\": 1, \"b\": \"x\"}", "{\"b\":\"x\",\"c\":[1]}",
        "{\"a\":1,\"b\":\"\",\"c\":null}"},
       {"{}", "{\"a\":1}", "{\"b\":1}", "{\"b\":\"\",\"d\":1}", "{\"b\":\"\",\"b\":\"\"}",
        "{\"b\":\"\",\"a\":1}"}},
      {R"({"type": "object", "properties": {"a": {"type": "integer"}}})",
       {"{}", "{\"a\":1}", "{\"a\":1,\"z\":[]}", "{\"aa\":1}", "{\"z\":1}"},
       {"{\"a\":\"x\"}", "{\"z\":1,\"a\":1}", "{\"\\u0061\":\"x\"}"}},
      {R"({"type": "object", "additionalProperties": {"type": "integer"}})",
       {"{}", "{\"a\":1}", "{\"a\":1,\"b\":2}"},
       {"{\"a\":\"\"}"}},
      {R"({"type": "object", "required": ["x", "y"]})",
       {"{\"x\":1,\"y\":2}", "{\"x\":1,\"y\":2,\"z\":3}"},
       {"{\"x\":1}", "{}"}},
      {R"({"type": "object", "patternProperties": {"^s_": {"type": "string"}, "_n$": {"minLength": 2}}, "additionalProperties": false})",
       {"{\"s_a\":\"x\"}", "{\"a_n\":1}", "{\"s_n\":\"xx\"}"},
       {"{\"s_a\":1}", "{\"q\":1}", "{\"s_n\":\"x\"}"}},
      {R"({"type": "object", "properties": {"s_a": {"minLength": 2}}, "patternProperties": {"^s_": {"type": "string"}}})",
       {"{\"s_a\":\"xx\"}", "{\"other\":1}"},
       {"{\"s_a\":1}", "{\"s_a\":\"x\"}", "{\"s_b\":1}"}},
      {R"({"type": "object", "propertyNames": {"pattern": "^[a-z]$"}, "additionalProperties": {"type": "null"}})",
       {"{\"a\":null}"},
       {"{\"A\":null}", "{\"ab\":null}"}},
      {R"({"type": "object", "properties": {"a": true, "b": true, "c": true}, "additionalProperties": false, "minProperties": 1, "maxProperties": 2})",
       {"{\"a\":1}", "{\"a\":1,\"c\":1}"},
       {"{}", "{\"a\":1,\"b\":1,\"c\":1}"}},
      {R"({"type": "object", "minProperties": 1, "additionalProperties": {"type": "null"}})",
       {"{\"a\":null}"},
       {"{}"}},
      {R"({"type": "object", "properties": {"a": false, "b": true}, "additionalProperties": false})",
       {"{}", "{\"b\":1}"},
       {"{\"a\":1}"}},
      {R"({"properties": {"a": {"type": "integer"}}})",
       {"1", "{\"a\":1}", "\"x\""},
       {"{\"a\":\"x\"}"}},
      {R"({"type": "object", "maxProperties": 0})", {"{}"}, {"{\"a\":1}"}},
      {R"({"type": "object", "properties": {"": {"type": "integer"}}, "required": [""]})",
       {"{\"\":1}"},
       {"{}"}},
  });
}

TEST(JsonSchema, Combinations) {
  check({
      {R"({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]})",
       {"1", "\"a\""},
       {"\"ab\"", "null"}},
      {R"({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
           "anyOf": [{"properties": {"b": {"const": 1}}, "required": ["b"]}, {"properties": {"c": {"const": 2}}, "required": ["c"]}]})",
       {"{\"a\":1,\"b\":1}", "{\"a\":1,\"c\":2}"},
       {"{\"a\":1}", "{\"a\":1,\"b\":2}"}},
      {R"({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                     {"properties": {"a": {"minimum": 3}, "b": {"type": "null"}}}]})",
       {"{\"a\":3}", "{\"a\":4,\"b\":null}"},
       {"{\"a\":2}", "{}", "{\"a\":3,\"b\":1}"}},
      {R"({"oneOf": [{"type": "integer"}, {"type": "string"}]})", {"1", "\"a\""}, {"null"}},
      {R"({"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}, "required": ["kind"]},
                     {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]}]})",
       {"{\"kind\":\"a\",\"x\":1}", "{\"kind\":\"b\",\"x\":\"y\"}"},
       {"{\"kind\":\"a\",\"x\":\"y\"}", "{\"kind\":\"c\"}"}},
      {R"({"$defs": {"node": {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
           "required": ["value", "next"], "additionalProperties": false}}, "$ref": "#/$defs/node"})",
       {"{\"value\":1,\"next\":null}", "{\"value\":1,\"next\":{\"value\":2,\"next\":null}}"},
       {"{\"value\":1}", "{\"value\":1,\"next\":1}"}},
      {R"({"type": "array", "items": {"$ref": "#"}})", {"[]", "[[],[[]]]"}, {"[1]"}},
      {R"({"definitions": {"a/b~c %": {"const": 5}}, "$ref": "#/definitions/a~1b~0c%20%25"})",
       {"5"},
       {"6"}},
      {R"({"anyOf": [{"type": "integer"}, false]})", {"1"}, {"null"}},
      {R"({"anyOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}], "$defs": {"x": {"type": "null"}}})",
       {"null"},
       {"1"}},
  });
}

TEST(JsonSchema, RefusalsNameThePlaceAndTheKeyword) {
  const auto message = [](const char* schema) -> std::string {
    try {
      testing::schema_grammar(schema);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"({"not": {}})", "#: not cannot be enforced"},
      {R"({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}})",
       "#/properties/a: uniqueItems cannot be enforced"},
      {R"({"properties": {"a": {"if": true}}})", "#/properties/a: if cannot be enforced"},
      {R"({"$ref": "http://example.org"})", "#: $ref http://example.org: only places"},
      {R"({"$ref": "#/nowhere"})", "leads nowhere"},
      {R"({"$ref": "#"})", "refers to itself"},
      {R"({"anyOf": [{"$ref": "#"}, {"type": "null"}]})", "refers to itself"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "oneOf"},
      {R"x({"type": "string", "pattern": "(?=a)"})x", "look-around"},
      {R"({"type": "string", "format": "idn-email"})", "format idn-email"},
      {R"({"type": "number", "multipleOf": 0.3})", "multipleOf"},
      {R"({"type": "integer", "multipleOf": 1000000})", "1000000"},
      {R"({"type": "strin"})", "type must name"},
      {R"({"type": "string", "minLength": -1})", "minLength"},
      {R"({"type": "string", "minLength": 1000000})", "length"},
      {"false", "no value satisfies"},
      {R"({"type": "string", "minLength": 2, "maxLength": 1})", "no value satisfies"},
      {R"({"type": "object", "required": ["a"], "additionalProperties": false})",
       "no value satisfies"},
      {R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})",
       "no value satisfies"},
      {R"({"type": "array", "contains": {}})", "contains"},
      {R"({"dependentRequired": {}})", "dependentRequired"},
      {R"({"unevaluatedProperties": false})", "unevaluatedProperties"},
      {"3", "must be an object"},
      {R"({"anyOf": []})", "anyOf"},
      {R"({"properties": {"x": 3}})", "#/properties/x: a schema must be"},
  };
  for (const auto& [schema, part] : cases)
    EXPECT_NE(message(schema).find(part), std::string::npos) << schema << ": " << message(schema);
}

TEST(JsonSchema, BetweenTagsStringsHoldNoClosingTag) {
  GrammarReader reader(
      testing::schema_grammar(R"({"enum": ["</a>", "b"]})", {.without_tags = true}));
  EXPECT_TRUE(testing::accepts(reader, "\"<\\/a>\""));
  EXPECT_FALSE(testing::accepts(reader, "\"</a>\""));
  EXPECT_TRUE(testing::accepts(reader, "\"b\""));
  GrammarReader any(testing::schema_grammar("true", {.without_tags = true}));
  EXPECT_TRUE(testing::accepts(any, "{\"a/b\": \"< /<\\/<<\\u002f\"}"));
  EXPECT_FALSE(testing::accepts(any, "\"<<</\""));
}

// The longest run of white space that may come; more than `most` counts as no end.
int longest_blank(GrammarReader& reader, int32_t at, int most) {
  if (most < 0) return 0;
  int longest = 0;
  for (const char blank : {' ', '\n', '\t', '\r'}) {
    const int32_t next = reader.next(at, static_cast<uint8_t>(blank));
    if (next == GrammarReader::dead) continue;
    longest = std::max(longest, 1 + longest_blank(reader, next, most - 1));
  }
  return longest;
}

TEST(JsonSchema, WhiteSpaceIsWhatModelsWrite) {
  check({{"true",
          {"[1,2]", "[1, 2]", "[\n  1,\n  2\n]", "{\n\t\"a\": {\n\t\t\"b\":1\n\t}\n}", "[\n]"},
          {"[ 1]", "[1 ]", "[1 ,2]", "{\"a\" :1}", "{\"a\":  1}", "{\"a\":\n1}", "[1,\n\n2]",
           "[1,\n \t2]", "[1,\r\n2]", "[\n\n]", "\n1", "1\n"}}});
  const char* const schema = R"({"type": "object", "properties": {"a": {"type": "array", "items":
      {"type": ["integer", "object"]}}, "b": {"enum": ["x", [1, {"y": 2}]]}}, "required": ["b"]})";
  const std::string text = R"({"a": [1, {"k": [null]}, {}], "b": [1, {"y": 2}], "c": ["", 1.5e3]})";
  for (const bool one_line : {false, true}) {
    for (const char* one : {schema, "true"}) {
      GrammarReader reader(testing::schema_grammar(one, {.one_line = one_line}));
      EXPECT_TRUE(testing::accepts(reader, text));
      int32_t at = reader.start();
      bool in_string = false;
      for (size_t i = 0; i < text.size(); ++i) {
        const int longest = in_string ? 0 : longest_blank(reader, at, 40);
        EXPECT_LE(longest, one_line ? 1 : 21) << text.substr(0, i);
        in_string ^= text[i] == '"';
        at = reader.next(at, static_cast<uint8_t>(text[i]));
      }
      EXPECT_EQ(longest_blank(reader, at, 40), 0);
      EXPECT_EQ(testing::accepts(reader, "{\n  \"b\": \"x\"\n}"), !one_line);
    }
  }
}

// Whatever it makes is JSON, and never comes to a dead end.
TEST(JsonSchema, RandomTextsAreJson) {
  std::mt19937 random(7);
  for (
      const char* schema :
      {"true",
       R"x({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(x|\"y)*$"}, "b": {"type": "number", "minimum": 1.5}}})x",
       R"({"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 4}, "minItems": 2})"}) {
    GrammarReader reader(testing::schema_grammar(schema));
    int whole = 0;
    for (int i = 0; i < 300; ++i) {
      const std::string text = testing::random_text(reader, random, 400);
      if (text.empty()) continue;
      ++whole;
      EXPECT_NO_THROW(json::parse(text, "text")) << text;
    }
    EXPECT_GT(whole, 30) << schema;
  }
}

}  // namespace
}  // namespace qnext::grammar
