// UTF-8: checking, reading and writing code points. Surrogates and overlong forms are invalid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qnext::utf8 {

enum class Kind {
  valid,       // a whole character
  invalid,     // `length` bytes that belong to no character: one U+FFFD in the usual replacement
  incomplete,  // the text ends inside a character that more bytes could complete
};

struct Character {
  Kind kind;
  uint32_t length;      // bytes covered, at least 1
  char32_t code_point;  // where valid
};

// What stands at text[offset], offset < text.size(). Invalid bytes are grouped as the Unicode
// Standard recommends (maximal subparts, section 3.9), which is what Python's
// bytes.decode("utf-8", errors="replace") does.
Character examine(std::string_view text, size_t offset);

// The offset of the first byte that is not part of a whole valid character; none where all is well.
std::optional<size_t> first_invalid(std::string_view text);

// The offset of the first byte >= 0x80 at or after `offset`, or text.size().
size_t skip_ascii(std::string_view text, size_t offset);

// Bytes of a character from its first byte, in valid text.
inline uint32_t length_of(char first) {
  const auto byte = static_cast<uint8_t>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The code point whose first byte is at `at`, in valid text.
inline char32_t decode(const char* at) {
  const auto byte = [at](int i) { return static_cast<char32_t>(static_cast<uint8_t>(at[i])); };
  if (byte(0) < 0x80) return byte(0);
  if (byte(0) < 0xE0) return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
  if (byte(0) < 0xF0) return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
  return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
}

// The offset of the character before `offset`, in valid text; offset > 0.
inline size_t previous(std::string_view text, size_t offset) {
  do --offset;
  while ((static_cast<uint8_t>(text[offset]) & 0xC0) == 0x80);
  return offset;
}

// Appends a code point (a Unicode scalar value).
void append(std::string& out, char32_t code_point);

// Bytes arriving in pieces cut anywhere; text leaving in whole characters, U+FFFD for each run of
// invalid bytes. All output together equals Python's decode(errors="replace") of all input.
class StreamDecoder {
 public:
  void push(std::string_view bytes, std::string& out);
  void finish(std::string& out);  // what is pending will not be completed; ready for a new stream

 private:
  std::string pending_;  // a proper prefix of one character: at most 3 bytes
};

}  // namespace qnext::utf8
