// A grammar over the tokens of a vocabulary, and readers of it: which tokens an answer may go on
// with.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "text/grammar/grammar.h"
#include "text/grammar/grammar_reader.h"
#include "text/grammar/token_masks.h"
#include "text/grammar/token_trie.h"

namespace qnext::grammar {

// What has been found out of a grammar is kept for all its readers, which may be on any threads.
class TokenGrammar {
 public:
  // `end_tokens` end an answer where the grammar allows its end. The trie must outlive this.
  TokenGrammar(std::shared_ptr<const Grammar> grammar, const TokenTrie& trie,
               std::vector<int32_t> end_tokens);

  // TokenMasks::prepare().
  void prepare();

  size_t mask_bytes() const;
  size_t situations() const;

 private:
  friend class TokenGrammarReader;

  mutable std::mutex mutex_;
  const TokenTrie& trie_;
  std::vector<int32_t> end_tokens_;
  GrammarReader reader_;
  TokenMasks masks_;
  uint32_t generation_ = 0;  // raised when all that was found is forgotten
  size_t most_situations_;   // at which it is
};

// One answer's place in the grammar. For one thread at a time.
class TokenGrammarReader {
 public:
  explicit TokenGrammarReader(std::shared_ptr<TokenGrammar> grammar);

  // Of the next token, and of the one behind each of `drafts`: [drafts + 1]. Null: any token may
  // come. Behind a draft that may not come the masks are null: it will be rejected.
  std::vector<std::shared_ptr<const TokenMask>> masks(std::span<const int32_t> drafts);
  // The answer has gone on with this token. Throws Error where it may not.
  void accept(int32_t token);
  // The answer may end here.
  bool may_end();
  // The answer has ended: nothing else may come.
  bool must_end();

 private:
  // GrammarReader::dead: it may not come.
  int32_t next(int32_t situation, int32_t token);
  void catch_up();

  std::shared_ptr<TokenGrammar> grammar_;
  std::string read_;  // so far, for when the numbers of situations change
  uint32_t generation_ = 0;
  int32_t situation_ = GrammarReader::dead;
};

}  // namespace qnext::grammar
