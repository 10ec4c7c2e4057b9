#include "text/byte_pair_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/error.h"

namespace qnext {
namespace {

using testing::ElementsAre;
using Merge = BytePairEncoder::Merge;

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<Merge> merges;
};

Vocabulary bytes_only() {
  Vocabulary vocabulary;
  for (int byte = 0; byte < 256; ++byte)
    vocabulary.tokens.emplace_back(1, static_cast<char>(static_cast<uint8_t>(byte)));
  return vocabulary;
}

// Merges of random pairs of what is there already, over the bytes a, b and c.
Vocabulary random_vocabulary(std::mt19937_64& random, size_t merges) {
  Vocabulary vocabulary = bytes_only();
  std::vector<int32_t> usable{'a', 'b', 'c'};
  for (size_t i = 0; i < merges; ++i) {
    const int32_t left = usable[random() % usable.size()], right = usable[random() % usable.size()];
    const std::string merged = vocabulary.tokens[static_cast<size_t>(left)] +
                               vocabulary.tokens[static_cast<size_t>(right)];
    const auto known = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), merged);
    const auto result = static_cast<int32_t>(known - vocabulary.tokens.begin());
    if (known == vocabulary.tokens.end()) {
      vocabulary.tokens.push_back(merged);
      usable.push_back(result);
    }
    vocabulary.merges.push_back({left, right, result});
  }
  return vocabulary;
}

// The definition: merge the pair of lowest rank, the leftmost of them, until there is none.
std::vector<int32_t> plain_encode(const Vocabulary& vocabulary, std::string_view word) {
  std::map<std::pair<int32_t, int32_t>, size_t> ranks;
  for (size_t i = 0; i < vocabulary.merges.size(); ++i)
    ranks[{vocabulary.merges[i].left, vocabulary.merges[i].right}] = i;
  std::vector<int32_t> ids;
  for (const char byte : word) ids.push_back(static_cast<uint8_t>(byte));
  for (;;) {
    size_t best = SIZE_MAX, place = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto it = ranks.find({ids[i], ids[i + 1]});
      if (it == ranks.end() || it->second >= best) continue;
      best = it->second;
      place = i;
    }
    if (best == SIZE_MAX) return ids;
    ids[place] = vocabulary.merges[best].result;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(place) + 1);
  }
}

TEST(BytePairEncoder, MergesAsTheDefinitionSays) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 60; ++round) {
    const Vocabulary vocabulary = random_vocabulary(random, 1 + random() % 60);
    const BytePairEncoder encoder(vocabulary.tokens, vocabulary.merges, false);
    BytePairEncoder::Scratch scratch;
    for (int i = 0; i < 100; ++i) {
      // Both sides of the lengths at which the encoder changes its ways (30 and 48 bytes).
      std::string word;
      for (size_t n = 1 + random() % 120; n > 0; --n) word += "aaabbc"[random() % 6];
      std::vector<int32_t> ids, again;
      encoder.encode(word, scratch, ids);
      ASSERT_EQ(ids, plain_encode(vocabulary, word)) << word;
      encoder.encode(word, scratch, again);  // perhaps from the cache
      ASSERT_EQ(again, ids) << word;
    }
  }
}

TEST(BytePairEncoder, TakesWholeTokensOnlyWhereMergesGiveThem) {
  Vocabulary vocabulary = bytes_only();
  vocabulary.tokens.push_back("ab");
  vocabulary.tokens.push_back("abc");  // no merge makes it
  vocabulary.merges.push_back({'a', 'b', 256});
  BytePairEncoder::Scratch scratch;
  std::vector<int32_t> ids;
  BytePairEncoder(vocabulary.tokens, vocabulary.merges, false).encode("abc", scratch, ids);
  EXPECT_THAT(ids, ElementsAre(256, 'c'));
  BytePairEncoder::Scratch fresh;
  ids.clear();
  BytePairEncoder(vocabulary.tokens, vocabulary.merges, true).encode("abc", fresh, ids);
  EXPECT_THAT(ids, ElementsAre(257));
}

TEST(BytePairEncoder, FindsTokensByTheirBytes) {
  Vocabulary vocabulary = bytes_only();
  vocabulary.tokens.push_back("");  // an id that only an added token has
  vocabulary.tokens.push_back("a token longer than sixteen bytes");
  const BytePairEncoder encoder(vocabulary.tokens, {}, false);
  EXPECT_EQ(encoder.find("a token longer than sixteen bytes"), 257);
  EXPECT_EQ(encoder.find("a"), 'a');
  EXPECT_EQ(encoder.find(std::string_view("\0", 1)), 0);
  EXPECT_EQ(encoder.find(""), std::nullopt);
  EXPECT_EQ(encoder.find("ab"), std::nullopt);
}

TEST(BytePairEncoder, NamesTheByteWithoutAToken) {
  Vocabulary vocabulary = bytes_only();
  vocabulary.tokens[' '] = "  ";
  try {
    BytePairEncoder(vocabulary.tokens, {}, false);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "the vocabulary has no token for byte 0x20, which it would write as \"\u0120\"");
  }
}

// A word of n bytes has n - 1 pairs at first, and each of at most n - 1 merges makes two new ones.
TEST(BytePairEncoder, LooksUpAtMostThreePairsForEachByte) {
  std::mt19937_64 random(2);
  const Vocabulary vocabulary = random_vocabulary(random, 60);
  const BytePairEncoder encoder(vocabulary.tokens, vocabulary.merges, false);
  for (const size_t size : {1000u, 100'000u, 1'000'000u}) {
    std::string run(size, 'a'), mixed;
    for (size_t i = 0; i < size; ++i) mixed += "abc"[random() % 3];
    for (const std::string& word : {run, mixed}) {
      BytePairEncoder::Scratch scratch;
      std::vector<int32_t> ids;
      encoder.encode(word, scratch, ids);
      EXPECT_LE(scratch.pairs_looked_up(), 3 * size);
    }
  }
}

}  // namespace
}  // namespace qnext
