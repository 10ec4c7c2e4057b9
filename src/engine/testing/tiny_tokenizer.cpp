#include "engine/testing/tiny_tokenizer.h"

#include "base/json.h"
#include "text/byte_level.h"
#include "text/tokenizer_test_data.h"

namespace qnext::engine::testing {

Tokenizer tiny_tokenizer() {
  using json::Array;
  using json::Object;
  const auto bytes = [](std::string_view text) {
    std::string result;
    for (const char byte : text) result += to_byte_level(static_cast<unsigned char>(byte));
    return result;
  };
  Object vocabulary;
  int next = 0;
  for (const char* text : {"a", "b", "c", " ", "\xE2", "\x82", "\xAC", "ab", "bc", "\xE2\x82"})
    vocabulary.set(bytes(text), next++);
  next += 2;  // the added tokens
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text = to_byte_level(static_cast<unsigned char>(byte));
    if (!vocabulary.find(text)) vocabulary.set(text, next++);
  }
  const Array merges{"a b", "b c", bytes("\xE2") + " " + bytes("\x82")};
  const Object end{{"id", 10}, {"content", "<end>"}, {"special", true}, {"normalized", false}};
  const Object call{{"id", 11}, {"content", "<call>"}, {"special", false}, {"normalized", false}};
  const Object model{{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}};
  const json::Value definition =
      Object{{"version", "1.0"},
             {"added_tokens", Array{end, call}},
             {"normalizer", Object{{"type", "NFC"}}},
             {"pre_tokenizer", test::pre_tokenizer(test::qwen3_expression)},
             {"decoder", Object{{"type", "ByteLevel"}}},
             {"model", model}};
  return Tokenizer::from_json(json::write(definition), "tiny");
}

}  // namespace qnext::engine::testing
