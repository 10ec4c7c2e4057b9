#include "text/grammar/grammar_reader.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace qnext::grammar {

GrammarReader::GrammarReader(std::shared_ptr<const Grammar> grammar)
    : grammar_(std::move(grammar)) {
  clear();
}

void GrammarReader::clear() {
  frames_ = {{ended, ended}, {ended, ended}};
  after_ = {unknown, unknown};
  frame_numbers_.clear();
  ways_.clear();
  may_end_.clear();
  next_.clear();
  numbers_.clear();
  const int32_t nothing = take_visited();
  QNEXT_CHECK(nothing == dead);
  next_[dead].fill(dead);
}

int32_t GrammarReader::start() {
  visit(grammar_->rules[static_cast<size_t>(grammar_->root)].start, whole);
  return take_visited();
}

int32_t GrammarReader::start_local(int32_t state) {
  visit(state, local);
  return take_visited();
}

int32_t GrammarReader::after(int32_t frame) {
  if (frame == whole || frame == local) return dead;
  if (after_[static_cast<size_t>(frame)] == unknown) {
    const Frame on = frames_[static_cast<size_t>(frame)];
    visit(on.state, on.parent);
    const int32_t situation = take_visited();
    after_[static_cast<size_t>(frame)] = situation;
  }
  return after_[static_cast<size_t>(frame)];
}

bool GrammarReader::is_free(int32_t situation) const {
  // `ended` comes first.
  const auto& all = ways_[static_cast<size_t>(situation)];
  const size_t ends = may_end(situation) ? 1 : 0;
  return all.size() == ends + 1 && grammar_->states[static_cast<size_t>(all[ends].state)].is_free;
}

int32_t GrammarReader::frame_number(const Frame& frame) {
  const auto [place, is_new] =
      frame_numbers_.try_emplace({frame.state, frame.parent}, static_cast<int32_t>(frames_.size()));
  if (is_new) {
    frames_.push_back(frame);
    after_.push_back(unknown);
  }
  return place->second;
}

// Adds a way, and all that it becomes without a byte.
void GrammarReader::visit(int32_t first, int32_t first_frame) {
  work_.push_back({first, first_frame});
  while (!work_.empty()) {
    const Way at = work_.back();
    work_.pop_back();
    if (std::find(visited_.begin(), visited_.end(), at) != visited_.end()) continue;
    visited_.push_back(at);
    if (at.state == ended) {
      found_.push_back(at);
      continue;
    }
    const Grammar::State& state = grammar_->states[static_cast<size_t>(at.state)];
    if (!state.bytes.empty()) found_.push_back(at);
    if (state.is_end) {
      const Frame on = frames_[static_cast<size_t>(at.frame)];
      work_.push_back(on.state == ended ? Way{ended, at.frame} : Way{on.state, on.parent});
    }
    for (const int32_t target : state.empty) work_.push_back({target, at.frame});
    for (const Grammar::Call& call : state.calls) {
      const int32_t start = grammar_->rules[static_cast<size_t>(call.rule)].start;
      const Grammar::State& target = grammar_->states[static_cast<size_t>(call.target)];
      // A call that ends its own rule needs no frame, so that lists of lists stay flat.
      const bool is_last =
          target.is_end && target.bytes.empty() && target.empty.empty() && target.calls.empty();
      work_.push_back({start, is_last ? at.frame : frame_number({call.target, at.frame})});
    }
  }
}

// The situation of what has been visited.
int32_t GrammarReader::take_visited() {
  std::vector<Way> found = std::exchange(found_, {});
  visited_.clear();
  std::sort(found.begin(), found.end());
  const auto [place, is_new] =
      numbers_.try_emplace(std::move(found), static_cast<int32_t>(ways_.size()));
  if (is_new) {
    ways_.push_back(place->first);
    may_end_.push_back(std::any_of(place->first.begin(), place->first.end(),
                                   [](const Way& way) { return way.state == ended; }));
    next_.emplace_back().fill(unknown);
  }
  return place->second;
}

int32_t GrammarReader::find_next(int32_t situation, uint8_t byte) {
  for (size_t i = 0; i < ways_[static_cast<size_t>(situation)].size(); ++i) {
    const Way way = ways_[static_cast<size_t>(situation)][i];
    if (way.state == ended) continue;
    for (const Grammar::ByteEdge& edge : grammar_->states[static_cast<size_t>(way.state)].bytes)
      if (edge.first <= byte && byte <= edge.last) visit(edge.target, way.frame);
  }
  const int32_t found = take_visited();
  next_[static_cast<size_t>(situation)][byte] = found;
  return found;
}

}  // namespace qnext::grammar
