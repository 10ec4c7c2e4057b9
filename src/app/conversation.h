// What was said so far in a chat, and the prompt that it makes for the next answer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "text/chat_template.h"

namespace qnext::app {

// With the model's chat template; without one, a transcript: lines and answers one after another,
// which the model continues as it would any text.
class Conversation {
 public:
  // `chat_template` may be null and must outlive the conversation.
  explicit Conversation(const ModelChatTemplate* chat_template);

  void set_system(std::string text);  // empty: none
  void add_user(std::string text);
  void add_answer(std::string text);
  // Takes back the last answer; false where the last turn is not an answer.
  bool drop_answer();
  // Takes back the last turn of the user, where no answer followed.
  void drop_user();
  void clear();  // all turns; the system text stays

  // The text that the model continues with its answer. Throws Error where the template refuses.
  std::string prompt() const;
  bool empty() const { return turns_.empty(); }

 private:
  struct Turn {
    bool is_answer = false;
    std::string text;
  };
  std::string transcript() const;

  const ModelChatTemplate* chat_template_;
  std::string system_;
  std::vector<Turn> turns_;
};

}  // namespace qnext::app
