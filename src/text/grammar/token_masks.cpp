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

void set_bit(TokenMask& mask, int32_t token) {
  mask[static_cast<size_t>(token) / 32] |= uint32_t{1} << (token % 32);
}

bool has_bit(const TokenMask& mask, int32_t token) {
  return (mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1) != 0;
}

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
void TokenMasks::walk(int32_t node, int32_t situation, Visit&& visit) {
  const std::vector<TokenTrie::Node>& nodes = trie_.nodes();
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
  const std::vector<TokenTrie::Node>& nodes = trie_.nodes();
  size_t count = 0;
  tokens.many.resize((static_cast<size_t>(trie_.vocabulary()) + 31) / 32);
  walk(0, reader_.start_local(place->first), [&](int32_t i, int32_t next) {
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
  return tokens;
}

bool TokenMasks::allows_all(const TokenMask& mask) const {
  return std::all_of(trie_.nodes().begin(), trie_.nodes().end(), [&](const TokenTrie::Node& node) {
    return node.token < 0 || has_bit(mask, node.token);
  });
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
      walk(node, after, [&](int32_t i, int32_t) {
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
