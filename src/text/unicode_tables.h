// What the tokenizer needs to know of Unicode, as the Hugging Face `tokenizers` library knows it:
// its regular expressions follow Unicode 16, its normaliser Unicode 9. The tables are written by
// tools/generate_unicode_tables.py, which asks that library about every code point.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

namespace qnext::unicode {

enum ClassBit : uint8_t {
  letter = 1,        // \p{L}
  number = 2,        // \p{N}
  mark = 4,          // \p{M}
  space = 8,         // \s
  word = 16,         // \w of Rust's regex crate: what bounds a single_word added token
  nfc_complex = 32,  // may change, or join or pass its predecessor, under NFC
};

// Two stages: class_blocks[class_index[c >> 7] * 128 + (c & 127)]. Block 0 is ASCII.
extern const uint8_t class_index[8704];
extern const uint8_t class_blocks[];

inline uint8_t classes(char32_t code_point) {
  return class_blocks[class_index[code_point >> 7] * 128u + (code_point & 127)];
}
inline uint8_t ascii_classes(uint8_t byte) {
  return class_blocks[byte];
}

// Canonical combining classes other than 0, ascending.
struct CombiningRange {
  char32_t first, last;
  uint8_t value;
};
extern const CombiningRange combining_ranges[];
extern const size_t combining_range_count;

// Full canonical decompositions (Hangul apart), ascending by code point, into decomposition_pool.
struct Decomposition {
  char32_t code_point;
  uint16_t offset, length;
};
extern const char32_t decomposition_pool[];
extern const Decomposition decompositions[];
extern const size_t decomposition_count;

// Primary composites (Hangul apart), ascending by (first, second).
struct Composition {
  char32_t first, second, composed;
};
extern const Composition compositions[];
extern const size_t composition_count;

}  // namespace qnext::unicode
