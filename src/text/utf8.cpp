#include "text/utf8.h"

#include <cstring>

namespace qnext::utf8 {

namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";

// Appends the text of `bytes` up to an incomplete character at the end; returns where that starts.
size_t append_replaced(std::string_view bytes, std::string& out) {
  size_t offset = 0;
  while (offset < bytes.size()) {
    const size_t ascii_end = skip_ascii(bytes, offset);
    out.append(bytes, offset, ascii_end - offset);
    offset = ascii_end;
    if (offset == bytes.size()) break;
    const Character character = examine(bytes, offset);
    if (character.kind == Kind::incomplete) break;
    out.append(character.kind == Kind::valid ? bytes.substr(offset, character.length)
                                             : replacement);
    offset += character.length;
  }
  return offset;
}

}  // namespace

Character examine(std::string_view text, size_t offset) {
  const auto first = static_cast<uint8_t>(text[offset]);
  if (first < 0x80) return {Kind::valid, 1, first};
  if (first < 0xC2 || first > 0xF4) return {Kind::invalid, 1, 0};
  const uint32_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  // The second byte is narrower after four of the first ones: no overlong forms, no surrogates,
  // nothing above U+10FFFF.
  const uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  for (uint32_t i = 1; i < length; ++i) {
    if (offset + i == text.size()) return {Kind::incomplete, i, 0};
    const auto byte = static_cast<uint8_t>(text[offset + i]);
    if (byte < (i == 1 ? low : 0x80) || byte > (i == 1 ? high : 0xBF)) return {Kind::invalid, i, 0};
  }
  return {Kind::valid, length, decode(text.data() + offset)};
}

size_t skip_ascii(std::string_view text, size_t offset) {
  while (offset + 8 <= text.size()) {
    uint64_t word;
    std::memcpy(&word, text.data() + offset, 8);
    if (word & 0x8080808080808080) break;
    offset += 8;
  }
  while (offset < text.size() && static_cast<uint8_t>(text[offset]) < 0x80) ++offset;
  return offset;
}

std::optional<size_t> first_invalid(std::string_view text) {
  for (size_t offset = skip_ascii(text, 0); offset < text.size();) {
    const Character character = examine(text, offset);
    if (character.kind != Kind::valid) return offset;
    offset += character.length;
    if (offset < text.size() && static_cast<uint8_t>(text[offset]) < 0x80)
      offset = skip_ascii(text, offset);
  }
  return std::nullopt;
}

void append(std::string& out, char32_t code_point) {
  const auto put = [&out](char32_t byte) {
    out.push_back(static_cast<char>(static_cast<uint8_t>(byte)));
  };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

void StreamDecoder::push(std::string_view bytes, std::string& out) {
  if (pending_.empty()) {
    const size_t end = append_replaced(bytes, out);
    pending_.assign(bytes, end);
    return;
  }
  pending_.append(bytes);
  pending_.erase(0, append_replaced(pending_, out));
}

void StreamDecoder::finish(std::string& out) {
  if (!pending_.empty()) out.append(replacement);
  pending_.clear();
}

}  // namespace qnext::utf8
