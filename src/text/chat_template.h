// A model's chat template: the Jinja program that turns messages into the text of a prompt.
//
// It renders as Python's jinja2 does with transformers' settings: trim_blocks, lstrip_blocks,
// break and continue, the immutable sandbox, tojson = json.dumps(ensure_ascii=False), the functions
// raise_exception and strftime_now, and {% generation %} blocks, which leave no trace.
// Integers have 64 bits; a result outside them is an Error, where Python would go on.
// Not supported: include, import, extends, block, autoescape; the filters pprint, random, urlize.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>

#include "base/json.h"

namespace qnext {

class ChatTemplate {
 public:
  // Parses once. Throws Error("chat template, line N: ...").
  explicit ChatTemplate(std::string source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // The variables are what templates expect: messages, tools, add_generation_prompt, bos_token, ...
  // Throws Error with the line for what the template raises and for a template that runs away: the
  // time, memory, depth and output of a rendering are bounded. Safe to call from many threads.
  std::string render(const json::Object& variables) const;
  // The same with a fixed clock for strftime_now.
  std::string render(const json::Object& variables, std::optional<std::time_t> now) const;

  const std::string& source() const;

 private:
  struct Program;
  std::unique_ptr<const Program> program_;
};

// The templates of one model and the special tokens that they may name.
class ModelChatTemplate {
 public:
  // chat_template.jinja, else chat_template of tokenizer_config.json (one template, or a list of
  // named ones: "default", and "tool_use" for requests with tools). nullopt where the model has
  // none. Throws Error where a file is there and cannot be read.
  static std::optional<ModelChatTemplate> load(const std::string& folder);
  // `tokens`: special tokens by the names that templates know them by. Without `with_tools` the
  // standard template serves requests with tools too.
  ModelChatTemplate(ChatTemplate standard, std::optional<ChatTemplate> with_tools,
                    json::Object tokens);

  const ChatTemplate& standard() const { return standard_; }
  const ChatTemplate* with_tools() const {
    return with_tools_ ? &*with_tools_ : nullptr;
  }  // or null

  // Adds the special tokens (bos_token, eos_token, ...) that `variables` does not set itself.
  std::string render(const json::Object& variables) const;

 private:
  ChatTemplate standard_;
  std::optional<ChatTemplate> with_tools_;
  json::Object tokens_;  // name -> text
};

// For models without one: a transcript, which the model continues as it would any text. What others
// than the assistant say stands on lines of its own.
ModelChatTemplate transcript_template();

}  // namespace qnext
