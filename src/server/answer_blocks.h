// An answer as a list of blocks, for protocols that tell it so: a run of reasoning, a run of
// content, a tool call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "server/answer_feed.h"
#include "text/answer_parser.h"
#include "text/tokenizer.h"

namespace qnext::server {

struct AnswerBlock {
  enum class Kind { reasoning, content, call };
  Kind kind = Kind::content;
  std::string name;  // of the function that is called
  std::string text;  // so far; of a call its arguments, JSON unless it was cut off
};

struct BlockChange {
  enum class What { begins, grows, ends };
  What what = What::grows;
  size_t block = 0;       // its number
  std::string text = {};  // by which it grows
};

class AnswerBlocks {
 public:
  // `in_reasoning`: the prompt ended inside "<think>"; without tools no calls are looked for.
  AnswerBlocks(bool in_reasoning, const json::Array& tools);
  AnswerBlocks(const AnswerBlocks&) = delete;
  AnswerBlocks& operator=(const AnswerBlocks&) = delete;

  // What this news changes, in order: a block ends before the next begins, and the last one ends
  // with the answer.
  std::vector<BlockChange> add(const AnswerNews& news);
  const std::vector<AnswerBlock>& all() const { return blocks_; }
  int calls() const { return parser_.calls(); }
  // That the reasoning makes when it is tokenised; the model may have written it in others.
  int64_t reasoning_tokens(const Tokenizer& tokenizer) const;

 private:
  void begin(AnswerBlock block, std::vector<BlockChange>& changes);
  void end(std::vector<BlockChange>& changes);
  void add(const AnswerPart& part, std::vector<BlockChange>& changes);

  ToolSchemas schemas_;
  AnswerParser parser_;
  std::vector<AnswerBlock> blocks_;
  bool open_ = false;  // the last block has not ended
};

}  // namespace qnext::server
