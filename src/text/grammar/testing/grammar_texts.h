// For tests: what a grammar accepts, and texts that it makes.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/grammar/grammar_reader.h"
#include "text/grammar/json_schema.h"

namespace qnext::grammar::testing {

inline std::shared_ptr<const Grammar> schema_grammar(std::string_view schema,
                                                     const JsonStyle& style = {}) {
  const json::Value parsed = json::parse(schema, "schema");
  GrammarBuilder builder;
  JsonRules rules(builder, style);
  const int32_t rule = schema_rule(rules, parsed);
  return builder.finish(rule);
}

inline bool accepts(GrammarReader& reader, std::string_view text) {
  int32_t at = reader.start();
  for (const char byte : text) at = reader.next(at, static_cast<uint8_t>(byte));
  return reader.may_end(at);
}

inline bool accepts(std::string_view schema, std::string_view text) {
  GrammarReader reader(schema_grammar(schema));
  return accepts(reader, text);
}

// A text of the grammar, byte by byte at random; one that would be longer is cut off, and empty.
inline std::string random_text(GrammarReader& reader, std::mt19937& random, size_t longest) {
  std::string text;
  int32_t at = reader.start();
  while (text.size() < longest) {
    std::vector<uint8_t> bytes;
    for (int byte = 0; byte < 256; ++byte)
      if (reader.next(at, static_cast<uint8_t>(byte)) != GrammarReader::dead)
        bytes.push_back(static_cast<uint8_t>(byte));
    const bool may_end = reader.may_end(at);
    if (may_end && (bytes.empty() || random() % 4 == 0)) return text;
    if (bytes.empty()) return "dead end: " + text;
    uint8_t byte = bytes[random() % bytes.size()];
    // What closes comes as often as all else together, so that texts end.
    std::vector<uint8_t> closing;
    for (const uint8_t one : bytes)
      if (one == '"' || one == '}' || one == ']') closing.push_back(one);
    if (!closing.empty() && random() % 3 == 0) byte = closing[random() % closing.size()];
    text += static_cast<char>(byte);
    at = reader.next(at, byte);
  }
  return {};
}

}  // namespace qnext::grammar::testing
