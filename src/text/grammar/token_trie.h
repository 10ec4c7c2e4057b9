// The tokens of a vocabulary by their bytes, as a tree laid out in the order in which it is walked.
//
// Of most tokens it is known beforehand what a string or a text makes of them: those of plain
// characters alone, which means nothing to JSON, tags or lines. The others, a seventh of a usual
// vocabulary, have a tree of their own.
#pragma once

#include <cstdint>
#include <vector>

#include "text/grammar/token_mask.h"
#include "text/tokenizer.h"

namespace qnext::grammar {

// Neither a control character nor one of " \ / <.
bool is_plain(char32_t c);

class TokenTrie {
 public:
  struct Node {
    int32_t token = -1;  // that ends here; -1: none. Others with the same bytes: see twins()
    int32_t end = 0;     // the first node that is not below this one
    uint16_t depth = 0;  // bytes from the root to here, at least 1
    uint8_t byte = 0;
  };
  struct Twin {
    int32_t token = 0;
    int32_t other = 0;  // the token with the same bytes that is in the tree
  };

  // All tokens that stand for bytes, but special ones: those end a text or belong to no answer.
  // Ids from `vocabulary` on are left out; it may be more than the tokenizer has.
  TokenTrie(const Tokenizer& tokenizer, int32_t vocabulary);

  // Node 0 is the root; a node's children come after it, in the order of their bytes.
  const std::vector<Node>& nodes() const { return nodes_; }
  // Bit t % 32 of word t / 32: token t is in the tree.
  const TokenMask& every_token() const { return every_token_; }
  // The tree of those tokens that are not plain characters alone, and for each node of it the one
  // of nodes() that it is.
  const std::vector<Node>& other_nodes() const { return other_nodes_; }
  const std::vector<int32_t>& other_places() const { return other_places_; }
  // Tokens of plain characters alone, those of fewest characters first.
  const std::vector<int32_t>& plain_tokens() const { return plain_tokens_; }
  // How many of them have at most so many characters.
  size_t plain_up_to(int32_t characters) const;
  // Their bits.
  const TokenMask& every_plain_token() const { return every_plain_token_; }
  const std::vector<Twin>& twins() const { return twins_; }
  int32_t longest() const { return longest_; }  // bytes of a token
  int32_t vocabulary() const { return vocabulary_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  const Tokenizer* tokenizer_;
  int32_t vocabulary_;
  int32_t longest_ = 0;
  void sort_plain_tokens();
  void make_other_nodes();

  std::vector<Node> nodes_;
  TokenMask every_token_;
  TokenMask every_plain_token_;
  std::vector<Node> other_nodes_;
  std::vector<int32_t> other_places_;
  std::vector<int32_t> plain_tokens_;
  std::vector<size_t> plain_counts_;  // by characters
  std::vector<Twin> twins_;
};

}  // namespace qnext::grammar
