#include "engine/answer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/detokenizer.h"
#include "text/stop_strings.h"

namespace qnext::engine {

// Tokens become characters, and characters pass the watch for stop strings.
struct Answer::Text {
  Text(const Tokenizer& tokenizer, const std::vector<std::string>& wanted)
      : detokenizer(tokenizer, true), watch(wanted), stop_strings(wanted) {}

  Detokenizer detokenizer;
  StopStrings watch;
  std::vector<std::string> stop_strings;
};

Answer::Answer(RequestId id, Listener& listener, const Tokenizer* tokenizer,
               std::vector<int32_t> stop_tokens, const std::vector<std::string>& stop_strings)
    : id_(id), listener_(&listener), stop_tokens_(std::move(stop_tokens)) {
  if (tokenizer)
    text_ = std::make_unique<Text>(*tokenizer, stop_strings);
  else if (!stop_strings.empty())
    fail("stop strings need a tokenizer, and this engine has none: use stop tokens");
}

Answer::~Answer() = default;
Answer::Answer(Answer&&) noexcept = default;

void Answer::emit(const std::string& piece) {
  if (!piece.empty()) listener_->on_text(id_, piece);
}

std::optional<FinishReason> Answer::add(const ops::SampledToken& token) {
  listener_->on_token(id_, token);
  if (std::ranges::find(stop_tokens_, token.token) != stop_tokens_.end())
    return FinishReason::stop_token;
  if (!text_) return std::nullopt;
  emit(text_->watch.push(text_->detokenizer.push(token.token)));
  if (!text_->watch.met()) return std::nullopt;
  return FinishReason::stop_string;
}

void Answer::flush() {
  if (!text_ || text_->watch.met()) return;
  // The last bytes may be no character: they become U+FFFD, which the watch sees too.
  const std::string certain = text_->watch.push(text_->detokenizer.finish());
  emit(certain + text_->watch.finish());
}

std::string Answer::stop_string() const {
  if (!text_ || !text_->watch.met()) return {};
  return text_->stop_strings[*text_->watch.met()];
}

}  // namespace qnext::engine
