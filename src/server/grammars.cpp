#include "server/grammars.h"

#include "base/error.h"
#include "engine/grammar_constraint.h"

namespace qnext::server {
namespace {

// Of each some megabytes of masks; answers under way keep theirs.
constexpr size_t most_kept = 64;

}  // namespace

Grammars::Grammars(const Tokenizer& tokenizer, int32_t vocabulary, std::vector<int32_t> end_tokens)
    : tokenizer_(tokenizer), vocabulary_(vocabulary), end_tokens_(std::move(end_tokens)) {}

const grammar::TokenTrie& Grammars::trie() {
  std::call_once(trie_made_, [this] {
    trie_ = std::make_unique<const grammar::TokenTrie>(tokenizer_, vocabulary_);
  });
  return *trie_;
}

Grammars::Kept Grammars::find(const std::string& key, const std::function<Made()>& make) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto place = places_.find(key); place != places_.end()) {
      entries_.splice(entries_.begin(), entries_, place->second);
      return place->second->second;
    }
  }
  if (end_tokens_.empty())
    fail("this model has no token that ends an answer: no answer can be held to a form");
  Made made = make();
  auto tokens =
      std::make_shared<grammar::TokenGrammar>(std::move(made.grammar), trie(), end_tokens_);
  tokens->prepare();
  Kept kept{engine::grammar_constraint(std::move(tokens)), std::move(made.notes)};
  const std::lock_guard lock(mutex_);
  if (places_.contains(key)) return kept;  // another thread was faster
  entries_.emplace_front(key, kept);
  places_[key] = entries_.begin();
  if (entries_.size() > most_kept) {
    places_.erase(entries_.back().first);
    entries_.pop_back();
  }
  return kept;
}

}  // namespace qnext::server
