// Text from tokens that arrive one by one.
#pragma once

#include <cstdint>
#include <string>

#include "text/tokenizer.h"
#include "text/utf8.h"

namespace qnext {

// A token may hold part of a character; its bytes wait until the character is whole or broken.
// All text returned, finish() included, equals Tokenizer::decode of all ids pushed.
// Refers to the tokenizer, which must outlive it. One stream at a time.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer, bool skip_special = false)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}

  // The text that is certain now: whole characters, often none.
  std::string push(int32_t id) {
    std::string text;
    if (!(skip_special_ && tokenizer_->is_special(id)))
      decoder_.push(tokenizer_->token_bytes(id), text);
    return text;
  }

  // What was held back: U+FFFD for a character that never became whole, or nothing. A new stream
  // may follow.
  std::string finish() {
    std::string text;
    decoder_.finish(text);
    return text;
  }

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  utf8::StreamDecoder decoder_;
};

}  // namespace qnext
