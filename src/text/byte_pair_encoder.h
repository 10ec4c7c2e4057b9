// Byte-pair encoding of one word: starting from its bytes, the adjacent pair whose merge was learnt
// earliest (lowest rank, then leftmost) is replaced by its merged token until no pair has a merge
// (Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qnext {

class BytePairEncoder {
 public:
  // Working memory of one thread: buffers, and a cache of words lately merged, of fixed size.
  class Scratch {
   public:
    // Looked-up pairs since construction: the work of merging, for tests of its growth.
    uint64_t pairs_looked_up() const { return lookups_; }
    // Gives back the memory of very long words.
    void trim();

   private:
    friend class BytePairEncoder;
    // Words that come often without being one token. 64 bytes: one cache line.
    struct CachedWord {
      uint8_t length = 0;  // 0: empty
      uint8_t count = 0;
      char bytes[30] = {};
      int32_t ids[8] = {};
    };
    std::vector<CachedWord> cache_;
    std::vector<int32_t> ids_;
    std::vector<uint32_t> ranks_, next_, previous_;
    std::vector<uint64_t> heap_;
    uint64_t lookups_ = 0;
  };

  struct Merge {
    int32_t left, right, result;
  };

  // tokens[id]: the bytes of each token, all different; a token without bytes is never produced
  // and never found. merges: in the order of learning; a pair given again takes its last place.
  // With ignore_merges a word that is a token is taken whole even where merging would not give it.
  // Throws Error where one of the 256 single bytes is no token.
  BytePairEncoder(const std::vector<std::string>& tokens, const std::vector<Merge>& merges,
                  bool ignore_merges);

  // Appends the tokens of a word. Time O(n log n) in its bytes, O(n) for short ones.
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;

  // The token with exactly these bytes.
  std::optional<int32_t> find(std::string_view bytes) const;

 private:
  struct TokenSlot {
    uint32_t fingerprint = 0;
    int32_t id = -1;
  };
  struct MergeSlot {
    int32_t left = -1, right = -1;
    uint32_t rank = 0;
    int32_t result = 0;
  };
  static constexpr uint32_t no_merge = UINT32_MAX;

  std::string_view token(int32_t id) const {
    const auto i = static_cast<size_t>(id);
    return std::string_view(bytes_).substr(offsets_[i], offsets_[i + 1] - offsets_[i]);
  }
  int32_t find_hashed(std::string_view bytes, uint64_t hash) const;
  void build_tokens(const std::vector<std::string>& tokens);
  void build_merges(const std::vector<Merge>& merges);
  // The rank of the merge of two tokens, no_merge where there is none.
  uint32_t rank_of(int32_t left, int32_t right) const;
  // The same for the bytes at `place` and after it.
  uint32_t rank_of_bytes(std::string_view word, size_t place) const {
    return byte_pair_ranks_[size_t{static_cast<uint8_t>(word[place])} << 8 |
                            static_cast<uint8_t>(word[place + 1])];
  }
  void merge(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;
  void merge_short(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;
  void merge_long(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;

  std::string bytes_;  // of all tokens, one after the other
  std::vector<uint32_t> offsets_;
  std::vector<TokenSlot> token_slots_;  // open addressing, a power of two
  std::vector<MergeSlot> merge_slots_;
  std::vector<uint32_t> byte_pair_ranks_;  // by left byte << 8 | right byte
  std::vector<int32_t> results_;           // by rank
  std::vector<uint8_t> is_whole_;          // by id: encoding the token's bytes gives just the token
  int32_t byte_ids_[256];
};

}  // namespace qnext
