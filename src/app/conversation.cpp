#include "app/conversation.h"

#include <utility>

#include "base/json.h"

namespace qnext::app {

Conversation::Conversation(std::optional<ModelChatTemplate> chat_template)
    : is_transcript_(!chat_template),
      chat_template_(chat_template ? std::move(*chat_template) : transcript_template()) {}

void Conversation::set_system(std::string text) {
  system_ = std::move(text);
}

void Conversation::add_user(std::string text) {
  turns_.push_back({false, std::move(text)});
}

void Conversation::add_answer(std::string text) {
  turns_.push_back({true, std::move(text)});
}

bool Conversation::drop_answer() {
  if (turns_.empty() || !turns_.back().is_answer) return false;
  turns_.pop_back();
  return true;
}

void Conversation::drop_user() {
  if (!turns_.empty() && !turns_.back().is_answer) turns_.pop_back();
}

void Conversation::clear() {
  turns_.clear();
}

std::string Conversation::prompt() const {
  json::Array messages;
  if (!system_.empty())
    messages.emplace_back(json::Object{{"role", "system"}, {"content", system_}});
  for (const Turn& turn : turns_) {
    messages.emplace_back(
        json::Object{{"role", turn.is_answer ? "assistant" : "user"}, {"content", turn.text}});
  }
  return chat_template_.render(
      json::Object{{"messages", std::move(messages)}, {"add_generation_prompt", true}});
}

}  // namespace qnext::app
