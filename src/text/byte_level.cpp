#include "text/byte_level.h"

#include <array>
#include <cstdint>

#include "text/utf8.h"

namespace qnext {

namespace {

constexpr bool shown_as_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr size_t alphabet_end = 0x100 + 68;

struct Alphabet {
  std::array<char32_t, 256> character{};
  std::array<int16_t, alphabet_end> byte{};
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.byte) byte = -1;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t character = shown_as_itself(byte) ? static_cast<char32_t>(byte) : next++;
    alphabet.character[static_cast<size_t>(byte)] = character;
    alphabet.byte[character] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet alphabet = make_alphabet();

}  // namespace

std::optional<std::string> from_byte_level(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t offset = 0; offset < text.size(); offset += utf8::length_of(text[offset])) {
    const char32_t character = utf8::decode(text.data() + offset);
    if (character >= alphabet_end || alphabet.byte[character] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(alphabet.byte[character]));
  }
  return bytes;
}

std::string to_byte_level(unsigned char byte) {
  std::string text;
  utf8::append(text, alphabet.character[byte]);
  return text;
}

}  // namespace qnext
