// Files of the JSON Schema Test Suite against our grammars: text_schema_suite FILE...
//
// Each file is a list of {description, schema, tests: [{description, data, valid}]}. A schema is
// enforced or refused with a reason. Of one that is enforced no invalid value may be accepted, and
// every valid one must be, in one order of its members at least. Prints a line for each fault, and
// counts; exits with 1 if there was a fault.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "base/json.h"
#include "text/grammar/testing/grammar_texts.h"

namespace qnext::grammar {
namespace {

// More orders than that are not tried, of one value.
constexpr size_t most_texts = 720;

// A whole number is one, however it is written.
std::string number_text(const json::Value& value) {
  if (value.is_integer()) return fmt::format("{}", value.as_integer());
  const double number = value.as_double();
  if (number == std::floor(number) && std::abs(number) < 1e18)
    return fmt::format("{}", static_cast<int64_t>(number));
  return json::write(value);
}

std::vector<std::string> texts_of(const json::Value& value);

// `before` and then each of the texts.
std::vector<std::string> joined(const std::vector<std::string>& before,
                                const std::vector<std::string>& texts) {
  std::vector<std::string> out;
  for (const std::string& head : before)
    for (const std::string& text : texts)
      if (out.size() < most_texts) out.push_back(head + text);
  return out;
}

std::vector<std::string> array_texts(const json::Array& array) {
  std::vector<std::string> texts = {"["};
  for (size_t i = 0; i < array.size(); ++i) {
    if (i > 0) texts = joined(texts, {", "});
    texts = joined(texts, texts_of(array[i]));
  }
  return joined(texts, {"]"});
}

std::vector<std::string> object_texts(const json::Object& object) {
  std::vector<std::pair<std::string, const json::Value*>> members;
  for (const auto& [key, value] : object) members.emplace_back(key, &value);
  std::ranges::sort(members);
  std::vector<std::string> all;
  do {
    std::vector<std::string> texts = {"{"};
    for (size_t i = 0; i < members.size(); ++i) {
      const std::string key = json::write(json::Value(members[i].first));
      texts = joined(texts, {(i > 0 ? ", " : "") + key + ": "});
      texts = joined(texts, texts_of(*members[i].second));
    }
    for (const std::string& text : texts) all.push_back(text + "}");
  } while (all.size() < most_texts && std::ranges::next_permutation(members).found);
  return all;
}

std::vector<std::string> texts_of(const json::Value& value) {
  if (value.is_array()) return array_texts(value.as_array());
  if (value.is_object()) return object_texts(value.as_object());
  if (value.is_number()) return {number_text(value)};
  return {json::write(value)};
}

struct Counts {
  int enforced = 0;
  int refused = 0;
  int values = 0;
  int faults = 0;
};

void check(const std::string& name, const json::Value& group, Counts& counts) {
  std::shared_ptr<const Grammar> grammar;
  try {
    grammar = testing::schema_grammar(json::write(*group.find("schema")));
  } catch (const std::exception&) {
    ++counts.refused;
    return;
  }
  ++counts.enforced;
  GrammarReader reader(grammar);
  for (const json::Value& test : group.find("tests")->as_array()) {
    ++counts.values;
    const std::vector<std::string> texts = texts_of(*test.find("data"));
    const bool accepted = std::ranges::any_of(
        texts, [&](const std::string& text) { return testing::accepts(reader, text); });
    if (accepted == test.find("valid")->as_bool()) continue;
    ++counts.faults;
    fmt::print("{}: {}: {}: {} {}\n", name, group.find("description")->as_string(),
               test.find("description")->as_string(), accepted ? "accepts" : "does not accept",
               texts.front());
  }
}

}  // namespace
}  // namespace qnext::grammar

int main(int count, char** files) {
  qnext::grammar::Counts counts;
  for (int i = 1; i < count; ++i) {
    const qnext::json::Value groups = qnext::json::parse_file(files[i]);
    for (const qnext::json::Value& group : groups.as_array())
      qnext::grammar::check(files[i], group, counts);
  }
  fmt::print("{} schemas enforced, {} refused; {} values judged, {} wrongly\n", counts.enforced,
             counts.refused, counts.values, counts.faults);
  return counts.faults == 0 ? 0 : 1;
}
