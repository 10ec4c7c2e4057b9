#include "server/answer_blocks.h"

#include <utility>

namespace qnext::server {

AnswerBlocks::AnswerBlocks(bool in_reasoning, const json::Array& tools)
    : schemas_(tools),
      parser_({.in_reasoning = in_reasoning, .tools = tools.empty() ? nullptr : &schemas_}) {}

void AnswerBlocks::begin(AnswerBlock block, std::vector<BlockChange>& changes) {
  end(changes);
  changes.push_back({.what = BlockChange::What::begins, .block = blocks_.size()});
  blocks_.push_back(std::move(block));
  open_ = true;
}

void AnswerBlocks::end(std::vector<BlockChange>& changes) {
  if (std::exchange(open_, false))
    changes.push_back({.what = BlockChange::What::ends, .block = blocks_.size() - 1});
}

void AnswerBlocks::add(const AnswerPart& part, std::vector<BlockChange>& changes) {
  using Kind = AnswerBlock::Kind;
  if (part.kind == AnswerPart::Kind::call_name)
    return begin({.kind = Kind::call, .name = part.text, .text = {}}, changes);
  if (part.kind != AnswerPart::Kind::call_arguments) {
    const Kind kind = part.kind == AnswerPart::Kind::reasoning ? Kind::reasoning : Kind::content;
    if (!open_ || blocks_.back().kind != kind)
      begin({.kind = kind, .name = {}, .text = {}}, changes);
  }
  blocks_.back().text += part.text;
  changes.push_back({.block = blocks_.size() - 1, .text = part.text});
}

std::vector<BlockChange> AnswerBlocks::add(const AnswerNews& news) {
  std::vector<BlockChange> changes;
  for (const AnswerPart& part : parser_.push(news.text)) add(part, changes);
  if (!news.finish) return changes;
  for (const AnswerPart& part : parser_.finish()) add(part, changes);
  end(changes);
  return changes;
}

int64_t AnswerBlocks::reasoning_tokens(const Tokenizer& tokenizer) const {
  int64_t tokens = 0;
  for (const AnswerBlock& block : blocks_)
    if (block.kind == AnswerBlock::Kind::reasoning)
      tokens += std::ssize(tokenizer.encode(block.text, false));
  return tokens;
}

}  // namespace qnext::server
