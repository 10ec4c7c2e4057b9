// Tokenizers for tests: a small one made up here, and those under tests/data and models.
#pragma once

#include <random>
#include <string>
#include <string_view>

#include "base/json.h"
#include "text/byte_level.h"
#include "text/utf8.h"

namespace qnext::test {

inline constexpr std::string_view qwen3_expression =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
inline constexpr std::string_view qwen35_expression =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

// An object with `key` set (in place where it exists).
inline json::Value with(json::Value object, std::string_view key, json::Value value) {
  object.as_object().set(std::string(key), std::move(value));
  return object;
}

inline json::Value pre_tokenizer(std::string_view expression) {
  using json::Object;
  const Object split{{"type", "Split"},
                     {"pattern", Object{{"Regex", expression}}},
                     {"behavior", "Isolated"},
                     {"invert", false}};
  const Object byte_level{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  return Object{{"type", "Sequence"}, {"pretokenizers", json::Array{split, byte_level}}};
}

// The 256 bytes as ids 0 to 255, merges that make " th", " the", "aa", "aaaa" and 4 more tokens
// (256 to 263), and added tokens: "<s>" (264, special) and "<call>" (265).
inline json::Value small_tokenizer() {
  using json::Array;
  using json::Object;
  Object vocabulary;
  for (int byte = 0; byte < 256; ++byte)
    vocabulary.set(to_byte_level(static_cast<unsigned char>(byte)), byte);
  const Array merges{"t h", "\u0120 th", "\u0120th e", "a a", "aa aa", "e r", "i n", "in g"};
  for (const json::Value& merge : merges) {
    std::string merged = merge.as_string();
    merged.erase(merged.find(' '), 1);
    vocabulary.set(merged, static_cast<int>(vocabulary.size()));
  }
  const Object start{{"id", 264}, {"content", "<s>"}, {"special", true}, {"normalized", false}};
  const Object call{{"id", 265}, {"content", "<call>"}, {"special", false}, {"normalized", false}};
  const Object model{{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}};
  return Object{{"version", "1.0"},
                {"added_tokens", Array{start, call}},
                {"normalizer", Object{{"type", "NFC"}}},
                {"pre_tokenizer", pre_tokenizer(qwen3_expression)},
                {"decoder", Object{{"type", "ByteLevel"}}},
                {"model", model}};
}

inline std::string small_tokenizer_json() {
  return json::write(small_tokenizer());
}

// Text that is awkward for tokenizers: marks in any order, jamo, spaces of all sorts, line breaks,
// contractions, added tokens, runs, and anything from any plane.
class RandomText {
 public:
  explicit RandomText(uint64_t seed) : engine_(seed) {}

  size_t below(size_t limit) {
    return std::uniform_int_distribution<size_t>(0, limit - 1)(engine_);
  }

  std::string text() {
    std::string out;
    for (size_t atoms = below(24); atoms > 0; --atoms) append_atom(out);
    return out;
  }

 private:
  static constexpr std::string_view samples[] = {" ",
                                                 "  ",
                                                 "\t",
                                                 "\n",
                                                 "\r\n",
                                                 "\u00A0",
                                                 "\u3000",
                                                 "\u2028",
                                                 "'s",
                                                 "'LL",
                                                 "'\u017F",
                                                 "the",
                                                 " the",
                                                 "e\u0301",
                                                 "A\u0323\u0307",
                                                 "\u1112\u1161",
                                                 "\u11AB",
                                                 "\u0344",
                                                 "\u4F60",
                                                 "\u0915\u094D",
                                                 "\U0001F468\u200D",
                                                 "\u212B",
                                                 "\u09C7\u09BE",
                                                 "12",
                                                 "\u2167",
                                                 "!?",
                                                 "<s>",
                                                 "<call>",
                                                 "<|im_start|>",
                                                 "<|endoftext|>",
                                                 "<",
                                                 "ing"};

  char32_t code_point(size_t limit) {
    for (;;)
      if (const size_t c = below(limit); c < 0xD800 || c >= 0xE000) return static_cast<char32_t>(c);
  }

  void append_atom(std::string& out) {
    switch (below(6)) {
      case 0:
        return utf8::append(out, code_point(0x110000));
      case 1:
        return utf8::append(out, code_point(0x3000));
      case 2:
        return utf8::append(out, static_cast<char32_t>(0x300 + below(0x70)));
      case 3:
        return utf8::append(out, code_point(0x80));
      case 4: {
        const std::string_view sample = samples[below(std::size(samples))];
        for (size_t times = below(100) == 0 ? 80 : 1; times > 0; --times) out += sample;
        return;
      }
      default:
        out += samples[below(std::size(samples))];
    }
  }

  std::mt19937_64 engine_;
};

}  // namespace qnext::test
