#include "text/grammar/token_grammar.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace qnext::grammar {
namespace {

// A situation takes about a kilobyte.
constexpr size_t most_prepared = 16;
constexpr size_t usual_situations = 50'000;

}  // namespace

TokenGrammar::TokenGrammar(std::shared_ptr<const Grammar> grammar, const TokenTrie& trie,
                           std::vector<int32_t> end_tokens)
    : trie_(trie),
      end_tokens_(std::move(end_tokens)),
      reader_(std::move(grammar)),
      masks_(trie, reader_, end_tokens_),
      most_situations_(usual_situations) {}

void TokenGrammar::prepare() {
  const std::lock_guard lock(mutex_);
  masks_.prepare(most_prepared);
}

size_t TokenGrammar::mask_bytes() const {
  const std::lock_guard lock(mutex_);
  return masks_.bytes();
}

size_t TokenGrammar::situations() const {
  const std::lock_guard lock(mutex_);
  return reader_.situations();
}

TokenGrammarReader::TokenGrammarReader(std::shared_ptr<TokenGrammar> grammar)
    : grammar_(std::move(grammar)) {
  const std::lock_guard lock(grammar_->mutex_);
  generation_ = grammar_->generation_;
  situation_ = grammar_->reader_.start();
}

// Texts of any depth make ever more situations: once they are too many, all are forgotten, and each
// reader finds its place again by what it has read.
void TokenGrammarReader::catch_up() {
  TokenGrammar& grammar = *grammar_;
  if (grammar.reader_.situations() > grammar.most_situations_) {
    grammar.reader_.clear();
    grammar.masks_.clear();
    ++grammar.generation_;
    grammar.most_situations_ = usual_situations;
  }
  if (generation_ == grammar.generation_) return;
  generation_ = grammar.generation_;
  situation_ = grammar.reader_.start();
  for (const char byte : read_)
    situation_ = grammar.reader_.next(situation_, static_cast<uint8_t>(byte));
  // Of a text that needs as many by itself, forgetting would not help.
  grammar.most_situations_ = std::max(grammar.most_situations_, 2 * grammar.reader_.situations());
}

int32_t TokenGrammarReader::next(int32_t situation, int32_t token) {
  const TokenGrammar& grammar = *grammar_;
  if (std::find(grammar.end_tokens_.begin(), grammar.end_tokens_.end(), token) !=
      grammar.end_tokens_.end())
    return GrammarReader::dead;
  const Tokenizer& tokenizer = grammar.trie_.tokenizer();
  const bool has_text = token < tokenizer.vocabulary_size() && !tokenizer.is_special(token);
  const std::string_view bytes = has_text ? tokenizer.token_bytes(token) : std::string_view();
  // Where anything goes, a token without text changes nothing.
  if (bytes.empty()) return grammar_->reader_.is_free(situation) ? situation : GrammarReader::dead;
  for (const char byte : bytes)
    situation = grammar_->reader_.next(situation, static_cast<uint8_t>(byte));
  return situation;
}

std::vector<std::shared_ptr<const TokenMask>> TokenGrammarReader::masks(
    std::span<const int32_t> drafts) {
  const std::lock_guard lock(grammar_->mutex_);
  catch_up();
  std::vector<std::shared_ptr<const TokenMask>> result(drafts.size() + 1);
  int32_t at = situation_;
  for (size_t i = 0; at != GrammarReader::dead; ++i) {
    result[i] = grammar_->masks_.mask(at);
    if (i == drafts.size()) break;
    at = next(at, drafts[i]);
  }
  return result;
}

void TokenGrammarReader::accept(int32_t token) {
  const std::lock_guard lock(grammar_->mutex_);
  catch_up();
  const bool ends = std::find(grammar_->end_tokens_.begin(), grammar_->end_tokens_.end(), token) !=
                    grammar_->end_tokens_.end();
  if (ends) {
    const bool may_end =
        grammar_->reader_.may_end(situation_) || grammar_->reader_.is_free(situation_);
    if (!may_end) fail("token {} ended an answer that the grammar does not let end there", token);
    return;
  }
  const int32_t after = next(situation_, token);
  if (after == GrammarReader::dead) fail("token {} is not what the grammar allows", token);
  situation_ = after;
  if (!grammar_->trie_.tokenizer().is_special(token))
    read_ += grammar_->trie_.tokenizer().token_bytes(token);
}

bool TokenGrammarReader::may_end() {
  const std::lock_guard lock(grammar_->mutex_);
  catch_up();
  return grammar_->reader_.may_end(situation_);
}

bool TokenGrammarReader::must_end() {
  const std::lock_guard lock(grammar_->mutex_);
  catch_up();
  return grammar_->reader_.must_end(situation_);
}

}  // namespace qnext::grammar
