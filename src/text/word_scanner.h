// Cuts text into the words that byte-pair encoding then works on, as the regular expression of the
// Qwen tokenizers does:
//
//   (?i:'s|'t|'re|'ve|'m|'ll|'d)         a contraction's tail
//   [^\r\n\p{L}\p{N}]?\p{L}+             letters, with one character before them
//   \p{N}                                one digit
//    ?[^\s\p{L}\p{N}]+[\r\n]*            punctuation
//   \s*[\r\n]+                           space up to the last line break in it
//   \s+(?!\S)                            space but for its last character, which leads what follows
//   \s+
//
// Qwen3.5 counts marks (\p{M}) as letters in the second and fourth branch. Every character belongs
// to some branch, so that the words cover the text, and each is found by looking at its characters
// once (white space without line breaks: at most twice).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace qnext {

class WordScanner {
 public:
  explicit WordScanner(bool marks_are_letters);

  // The scanner that does what `expression` says; none where it is not one of those known.
  static std::optional<WordScanner> from_expression(std::string_view expression);

  bool marks_are_letters() const;

  // Where the word that starts at `begin` ends. text is valid UTF-8, begin < text.size().
  size_t word_end(std::string_view text, size_t begin) const;

 private:
  size_t letters_end(std::string_view text, size_t offset) const;
  size_t punctuation_end(std::string_view text, size_t offset) const;

  uint8_t letter_;           // class bits that count as letters
  uint8_t not_punctuation_;  // class bits that the punctuation branch excludes
};

}  // namespace qnext
