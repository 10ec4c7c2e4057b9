// The tokens of a vocabulary by their bytes, as a tree laid out in the order in which it is walked.
#pragma once

#include <cstdint>
#include <vector>

#include "text/tokenizer.h"

namespace qnext::grammar {

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
  const std::vector<Twin>& twins() const { return twins_; }
  int32_t longest() const { return longest_; }  // bytes of a token
  int32_t vocabulary() const { return vocabulary_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  const Tokenizer* tokenizer_;
  int32_t vocabulary_;
  int32_t longest_ = 0;
  std::vector<Node> nodes_;
  std::vector<Twin> twins_;
};

}  // namespace qnext::grammar
