#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "base/error.h"
#include "text/chat_template.h"

namespace qnext {
namespace {

std::string render(const std::string& source, const json::Object& variables = {}) {
  return ChatTemplate(source).render(variables, 0);
}

std::string error_of(const std::string& source, const json::Object& variables = {}) {
  try {
    const std::string text = render(source, variables);
    return "no error, but: " + text.substr(0, 200);
  } catch (const Error& error) {
    return error.what();
  }
}

// tests/data/template-cases.json: what Python's jinja2 gives for templates on every feature.
TEST(Template, AgreesWithPython) {
  const json::Value file = json::parse_file(QNEXT_SOURCE_DIR "/tests/data/template-cases.json");
  const json::Object& standard = file.find("variables")->as_object();
  int count = 0;
  for (const json::Value& one : file.find("cases")->as_array()) {
    const std::string& source = one.find("template")->as_string();
    SCOPED_TRACE(source);
    json::Object variables = standard;
    if (const json::Value* more = one.find("variables"))
      for (const auto& [key, value] : more->as_object()) variables.set(key, value);
    if (const json::Value* expected = one.find("rendered")) {
      try {
        EXPECT_EQ(render(source, variables), expected->as_string());
      } catch (const Error& error) {
        ADD_FAILURE() << error.what() << "\nexpected: " << expected->as_string();
      }
    } else {
      EXPECT_THROW(render(source, variables), Error);
    }
    ++count;
  }
  EXPECT_GT(count, 400);
}

TEST(Template, ErrorsNameTheLine) {
  EXPECT_EQ(error_of("a\n{{ x.y }}"), "chat template, line 2: 'x' is undefined");
  EXPECT_EQ(error_of("\n\n{{ raise_exception('no system, please') }}"),
            "chat template, line 3: no system, please");
  EXPECT_EQ(error_of("\n{{ 1|nothing }}"),
            "chat template, line 2: there is no filter named 'nothing'");
  EXPECT_EQ(error_of("\n{{ 1 is nothing }}"),
            "chat template, line 2: there is no test named 'nothing'");
  EXPECT_EQ(error_of("\n{% frobnicate %}"),
            "chat template, line 2: there is no statement named 'frobnicate'");
  EXPECT_EQ(error_of("{% if x %}"), "chat template, line 1: a block lacks its 'endif'");
  EXPECT_EQ(error_of("{% for x in y %}\n{{ 1 / 0 }}\n{% endfor %}", {{"y", json::Array{1}}}),
            "chat template, line 2: division by zero");
  EXPECT_EQ(error_of("{{ d.k.v }}", {{"d", json::Object{}}}),
            "chat template, line 1: 'dict object' has no attribute 'k'");
  EXPECT_EQ(error_of("{{ l.append(1) }}", {{"l", json::Array{}}}),
            "chat template, line 1: templates may not change values: 'append' of a 'list' is out "
            "of reach");
}

TEST(Template, SaysWhatItDoesNotSupport) {
  for (const char* source : {"{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}",
                             "{% block a %}{% endblock %}", "{% autoescape true %}"})
    EXPECT_NE(error_of(source).find("is not supported"), std::string::npos) << source;
}

TEST(Template, FixedClock) {
  setenv("TZ", "UTC", 1);
  EXPECT_EQ(render("{{ strftime_now('%d %B %Y %H:%M') }}"), "01 January 1970 00:00");
}

TEST(Template, IntegersBeyondSixtyFourBitsAreErrors) {
  EXPECT_NE(error_of("{{ 9223372036854775807 + 1 }}").find("64 bits"), std::string::npos);
  EXPECT_NE(error_of("{{ 10 ** 30 }}").find("64 bits"), std::string::npos);
  EXPECT_NE(error_of("{{ 99999999999999999999 }}").find("64 bits"), std::string::npos);
  EXPECT_EQ(render("{{ -9223372036854775807 - 1 }}"), "-9223372036854775808");
  EXPECT_NE(error_of("{{ (-9223372036854775807 - 1) // -1 }}").find("64 bits"), std::string::npos);
  EXPECT_EQ(render("{{ (-9223372036854775807 - 1) % -1 }}"), "0");
}

std::string repeated(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

// Each of these would take for ever, all memory or all stack.
TEST(Template, RunawaysEndInAnErrorSoon) {
  const std::string sources[] = {
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
      "{{ range(10**9) | list }}",
      "{{ 'a' * 10**9 }}",
      "{{ [1] * 10**9 }}",
      "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}"
      "{% endfor %}",
      "{% set ns = namespace(s='ab') %}{% for i in range(60) %}"
      "{% set ns.s = ns.s.replace('a', ns.s) %}{% endfor %}",
      "{% set ns = namespace(s='ab') %}{% for i in range(60) %}"
      "{% set ns.s = ns.s.join([ns.s, ns.s, ns.s]) %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
      "{% endfor %}{{ ns.l }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
      "{% endfor %}{{ ns.l | tojson }}",
      "{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(60) %}"
      "{% set ns.l = [ns.l, ns.l] %}{% set ns.m = [ns.m, ns.m] %}{% endfor %}{{ ns.l == ns.m }}",
      "{% set ns = namespace(l=1) %}{% for i in range(60) %}{% set ns.l = (ns.l, ns.l) %}"
      "{% endfor %}{{ {ns.l: 1} }}",
      "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}"
      "{% endfor %}",
      "{{ 'x'.center(10**9) }}",
      "{{ 'x'.ljust(10**9) }}",
      "{{ 'x'.zfill(10**9) }}",
      "{{ '%999999999d' % 1 }}",
      "{{ '%.999999999f' % 1.5 }}",
      "{{ '{:999999999}'.format(1) }}",
      "{{ '\t'.expandtabs(10**9) }}",
      "{{ 'x' | indent(10**9) }}",
      "{{ [1] | batch(10**12, 0) | list }}",
      "{{ [1] | slice(10**12) | list }}",
      "{{ [[[1]]] | tojson(indent=10**9) }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
      "{{ " + repeated("(", 100000) + "1" + repeated(")", 100000) + " }}",
      "{{ " + repeated("[", 100000) + repeated("]", 100000) + " }}",
      "{{ 1" + repeated(" + 1", 100000) + " }}",
      "{{ x" + repeated(".a", 100000) + " }}",
      "{{ 1" + repeated("|abs", 100000) + " }}",
      "{{ " + repeated("not ", 100000) + "1 }}",
      "{{ " + repeated("-", 100000) + "1 }}",
      "{{ " + repeated("1 if 1 else ", 100000) + "1 }}",
      repeated("{% if 1 %}", 100000) + repeated("{% endif %}", 100000),
  };
  for (const std::string& source : sources) {
    SCOPED_TRACE(source.substr(0, 120));
    const auto start = std::chrono::steady_clock::now();
    EXPECT_THROW(render(source), Error);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    EXPECT_LT(took.count(), 30.0);  // about a second at most without sanitizers
  }
}

TEST(Template, CyclesThroughNamespacesAreFreed) {
  // The leak sanitizer is the judge of these.
  EXPECT_EQ(render("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns.me.me is sameas ns }}"),
            "True");
  EXPECT_EQ(render("{% set ns = namespace() %}{% macro m() %}{{ ns.x }}{% endmacro %}"
                   "{% set ns.m = m %}{% set ns.x = 5 %}{{ ns.m() }}"),
            "5");
  EXPECT_EQ(render("{% set ns = namespace() %}{% for a in [1] %}{% set ns.l = loop %}"
                   "{{ loop.changed(loop) }}{% endfor %}{{ ns.l.index }}"),
            "True1");
}

TEST(Template, ManyThreadsShareOneTemplate) {
  const ChatTemplate chat(
      "{% for m in messages %}{{ m.role ~ ': ' ~ (m.content | trim) }};"
      "{% endfor %}{{ 'constant' | upper }}");
  const json::Object variables{
      {"messages", json::Array{json::Object{{"role", "user"}, {"content", " hi "}}}}};
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i)
        if (chat.render(variables) != "user: hi;CONSTANT") ++wrong[t];
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(Template, RefusesTextThatIsNotUtf8) {
  EXPECT_THROW(ChatTemplate("\xFF"), Error);
  EXPECT_THROW(ChatTemplate("{{ '\\ud800' }}"), Error);
}

}  // namespace
}  // namespace qnext
