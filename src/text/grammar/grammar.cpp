#include "text/grammar/grammar.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace qnext::grammar {
namespace {

using State = Grammar::State;

// States from which the end of their rule can be reached.
std::vector<bool> productive_states(const Grammar& grammar) {
  struct Source {
    int32_t state = 0;
    int32_t rule = -1;  // that must be productive for the edge to be
  };
  std::vector<std::vector<Source>> sources(grammar.states.size());
  std::vector<std::vector<Source>> callers(grammar.rules.size());  // waiting, with their target
  for (size_t i = 0; i < grammar.states.size(); ++i) {
    const auto state = static_cast<int32_t>(i);
    for (const Grammar::ByteEdge& edge : grammar.states[i].bytes)
      sources[static_cast<size_t>(edge.target)].push_back({state, -1});
    for (const int32_t target : grammar.states[i].empty)
      sources[static_cast<size_t>(target)].push_back({state, -1});
    for (const Grammar::Call& call : grammar.states[i].calls)
      sources[static_cast<size_t>(call.target)].push_back({state, call.rule});
  }
  std::vector<bool> productive(grammar.states.size());
  std::vector<bool> productive_rule(grammar.rules.size());
  std::vector<int32_t> rule_of_start(grammar.states.size(), -1);
  std::vector<int32_t> work;
  const auto mark = [&](int32_t state) {
    if (productive[static_cast<size_t>(state)]) return;
    productive[static_cast<size_t>(state)] = true;
    work.push_back(state);
  };
  for (size_t rule = 0; rule < grammar.rules.size(); ++rule) {
    rule_of_start[static_cast<size_t>(grammar.rules[rule].start)] = static_cast<int32_t>(rule);
    mark(grammar.rules[rule].end);
  }
  while (!work.empty()) {
    const auto state = static_cast<size_t>(work.back());
    work.pop_back();
    for (const Source& source : sources[state]) {
      const auto rule = static_cast<size_t>(source.rule);
      if (source.rule < 0 || productive_rule[rule])
        mark(source.state);
      else
        callers[rule].push_back({source.state, -1});
    }
    if (rule_of_start[state] < 0) continue;
    const auto rule = static_cast<size_t>(rule_of_start[state]);
    productive_rule[rule] = true;
    for (const Source& caller : std::exchange(callers[rule], {})) mark(caller.state);
  }
  return productive;
}

// Rules that a rule may call before it has read a byte, and whether it may read none at all.
class Leftmost {
 public:
  explicit Leftmost(const Grammar& grammar)
      : grammar_(grammar), nullable_(grammar.rules.size()), color_(grammar.rules.size()) {
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t rule = 0; rule < nullable_.size(); ++rule) {
        if (nullable_[rule]) continue;
        const std::vector<int32_t> reached = without_bytes(rule, nullptr);
        if (std::find(reached.begin(), reached.end(), grammar.rules[rule].end) == reached.end())
          continue;
        nullable_[rule] = changed = true;
      }
    }
  }

  bool recurses(size_t rule) {
    // Depth first, on a stack of its own: schemas nest as deeply as they like.
    struct Frame {
      size_t rule;
      std::vector<int32_t> calls;
      size_t next = 0;
    };
    std::vector<Frame> stack;
    const auto enter = [&](size_t entered) {
      color_[entered] = Color::open;
      Frame frame{entered, {}, 0};
      without_bytes(entered, &frame.calls);
      stack.push_back(std::move(frame));
    };
    if (color_[rule] == Color::done) return false;
    enter(rule);
    while (!stack.empty()) {
      Frame& top = stack.back();
      if (top.next == top.calls.size()) {
        color_[top.rule] = Color::done;
        stack.pop_back();
        continue;
      }
      const auto called = static_cast<size_t>(top.calls[top.next++]);
      if (color_[called] == Color::open) return true;
      if (color_[called] == Color::fresh) enter(called);
    }
    return false;
  }

 private:
  enum class Color : uint8_t { fresh, open, done };

  std::vector<int32_t> without_bytes(size_t rule, std::vector<int32_t>* calls) const {
    std::vector<int32_t> reached{grammar_.rules[rule].start};
    const auto reach = [&](int32_t state) {
      if (std::find(reached.begin(), reached.end(), state) == reached.end())
        reached.push_back(state);
    };
    for (size_t i = 0; i < reached.size(); ++i) {
      const State& state = grammar_.states[static_cast<size_t>(reached[i])];
      for (const int32_t target : state.empty) reach(target);
      for (const Grammar::Call& call : state.calls) {
        if (calls) calls->push_back(call.rule);
        if (nullable_[static_cast<size_t>(call.rule)]) reach(call.target);
      }
    }
    return reached;
  }

  const Grammar& grammar_;
  std::vector<bool> nullable_;
  std::vector<Color> color_;
};

}  // namespace

int32_t GrammarBuilder::state() {
  if (grammar_.states.size() >= most_states)
    fail("it needs a grammar of more than {} states", most_states);
  grammar_.states.emplace_back();
  return static_cast<int32_t>(grammar_.states.size()) - 1;
}

int32_t GrammarBuilder::rule() {
  const int32_t start = state();
  const int32_t end = state();
  at(end).is_end = true;
  grammar_.rules.push_back({start, end});
  return static_cast<int32_t>(grammar_.rules.size()) - 1;
}

void GrammarBuilder::bytes(int32_t from, uint8_t first, uint8_t last, int32_t to) {
  at(from).bytes.push_back({first, last, to});
}

void GrammarBuilder::empty(int32_t from, int32_t to) {
  at(from).empty.push_back(to);
}

void GrammarBuilder::call(int32_t from, int32_t rule, int32_t to) {
  at(from).calls.push_back({rule, to});
}

void GrammarBuilder::literal(int32_t from, std::string_view text, int32_t to) {
  if (text.empty()) return empty(from, to);
  for (size_t i = 0; i < text.size(); ++i) {
    const int32_t next = i + 1 == text.size() ? to : state();
    const auto byte = static_cast<uint8_t>(text[i]);
    bytes(from, byte, byte, next);
    from = next;
  }
}

void GrammarBuilder::set_free(int32_t state) {
  at(state).is_free = true;
}

void GrammarBuilder::set_similar(int32_t state, int32_t other) {
  at(state).similar = other;
}

void GrammarBuilder::set_plain(int32_t state, Grammar::Plain plain) {
  at(state).plain = static_cast<int32_t>(grammar_.plains.size());
  grammar_.plains.push_back(std::move(plain));
}

std::shared_ptr<const Grammar> GrammarBuilder::finish(int32_t root) {
  auto grammar = std::make_shared<Grammar>(std::move(grammar_));
  grammar_ = {};
  grammar->root = root;
  const std::vector<bool> productive = productive_states(*grammar);
  const auto leads_nowhere = [&](int32_t target) {
    return !productive[static_cast<size_t>(target)];
  };
  for (State& state : grammar->states) {
    std::erase_if(state.bytes, [&](const auto& edge) { return leads_nowhere(edge.target); });
    std::erase_if(state.empty, leads_nowhere);
    std::erase_if(state.calls, [&](const auto& call) {
      const Grammar::Rule& rule = grammar->rules[static_cast<size_t>(call.rule)];
      return leads_nowhere(call.target) || leads_nowhere(rule.start);
    });
  }
  if (leads_nowhere(grammar->rules[static_cast<size_t>(root)].start)) fail("no value satisfies it");
  Leftmost leftmost(*grammar);
  for (size_t rule = 0; rule < grammar->rules.size(); ++rule)
    if (leftmost.recurses(rule)) fail("it refers to itself without end");
  return grammar;
}

}  // namespace qnext::grammar
