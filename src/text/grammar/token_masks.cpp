#include "text/grammar/token_masks.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/error.h"

namespace qnext::grammar {
namespace {

// As many masks of 19 KB (151,936 tokens) take 10 MB.
constexpr size_t most_masks = 512;
// A list of tokens is shorter than a mask up to there.
constexpr size_t most_listed = 1024;

// A state that reads so many goes on with most of the vocabulary.
constexpr int many_bytes = 64;

}  // namespace

TokenMasks::TokenMasks(const TokenTrie& trie, GrammarReader& reader,
                       std::vector<int32_t> end_tokens)
    : trie_(trie),
      reader_(reader),
      end_tokens_(std::move(end_tokens)),
      path_(static_cast<size_t>(trie.longest()) + 1) {}

int32_t TokenMasks::representative(int32_t state) const {
  const int32_t similar = reader_.grammar().states[static_cast<size_t>(state)].similar;
  return similar >= 0 && trie_.longest() <= similar_bytes ? similar : state;
}

// What lies below `node` and can be read from `situation` on: visit(i, next) takes node i, which is
// read to `next`, and returns where to go on, i + 1 or behind what is below it.
template <typename Visit>
void TokenMasks::walk(const std::vector<TokenTrie::Node>& nodes, int32_t node, int32_t situation,
                      Visit&& visit) {
  const auto base = static_cast<size_t>(nodes[static_cast<size_t>(node)].depth);
  path_[base] = situation;
  const int32_t end = nodes[static_cast<size_t>(node)].end;
  for (int32_t i = node + 1; i < end;) {
    const TokenTrie::Node& at = nodes[static_cast<size_t>(i)];
    const int32_t next = reader_.next(path_[at.depth - 1u], at.byte);
    if (next == GrammarReader::dead) {
      i = at.end;
      continue;
    }
    path_[at.depth] = next;
    i = visit(i, next);
  }
}

const TokenMasks::StateTokens& TokenMasks::tokens_of(int32_t state) {
  const auto [place, is_new] = states_.try_emplace(representative(state));
  StateTokens& tokens = place->second;
  if (!is_new) return tokens;
  const Grammar& grammar = reader_.grammar();
  const int32_t plain = grammar.states[static_cast<size_t>(place->first)].plain;
  const int32_t situation = reader_.start_local(place->first);
  if (plain >= 0 && trie_.longest() <= similar_bytes)
    find_tokens(situation, grammar.plains[static_cast<size_t>(plain)], tokens);
  else
    find_tokens(situation, tokens);
  return tokens;
}

void TokenMasks::find_tokens(int32_t situation, StateTokens& tokens) {
  const std::vector<TokenTrie::Node>& nodes = trie_.nodes();
  size_t count = 0;
  tokens.many.resize(trie_.every_token().size());
  walk(nodes, 0, situation, [&](int32_t i, int32_t next) {
    const TokenTrie::Node& at = nodes[static_cast<size_t>(i)];
    if (at.token >= 0) {
      set_bit(tokens.many, at.token);
      if (++count <= most_listed) tokens.few.push_back(at.token);
    }
    const bool has_children = at.end > i + 1;
    if (has_children && reader_.may_end(next)) tokens.exits.push_back(i);
    return reader_.must_end(next) ? at.end : i + 1;
  });
  if (count <= most_listed)
    tokens.many = {};
  else
    tokens.few = {};
  tokens.few.shrink_to_fit();
}

// The tokens of plain characters are known; those that begin with an exception are walked in the
// whole tree, of all others those that are not plain.
void TokenMasks::find_tokens(int32_t situation, const Grammar::Plain& plain, StateTokens& tokens) {
  add_plain(plain, tokens.many);
  const auto below = [&](const std::vector<TokenTrie::Node>& nodes, bool exceptions) {
    const bool is_whole = &nodes == &trie_.nodes();
    const auto visit = [&](int32_t i, int32_t next) {
      const TokenTrie::Node& at = nodes[static_cast<size_t>(i)];
      if (at.token >= 0) set_bit(tokens.many, at.token);
      const int32_t place = is_whole ? i : trie_.other_places()[static_cast<size_t>(i)];
      const bool has_children = trie_.nodes()[static_cast<size_t>(place)].end > place + 1;
      if (has_children && reader_.may_end(next)) tokens.exits.push_back(place);
      return reader_.must_end(next) ? at.end : i + 1;
    };
    for (int32_t first = 1; first < nodes[0].end; first = nodes[static_cast<size_t>(first)].end) {
      const uint8_t byte = nodes[static_cast<size_t>(first)].byte;
      if ((std::ranges::find(plain.except, byte) != plain.except.end()) != exceptions) continue;
      const int32_t next = reader_.next(situation, byte);
      if (next != GrammarReader::dead && visit(first, next) == first + 1)
        walk(nodes, first, next, visit);
    }
  };
  below(trie_.other_nodes(), false);
  if (!plain.except.empty()) below(trie_.nodes(), true);
}

void TokenMasks::add_plain(const Grammar::Plain& plain, TokenMask& mask) const {
  const std::span<const int32_t> known(trie_.plain_tokens());
  const size_t count = trie_.plain_up_to(plain.most);
  if (2 * count > known.size()) {
    mask = trie_.every_plain_token();
    for (const int32_t token : known.subspan(count)) clear_bit(mask, token);
  } else {
    mask.resize(trie_.every_token().size());
    for (const int32_t token : known.first(count)) set_bit(mask, token);
  }
  const std::vector<TokenTrie::Node>& nodes = trie_.nodes();
  for (int32_t first = 1; first < nodes[0].end && !plain.except.empty();) {
    const TokenTrie::Node& top = nodes[static_cast<size_t>(first)];
    if (std::ranges::find(plain.except, top.byte) != plain.except.end())
      for (int32_t i = first; i < top.end; ++i)
        if (const int32_t token = nodes[static_cast<size_t>(i)].token; token >= 0)
          clear_bit(mask, token);
    first = top.end;
  }
}

bool TokenMasks::allows_all(const TokenMask& mask) const {
  return std::equal(mask.begin(), mask.end(), trie_.every_token().begin(),
                    [](uint32_t allowed, uint32_t every) { return (every & ~allowed) == 0; });
}

void TokenMasks::prepare(size_t most) {
  const std::vector<Grammar::State>& states = reader_.grammar().states;
  for (size_t i = 0; i < states.size() && most > 0; ++i) {
    int bytes = 0;
    for (const Grammar::ByteEdge& edge : states[i].bytes) bytes += edge.last - edge.first + 1;
    if (bytes < many_bytes || states_.contains(representative(static_cast<int32_t>(i)))) continue;
    tokens_of(static_cast<int32_t>(i));
    --most;
  }
}

void TokenMasks::add_twins(TokenMask& mask) const {
  for (const TokenTrie::Twin& twin : trie_.twins())
    if (has_bit(mask, twin.other)) set_bit(mask, twin.token);
}

std::shared_ptr<const TokenMask> TokenMasks::mask(int32_t situation) {
  if (const auto known = masks_.find(situation); known != masks_.end()) return known->second;
  auto made = std::make_shared<TokenMask>((static_cast<size_t>(trie_.vocabulary()) + 31) / 32);
  TokenMask& mask = *made;
  // The reader may learn of situations, and move its own, on the way.
  const std::span<const GrammarReader::Way> all = reader_.ways(situation);
  const std::vector<GrammarReader::Way> ways(all.begin(), all.end());
  for (const GrammarReader::Way& way : ways) {
    if (way.state == GrammarReader::ended) {
      for (const int32_t token : end_tokens_)
        if (token < trie_.vocabulary()) set_bit(mask, token);
      continue;
    }
    const StateTokens& tokens = tokens_of(way.state);
    for (const int32_t token : tokens.few) set_bit(mask, token);
    for (size_t i = 0; i < tokens.many.size(); ++i) mask[i] |= tokens.many[i];
    if (tokens.exits.empty()) continue;
    const int32_t after = reader_.after(way.frame);
    if (after == GrammarReader::dead || reader_.must_end(after)) continue;
    for (const int32_t node : tokens.exits)
      walk(trie_.nodes(), node, after, [&](int32_t i, int32_t) {
        const int32_t token = trie_.nodes()[static_cast<size_t>(i)].token;
        if (token >= 0) set_bit(mask, token);
        return i + 1;
      });
  }
  add_twins(mask);
  if (std::all_of(mask.begin(), mask.end(), [](uint32_t word) { return word == 0; }))
    fail("no token of this vocabulary can go on as the grammar asks");
  // Of tokens that hold a whole tag and more there may be some that must not come even there.
  if (reader_.is_free(situation) && allows_all(mask)) made = nullptr;
  if (masks_.size() >= most_masks) masks_.clear();
  masks_.emplace(situation, made);
  return made;
}

size_t TokenMasks::bytes() const {
  size_t total = masks_.size() * ((static_cast<size_t>(trie_.vocabulary()) + 31) / 32) * 4;
  for (const auto& [state, tokens] : states_)
    total += tokens.few.capacity() * 4 + tokens.many.size() * 4 + tokens.exits.capacity() * 4;
  return total;
}

}  // namespace qnext::grammar
