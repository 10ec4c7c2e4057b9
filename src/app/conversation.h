// What was said so far in a chat, and the prompt that it makes for the next answer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "text/chat_template.h"

namespace qnext::app {

// With the model's chat template; without one, a transcript (text/chat_template.h).
class Conversation {
 public:
  explicit Conversation(std::optional<ModelChatTemplate> chat_template);

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
  bool is_transcript() const { return is_transcript_; }
  bool empty() const { return turns_.empty(); }

 private:
  struct Turn {
    bool is_answer = false;
    std::string text;
  };

  bool is_transcript_;
  ModelChatTemplate chat_template_;
  std::string system_;
  std::vector<Turn> turns_;
};

}  // namespace qnext::app
