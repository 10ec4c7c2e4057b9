// Any bytes as a schema: refused, or a grammar that never comes to a dead end and whose texts are
// JSON. Any bytes as a regular expression: refused, or an automaton that agrees with itself.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>

#include "base/error.h"
#include "text/grammar/regular_expression.h"
#include "text/grammar/testing/grammar_texts.h"

namespace {

namespace grammar = qnext::grammar;

void read_schema(const std::string& text, uint32_t seed) {
  std::shared_ptr<const grammar::Grammar> made;
  try {
    made = grammar::testing::schema_grammar(text);
  } catch (const qnext::Error&) {
    return;
  }
  grammar::GrammarReader reader(made);
  std::mt19937 random(seed);
  for (int i = 0; i < 3; ++i) {
    const std::string value = grammar::testing::random_text(reader, random, 200);
    if (!value.empty()) qnext::json::parse(value, "value");  // what it throws is a fault
  }
}

void read_expression(const std::string& text) {
  try {
    const grammar::TextAutomaton automaton = grammar::regular_expression(text);
    const grammar::TextAutomaton same = grammar::regular_expression(text);
    if (!(automaton - same).empty()) std::abort();
    const grammar::TextAutomaton others = grammar::TextAutomaton::anything() - automaton;
    if (!(automaton & others).empty()) std::abort();
  } catch (const qnext::Error&) {
    return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1 || size > 4096) return 0;
  const std::string text(reinterpret_cast<const char*>(data), size);
  read_schema(text, data[0]);
  if (size < 40) read_expression(text);
  return 0;
}
