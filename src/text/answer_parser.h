// What a model of the family writes, told apart while it streams: reasoning, content, tool calls.
//
//   <think>\nreasoning\n</think>\n\ncontent\n<tool_call>\n...\n</tool_call>
//
// Reasoning stands at the start of an answer only; where the prompt ends inside "<think>", the
// answer begins inside it. A "<tool_call>" there, or a "<think>" later, is text like any other.
// A call is in one of the family's two forms (tool_call_reader.h); what stands between the tags and
// is neither stays content, letter for letter. Line ends at the edges of the parts belong to none.
//
// The parts do not depend on how the text was cut into pieces: parts of one kind that follow each
// other are one part.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tool_call_reader.h"

namespace qnext {

struct AnswerParserOptions {
  bool in_reasoning = false;           // the prompt ended inside "<think>"
  const ToolSchemas* tools = nullptr;  // null: calls are not looked for; must outlive the parser
};

class AnswerParser {
 public:
  explicit AnswerParser(const AnswerParserOptions& options);
  ~AnswerParser();
  AnswerParser(AnswerParser&&) noexcept;

  // What is certain now.
  std::vector<AnswerPart> push(std::string_view piece);
  // The text ends: what was held back. A call that is cut off stays cut off.
  std::vector<AnswerPart> finish();
  // Calls begun so far.
  int calls() const { return calls_; }

 private:
  enum class State { start, reasoning_start, reasoning, reasoning_end, content, call, call_end };

  bool advance(std::vector<AnswerPart>& parts);
  bool read_start();
  bool read_reasoning_start();
  bool read_reasoning(std::vector<AnswerPart>& parts);
  bool read_content(std::vector<AnswerPart>& parts);
  bool read_call(std::vector<AnswerPart>& parts);
  bool read_call_end();
  void begin_call();
  bool skip_blank(std::string_view blank);
  // Everything up to `end`, but blanks at its end, which wait for what follows.
  void emit(std::vector<AnswerPart>& parts, AnswerPart::Kind kind, size_t end,
            std::string_view blank);

  AnswerParserOptions options_;
  State state_;
  std::string text_;  // not yet told apart
  std::string held_;  // blanks between what was emitted and text_
  std::unique_ptr<ToolCallReader> reader_;
  int calls_ = 0;
};

// Whether an answer to this prompt begins inside "<think>".
bool prompt_opens_reasoning(std::string_view prompt);

// Adds to the last part where that is of the same kind, else begins another. Nothing for no text,
// but for a name, which begins a call.
void append_part(std::vector<AnswerPart>& parts, AnswerPart::Kind kind, int call,
                 std::string_view text);

}  // namespace qnext
