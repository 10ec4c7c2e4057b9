#include "text/grammar/regular_expression.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"

namespace qnext::grammar {
namespace {

struct Case {
  const char* pattern;
  std::vector<const char*> found;
  std::vector<const char*> missed;
};

TEST(RegularExpression, FindsWhatEcmaScriptFinds) {
  const std::vector<Case> cases = {
      {"abc", {"abc", "xabcx"}, {"", "ab", "a bc"}},
      {"^abc$", {"abc"}, {"xabc", "abcx", ""}},
      {"^a|b$", {"ax", "xb", "a", "b"}, {"xa", "bx"}},
      {"^(a|b)$", {"a", "b"}, {"ab", ""}},
      {"^$", {""}, {"a", "\n"}},
      {"", {"", "anything"}, {}},
      {"^a*$", {"", "a", "aaaa"}, {"b", "aab"}},
      {"^a+?b??$", {"a", "aaab"}, {"", "b"}},
      {"^(ab){2,3}$", {"abab", "ababab"}, {"ab", "abababab"}},
      {"^a{3}$", {"aaa"}, {"aa", "aaaa"}},
      {"^a{2,}$", {"aa", "aaaaa"}, {"a"}},
      {"^a{0}b$", {"b"}, {"ab"}},
      {"^a{,2}$", {"a{,2}"}, {"aa"}},
      {"^[a-cx-]+$", {"abc-x"}, {"d", ""}},
      {"^[^a-c]$", {"d", "\xc3\xa9", "\n"}, {"a", "dd"}},
      {"^[]$", {}, {"", "a"}},
      {"^[^]$", {"a", "\n"}, {""}},
      {"^.$", {"a", "\xe2\x82\xac"}, {"\n", "\r", ""}},
      {"^\\d\\D\\w\\W\\s\\S$", {"1a_- x"}, {"aa_- x", "11_- x"}},
      {"^\\u00e9\\x41\\u{1F600}\\uD83D\\uDE00$",
       {"\xc3\xa9"
        "A\xf0\x9f\x98\x80\xf0\x9f\x98\x80"},
       {"e"}},
      {"^\\.\\*\\/\\-$", {".*/-"}, {"a*/-"}},
      {"^(?:a|(?<name>b))c$", {"ac", "bc"}, {"c"}},
      {"^[\\w-]+@[\\w.]+$", {"a-b@c.d"}, {"@", "a@"}},
      {"^a(b(c|d)*)?$", {"a", "ab", "abcdc"}, {"ac"}},
      {"a$b", {}, {"a$b", "ab"}},
      {"^(a+)+$", {"aaaa"}, {"", "b"}},
      {"^\\t\\n\\cA\\0$", {}, {"t"}},
  };
  for (const Case& one : cases) {
    const TextAutomaton automaton = regular_expression(one.pattern);
    for (const char* text : one.found)
      EXPECT_TRUE(automaton.accepts(text)) << one.pattern << " in " << text;
    for (const char* text : one.missed)
      EXPECT_FALSE(automaton.accepts(text)) << one.pattern << " in " << text;
  }
  EXPECT_TRUE(regular_expression("a|b", true).accepts("b"));
  EXPECT_FALSE(regular_expression("a|b", true).accepts("ab"));
}

TEST(RegularExpression, RefusesWhatItCannotEnforce) {
  for (const char* pattern : {"(?=a)",  "(?!a)",  "(?<=a)", "(?<!a)", "\\bword",
                              "(a)\\1", "\\p{L}", "a**",    "*a",     "(a",
                              "a)",     "[a",     "[b-a]",  "a{3,2}", "a{1,99999}",
                              "(?i)a",  "\\",     "\\u12",  "^*",     "((a{1000}){1000}){9}"})
    EXPECT_THROW(regular_expression(pattern), Error) << pattern;
}

TEST(TextAutomaton, CombinesExactly) {
  const TextAutomaton letters = regular_expression("^[a-m]*$");
  const TextAutomaton others = regular_expression("^[h-z]*$");
  EXPECT_TRUE((letters & others).accepts("him"));
  EXPECT_FALSE((letters & others).accepts("ham"));
  EXPECT_TRUE((letters | others).accepts("xyz"));
  EXPECT_FALSE((letters | others).accepts("ax"));
  EXPECT_TRUE((letters - others).accepts("ham"));
  EXPECT_FALSE((letters - others).accepts("him"));
  EXPECT_TRUE((letters - letters).empty());
  const std::vector<std::string> keys = {"a", "ab", "\xc3\xa9"};
  const TextAutomaton without = TextAutomaton::anything() - TextAutomaton::one_of(keys);
  for (const char* text : {"", "b", "abc", "e", "\xc3\xa9\xc3\xa9"})
    EXPECT_TRUE(without.accepts(text)) << text;
  for (const std::string& key : keys) EXPECT_FALSE(without.accepts(key)) << key;
  EXPECT_FALSE(without.accepts("\xff"));
  const TextAutomaton tag = TextAutomaton::containing("</p>");
  EXPECT_TRUE(tag.accepts("a<</p></p"));
  EXPECT_FALSE(tag.accepts("a</ p></p"));
}

}  // namespace
}  // namespace qnext::grammar
