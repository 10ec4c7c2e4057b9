#include "text/byte_pair_encoder.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

#include "base/error.h"
#include "text/byte_level.h"

namespace qnext {

namespace {

// Below this many bytes scanning all ranks for each merge beats keeping a heap.
constexpr size_t short_word = 48;
// 4,096 words of 64 bytes: 256 KiB, within the second-level cache.
constexpr size_t cache_words = 4096;

__extension__ using Product = unsigned __int128;

uint64_t mix(uint64_t a, uint64_t b) {
  const Product product = static_cast<Product>(a ^ 0x9E3779B97F4A7C15u) * (b ^ 0xD6E8FEB86659FD93u);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t load(const char* at, size_t bytes) {
  uint64_t word = 0;
  std::memcpy(&word, at, bytes);
  return word;
}

uint64_t hash_bytes(std::string_view bytes) {
  const char* at = bytes.data();
  const size_t size = bytes.size();
  if (size < 4) {
    uint64_t word = size;
    for (char byte : bytes) word = word << 8 | static_cast<uint8_t>(byte);
    return mix(word, size);
  }
  if (size <= 8) return mix(load(at, 4), load(at + size - 4, 4) << 8 ^ size);
  if (size <= 16) return mix(load(at, 8), load(at + size - 8, 8) ^ size);
  uint64_t hash = size;
  for (size_t i = 0; i + 16 < size; i += 16)
    hash = mix(load(at + i, 8) ^ hash, load(at + i + 8, 8));
  return mix(load(at + size - 16, 8) ^ hash, load(at + size - 8, 8));
}

// Slots for `count` entries, at most half of them taken.
size_t table_size(size_t count) {
  return std::bit_ceil(count * 2 + 2);
}

}  // namespace

BytePairEncoder::BytePairEncoder(const std::vector<std::string>& tokens,
                                 const std::vector<Merge>& merges, bool ignore_merges) {
  build_tokens(tokens);
  build_merges(merges);
  for (int byte = 0; byte < 256; ++byte) {
    const auto character = static_cast<char>(static_cast<uint8_t>(byte));
    const std::optional<int32_t> id = find({&character, 1});
    if (!id)
      fail("the vocabulary has no token for byte 0x{:02X}, which it would write as \"{}\"", byte,
           to_byte_level(static_cast<uint8_t>(byte)));
    byte_ids_[byte] = *id;
  }
  byte_pair_ranks_.resize(256 * 256);
  for (size_t left = 0; left < 256; ++left)
    for (size_t right = 0; right < 256; ++right)
      byte_pair_ranks_[left << 8 | right] = rank_of(byte_ids_[left], byte_ids_[right]);
  is_whole_.assign(tokens.size(), ignore_merges);
  if (ignore_merges) return;
  Scratch scratch;
  std::vector<int32_t> ids;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].empty()) continue;
    ids.clear();
    merge(tokens[i], scratch, ids);
    is_whole_[i] = ids.size() == 1 && ids[0] == static_cast<int32_t>(i);
  }
}

void BytePairEncoder::Scratch::trim() {
  constexpr size_t kept_bytes = size_t{1} << 16;  // of a word: some 2 MiB of buffers
  if (ids_.capacity() <= kept_bytes) return;
  ids_ = {};
  ranks_ = {};
  next_ = {};
  previous_ = {};
  heap_ = {};
}

void BytePairEncoder::build_tokens(const std::vector<std::string>& tokens) {
  token_slots_.resize(table_size(tokens.size()));
  const size_t mask = token_slots_.size() - 1;
  offsets_.push_back(0);
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (bytes_.size() + tokens[i].size() > UINT32_MAX)
      fail("the tokens of the vocabulary take more than 4 GiB");
    bytes_ += tokens[i];
    offsets_.push_back(static_cast<uint32_t>(bytes_.size()));
    if (tokens[i].empty()) continue;
    const uint64_t hash = hash_bytes(tokens[i]);
    size_t slot = hash & mask;
    while (token_slots_[slot].id >= 0) slot = (slot + 1) & mask;
    token_slots_[slot] = {static_cast<uint32_t>(hash >> 32), static_cast<int32_t>(i)};
  }
}

void BytePairEncoder::build_merges(const std::vector<Merge>& merges) {
  merge_slots_.resize(table_size(merges.size()));
  const size_t mask = merge_slots_.size() - 1;
  for (const Merge& merge : merges) {
    size_t slot = mix(static_cast<uint32_t>(merge.left), static_cast<uint32_t>(merge.right)) & mask;
    while (merge_slots_[slot].left >= 0 &&
           (merge_slots_[slot].left != merge.left || merge_slots_[slot].right != merge.right))
      slot = (slot + 1) & mask;
    merge_slots_[slot] = {merge.left, merge.right, static_cast<uint32_t>(results_.size()),
                          merge.result};
    results_.push_back(merge.result);
  }
}

int32_t BytePairEncoder::find_hashed(std::string_view bytes, uint64_t hash) const {
  const size_t mask = token_slots_.size() - 1;
  for (size_t slot = hash & mask;; slot = (slot + 1) & mask) {
    const TokenSlot& candidate = token_slots_[slot];
    if (candidate.id < 0) return -1;
    if (candidate.fingerprint == static_cast<uint32_t>(hash >> 32) && token(candidate.id) == bytes)
      return candidate.id;
  }
}

std::optional<int32_t> BytePairEncoder::find(std::string_view bytes) const {
  if (bytes.empty()) return std::nullopt;
  const int32_t id = find_hashed(bytes, hash_bytes(bytes));
  if (id < 0) return std::nullopt;
  return id;
}

uint32_t BytePairEncoder::rank_of(int32_t left, int32_t right) const {
  const size_t mask = merge_slots_.size() - 1;
  size_t slot = mix(static_cast<uint32_t>(left), static_cast<uint32_t>(right)) & mask;
  for (;; slot = (slot + 1) & mask) {
    const MergeSlot& candidate = merge_slots_[slot];
    if (candidate.left == left && candidate.right == right) return candidate.rank;
    if (candidate.left < 0) return no_merge;
  }
}

void BytePairEncoder::encode(std::string_view word, Scratch& scratch,
                             std::vector<int32_t>& out) const {
  if (word.empty()) return;
  const uint64_t hash = hash_bytes(word);
  // Most words of ordinary text are tokens.
  const int32_t id = find_hashed(word, hash);
  if (id >= 0 && is_whole_[static_cast<size_t>(id)]) {
    out.push_back(id);
    return;
  }
  if (word.size() > sizeof(Scratch::CachedWord::bytes)) return merge(word, scratch, out);
  if (scratch.cache_.empty()) scratch.cache_.resize(cache_words);
  Scratch::CachedWord& cached = scratch.cache_[hash >> 40 & (cache_words - 1)];
  if (std::string_view(cached.bytes, cached.length) == word) {
    out.insert(out.end(), cached.ids, cached.ids + cached.count);
    return;
  }
  const size_t start = out.size();
  merge(word, scratch, out);
  const size_t count = out.size() - start;
  if (count > std::size(cached.ids)) return;
  cached.length = static_cast<uint8_t>(word.size());
  cached.count = static_cast<uint8_t>(count);
  std::copy(word.begin(), word.end(), cached.bytes);
  std::copy(out.end() - static_cast<ptrdiff_t>(count), out.end(), cached.ids);
}

void BytePairEncoder::merge(std::string_view word, Scratch& scratch,
                            std::vector<int32_t>& out) const {
  word.size() <= short_word ? merge_short(word, scratch, out) : merge_long(word, scratch, out);
}

void BytePairEncoder::merge_short(std::string_view word, Scratch& scratch,
                                  std::vector<int32_t>& out) const {
  int32_t ids[short_word];
  uint32_t ranks[short_word];  // of the pair (i, i + 1)
  size_t size = word.size();
  for (size_t i = 0; i < size; ++i) ids[i] = byte_ids_[static_cast<uint8_t>(word[i])];
  for (size_t i = 0; i + 1 < size; ++i) ranks[i] = rank_of_bytes(word, i);
  scratch.lookups_ += size - 1;
  while (size > 1) {
    const size_t best = static_cast<size_t>(std::min_element(ranks, ranks + size - 1) - ranks);
    if (ranks[best] == no_merge) break;
    ids[best] = results_[ranks[best]];
    std::copy(ids + best + 2, ids + size, ids + best + 1);
    std::copy(ranks + best + 1, ranks + size - 1, ranks + best);
    --size;
    if (best + 1 < size) ranks[best] = rank_of(ids[best], ids[best + 1]);
    if (best > 0) ranks[best - 1] = rank_of(ids[best - 1], ids[best]);
    scratch.lookups_ += 2;
  }
  out.insert(out.end(), ids, ids + size);
}

// A linked list of tokens and a heap of pairs by (rank, place). An entry of the heap is stale once
// the pair at its place has another rank: pairs at a place only grow, so a rank never comes back.
void BytePairEncoder::merge_long(std::string_view word, Scratch& scratch,
                                 std::vector<int32_t>& out) const {
  const size_t size = word.size();
  if (size >= UINT32_MAX) fail("a word of {} bytes is too long to encode; split the text", size);
  const auto end = static_cast<uint32_t>(size);
  std::vector<int32_t>& ids = scratch.ids_;
  std::vector<uint32_t>& ranks = scratch.ranks_;
  std::vector<uint32_t>& next = scratch.next_;
  std::vector<uint32_t>& previous = scratch.previous_;
  std::vector<uint64_t>& heap = scratch.heap_;
  ids.resize(size);
  ranks.assign(size, no_merge);
  next.resize(size);
  previous.resize(size);
  heap.clear();
  for (uint32_t i = 0; i < end; ++i) {
    ids[i] = byte_ids_[static_cast<uint8_t>(word[i])];
    next[i] = i + 1;
    previous[i] = i - 1;
  }
  const auto rank_pair = [&](uint32_t place) {
    ranks[place] = next[place] == end ? no_merge : rank_of(ids[place], ids[next[place]]);
    ++scratch.lookups_;
    return ranks[place] != no_merge;
  };
  const auto entry = [&](uint32_t place) { return uint64_t{ranks[place]} << 32 | place; };
  for (uint32_t i = 0; i + 1 < end; ++i) {
    ranks[i] = rank_of_bytes(word, i);
    if (ranks[i] != no_merge) heap.push_back(entry(i));
  }
  scratch.lookups_ += size - 1;
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto rank_and_push = [&](uint32_t place) {
    if (!rank_pair(place)) return;
    heap.push_back(entry(place));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const auto place = static_cast<uint32_t>(heap.back());
    const auto rank = static_cast<uint32_t>(heap.back() >> 32);
    heap.pop_back();
    if (ranks[place] != rank) continue;
    ids[place] = results_[rank];
    const uint32_t gone = next[place];
    ranks[gone] = no_merge;
    next[place] = next[gone];
    if (next[place] != end) previous[next[place]] = place;
    rank_and_push(place);
    if (place > 0) rank_and_push(previous[place]);
  }
  for (uint32_t i = 0; i < end; i = next[i]) out.push_back(ids[i]);
}

}  // namespace qnext
