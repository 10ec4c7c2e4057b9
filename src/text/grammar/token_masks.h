// Which tokens may come next, for every situation of a grammar.
//
// Most tokens are decided by the state on top of the stack alone: whether a word may stand inside a
// string does not depend on where the string is. So for each state of the grammar the tree of the
// vocabulary is walked once, as far as its own rule and those that it calls can read, which gives
// the tokens that may follow whatever stands below, and the places of the tree where the rule has
// ended inside a token. Only from those places the walk goes on for each situation, and nearly
// always stops at once. A situation's mask is made once, too.
//
// Inside strings and texts most of the vocabulary may follow. There the grammar says how many plain
// characters may (Grammar::Plain), and only tokens with others are walked.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "text/grammar/grammar_reader.h"
#include "text/grammar/token_mask.h"
#include "text/grammar/token_trie.h"

namespace qnext::grammar {

// For one thread at a time.
class TokenMasks {
 public:
  // `end_tokens` may come where the text may end. Trie and reader must outlive this.
  TokenMasks(const TokenTrie& trie, GrammarReader& reader, std::vector<int32_t> end_tokens);

  // Of a situation that is not dead; null where any token may come, as in free text. Throws Error
  // where no token may come, as can be in a vocabulary that lacks a token for some byte.
  std::shared_ptr<const TokenMask> mask(int32_t situation);

  // Finds the tokens of the states that read almost any byte, which takes milliseconds each: for a
  // thread that may wait, before one that may not asks for masks. At most so many of them.
  void prepare(size_t most);

  // Of a state's own tokens nothing depends on the reader's numbers: they stay.
  void clear() { masks_.clear(); }
  size_t bytes() const;  // of memory, for tests and measurements

 private:
  struct StateTokens {
    std::vector<int32_t> few;    // tokens, where they are few
    TokenMask many;              // otherwise
    std::vector<int32_t> exits;  // nodes of the tree with something below
  };

  const StateTokens& tokens_of(int32_t state);
  int32_t representative(int32_t state) const;
  template <typename Visit>
  void walk(const std::vector<TokenTrie::Node>& nodes, int32_t node, int32_t situation,
            Visit&& visit);
  void find_tokens(int32_t situation, StateTokens& tokens);
  void find_tokens(int32_t situation, const Grammar::Plain& plain, StateTokens& tokens);
  void add_plain(const Grammar::Plain& plain, TokenMask& mask) const;
  void add_twins(TokenMask& mask) const;
  bool allows_all(const TokenMask& mask) const;

  const TokenTrie& trie_;
  GrammarReader& reader_;
  std::vector<int32_t> end_tokens_;
  std::unordered_map<int32_t, StateTokens> states_;
  std::unordered_map<int32_t, std::shared_ptr<const TokenMask>> masks_;
  std::vector<int32_t> path_;  // situations by depth, while a tree is walked
};

}  // namespace qnext::grammar
