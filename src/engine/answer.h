// From drawn tokens to what the listener hears, and to the end of the answer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"

namespace qnext {
class Tokenizer;
}

namespace qnext::engine {

// The answer of one request. Holds back text that is not certain yet: the bytes of an unfinished
// UTF-8 character, and what may turn out to be the start of a stop string.
class Answer {
 public:
  // `tokenizer` may be null without stop strings; it and the listener must outlive the answer.
  // Throws Error for stop strings that cannot be watched for.
  Answer(RequestId id, Listener& listener, const Tokenizer* tokenizer,
         std::vector<int32_t> stop_tokens, const std::vector<std::string>& stop_strings);
  ~Answer();
  Answer(Answer&&) noexcept;

  // Reports one token and the text that it makes certain. Set: the answer ends with it.
  // Lets through what the listener throws.
  std::optional<FinishReason> add(const ops::SampledToken& token);
  // Reports the text that was held back, when no more tokens come.
  void flush();

  Listener& listener() const { return *listener_; }
  std::string stop_string() const;  // the one that was met, or nothing

 private:
  struct Text;
  void emit(const std::string& piece);

  RequestId id_;
  Listener* listener_;
  std::vector<int32_t> stop_tokens_;
  std::unique_ptr<Text> text_;  // null without a tokenizer
};

}  // namespace qnext::engine
