// Reads bytes by a grammar: all ways to read them at once, as one situation. Situations and what a
// byte makes of them are found when they are first met and then known, so that reading costs a look
// into a table.
//
// A way to read is a state and a stack of where to go on when its rule has ended. Stacks are linked
// frames, each kept once: a situation is a set of pairs of a state that reads bytes and a frame.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "text/grammar/grammar.h"

namespace qnext::grammar {

// For one thread at a time. Numbers of situations and frames stay valid until clear().
class GrammarReader {
 public:
  static constexpr int32_t dead = 0;  // the situation that nothing leads out of

  // Where a frame's rule has ended, `state` goes on in the frame `parent`.
  struct Frame {
    int32_t state = 0;
    int32_t parent = 0;
  };
  // The two frames without a parent.
  static constexpr int32_t whole = 0;  // behind it the text ends
  static constexpr int32_t local = 1;  // behind it somebody else goes on
  struct Way {
    int32_t state = 0;  // `ended`: the frame `frame` has ended, which has no parent
    int32_t frame = 0;
    bool operator==(const Way&) const = default;
    bool operator<(const Way& other) const {
      return state != other.state ? state < other.state : frame < other.frame;
    }
  };
  static constexpr int32_t ended = -1;

  explicit GrammarReader(std::shared_ptr<const Grammar> grammar);

  // Before the first byte.
  int32_t start();
  // In this state alone, with nothing known of what called its rule.
  int32_t start_local(int32_t state);
  // Behind the end of a frame's rule.
  int32_t after(int32_t frame);

  int32_t next(int32_t situation, uint8_t byte) {
    const int32_t known = next_[static_cast<size_t>(situation)][byte];
    return known >= 0 ? known : find_next(situation, byte);
  }
  std::span<const Way> ways(int32_t situation) const {
    return ways_[static_cast<size_t>(situation)];
  }
  // The text, or the local frame's rule, may end here; and nothing else may come.
  bool may_end(int32_t situation) const { return may_end_[static_cast<size_t>(situation)]; }
  bool must_end(int32_t situation) const {
    return may_end(situation) && ways(situation).size() == 1;
  }
  // Apart from the end there is one way, in a state that is free.
  bool is_free(int32_t situation) const;

  const Grammar& grammar() const { return *grammar_; }
  size_t situations() const { return ways_.size(); }
  void clear();

 private:
  static constexpr int32_t unknown = -1;

  int32_t find_next(int32_t situation, uint8_t byte);
  void visit(int32_t state, int32_t frame);
  int32_t take_visited();
  int32_t frame_number(const Frame& frame);

  std::shared_ptr<const Grammar> grammar_;
  std::vector<Frame> frames_;
  std::vector<int32_t> after_;  // of each frame, or unknown
  std::map<std::pair<int32_t, int32_t>, int32_t> frame_numbers_;
  std::vector<std::vector<Way>> ways_;
  std::vector<bool> may_end_;
  std::vector<std::array<int32_t, 256>> next_;
  std::map<std::vector<Way>, int32_t> numbers_;
  // While a situation is put together.
  std::vector<Way> visited_;
  std::vector<Way> work_;
  std::vector<Way> found_;
};

}  // namespace qnext::grammar
