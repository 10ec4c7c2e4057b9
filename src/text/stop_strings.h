// Finds stop strings in text that arrives in pieces (Aho and Corasick, "Efficient string matching:
// an aid to bibliographic search").
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace qnext {

// A stream stops at the first byte that completes a stop string; of several completed there the
// longest counts. The result does not depend on how the text was cut into pieces. Text that may be
// the beginning of a stop string is held back. Where pieces and stop strings are whole characters,
// so is what comes out. Time is linear in the text. Copies are independent streams.
class StopStrings {
 public:
  // Throws Error on an empty string. Without strings everything passes.
  explicit StopStrings(std::span<const std::string> strings);

  // The text that is certain now to come before any stop string; empty once one has been met.
  std::string push(std::string_view text);
  // The text ends: what was held back, unless a stop string has been met. A new stream may follow.
  std::string finish();
  // Which string has been met (its place in the list given), if one has.
  std::optional<size_t> met() const { return met_; }

 private:
  struct Node {
    uint32_t fallback = 0;  // the longest proper suffix that is a node
    uint32_t depth = 0;     // its length: so many bytes may begin a stop string
    int32_t string = -1;    // the longest stop string that ends here
  };
  static constexpr uint32_t none = UINT32_MAX;

  void add(std::string_view string, size_t place);
  void link();
  uint32_t child(uint32_t node, char byte) const;
  uint32_t advance(uint32_t node, char byte) const;
  std::string take(size_t kept);

  std::vector<Node> nodes_;
  std::unordered_map<uint64_t, uint32_t> children_;  // by node and byte
  std::vector<uint32_t> lengths_;                    // of the strings
  std::string text_;                                 // pending, after what was taken
  size_t taken_ = 0;
  uint32_t node_ = 0;
  std::optional<size_t> met_;
};

}  // namespace qnext
