#include "text/word_scanner.h"

#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace qnext {

namespace {

struct Seen {
  uint8_t classes;
  uint32_t length;
};

inline Seen look(std::string_view text, size_t offset) {
  const auto byte = static_cast<uint8_t>(text[offset]);
  if (byte < 0x80) return {unicode::ascii_classes(byte), 1};
  return {unicode::classes(utf8::decode(text.data() + offset)), utf8::length_of(text[offset])};
}

bool is_line_break(char byte) {
  return byte == '\r' || byte == '\n';
}

// Bytes of a contraction's tail that starts with the apostrophe at `begin`; 0 for none.
size_t contraction_length(std::string_view text, size_t begin) {
  // U+017F (long s) is the only letter outside ASCII that folds to one of these. Setting the case
  // bit maps two bytes to each lower-case letter: itself and its capital.
  if (text.substr(begin + 1, 2) == "\xC5\xBF") return 3;
  const auto lower = [&](size_t offset) {
    return offset < text.size() ? static_cast<char>(text[offset] | 0x20) : '\0';
  };
  switch (lower(begin + 1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return lower(begin + 2) == 'e' ? 3 : 0;
    case 'l':
      return lower(begin + 2) == 'l' ? 3 : 0;
    default:
      return 0;
  }
}

// The end of the word of white space at `begin`, which no other branch takes.
size_t space_end(std::string_view text, size_t begin) {
  size_t offset = begin, last = begin, after_line_break = 0;
  while (offset < text.size()) {
    const Seen seen = look(text, offset);
    if (!(seen.classes & unicode::space)) break;
    last = offset;
    offset += seen.length;
    if (is_line_break(text[last])) after_line_break = offset;
  }
  if (after_line_break) return after_line_break;
  if (offset == text.size() || last == begin) return offset;
  return last;
}

}  // namespace

WordScanner::WordScanner(bool marks_are_letters)
    : letter_(marks_are_letters ? unicode::letter | unicode::mark : unicode::letter),
      not_punctuation_(static_cast<uint8_t>(letter_ | unicode::number | unicode::space)) {}

bool WordScanner::marks_are_letters() const {
  return (letter_ & unicode::mark) != 0;
}

std::optional<WordScanner> WordScanner::from_expression(std::string_view expression) {
  if (expression ==
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
      " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
    return WordScanner(false);
  // Whether the first class excludes \p{M} does not matter: a leading mark is taken either way.
  if (expression ==
          "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
          " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" ||
      expression ==
          "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{M}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
          " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
    return WordScanner(true);
  return std::nullopt;
}

size_t WordScanner::letters_end(std::string_view text, size_t offset) const {
  while (offset < text.size()) {
    const Seen seen = look(text, offset);
    if (!(seen.classes & letter_)) break;
    offset += seen.length;
  }
  return offset;
}

size_t WordScanner::punctuation_end(std::string_view text, size_t offset) const {
  while (offset < text.size()) {
    const Seen seen = look(text, offset);
    if (seen.classes & not_punctuation_) break;
    offset += seen.length;
  }
  while (offset < text.size() && is_line_break(text[offset])) ++offset;
  return offset;
}

size_t WordScanner::word_end(std::string_view text, size_t begin) const {
  const char byte = text[begin];
  if (byte == '\'')
    if (const size_t length = contraction_length(text, begin)) return begin + length;
  const Seen first = look(text, begin);
  const size_t second = begin + first.length;
  if (first.classes & letter_) return letters_end(text, second);
  if (first.classes & unicode::number) return second;
  if (second < text.size() && !is_line_break(byte)) {
    const Seen next = look(text, second);
    if (next.classes & letter_) return letters_end(text, second + next.length);
    if (byte == ' ' && !(next.classes & not_punctuation_))
      return punctuation_end(text, second + next.length);
  }
  if (first.classes & unicode::space) return space_end(text, begin);
  return punctuation_end(text, second);
}

}  // namespace qnext
