// The grammars of a server's answers, made once for each form that requests ask for.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/constraint.h"
#include "text/grammar/token_grammar.h"
#include "text/tokenizer.h"

namespace qnext::server {

// Safe to call from many threads; outlives the answers that it constrains.
class Grammars {
 public:
  // `vocabulary` of the model; `end_tokens` end its answers. The tokenizer must outlive this.
  Grammars(const Tokenizer& tokenizer, int32_t vocabulary, std::vector<int32_t> end_tokens);

  struct Made {
    std::shared_ptr<const grammar::Grammar> grammar;
    std::vector<std::string> notes;
  };
  struct Kept {
    std::shared_ptr<const engine::Constraint> constraint;
    std::vector<std::string> notes;
  };
  // The constraint known by `key`, or that of the grammar which `make` makes, with its dearest
  // masks made too. Lets through what `make` throws.
  Kept find(const std::string& key, const std::function<Made()>& make);

 private:
  using Entry = std::pair<std::string, Kept>;

  const grammar::TokenTrie& trie();

  const Tokenizer& tokenizer_;
  int32_t vocabulary_;
  std::vector<int32_t> end_tokens_;
  std::once_flag trie_made_;
  std::unique_ptr<const grammar::TokenTrie> trie_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // the one used last first
  std::unordered_map<std::string, std::list<Entry>::iterator> places_;
};

}  // namespace qnext::server
