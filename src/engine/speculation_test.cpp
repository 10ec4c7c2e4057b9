#include "engine/speculation.h"

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "engine/collector.h"
#include "engine/engine.h"
#include "engine/testing/fake_backend.h"

namespace qnext::engine {
namespace {

using testing::FakeBackend;
using testing::FakeOptions;

// What a step takes: so much for itself, for each row, and for each round of proposals.
struct Cost {
  double step = 1;
  double row = 0;
  double round = 0;

  double operator()(const backend::Batch& batch) const {
    size_t rows = 0;
    int32_t rounds = 0;
    for (const backend::SequenceStep& sequence : batch.sequences) {
      rows += sequence.tokens.size();
      rounds = std::max(rounds, sequence.propose);
    }
    return step + row * static_cast<double>(rows) + round * rounds;
  }
};

// An engine over a fake backend, timed by the fake clock.
class Machine {
 public:
  Machine(double acceptance, std::function<double(const backend::Batch&)> seconds,
          bool adapt = true)
      : backend_({.vocabulary = 50'000,
                  .context = 20'000,
                  .acceptance = acceptance,
                  .seconds = std::move(seconds)}),
        engine_(backend_, nullptr,
                {.max_context = 8'000,
                 .max_sequences = 8,
                 .max_speculation = 3,
                 .adapt_speculation = adapt,
                 .clock = [this] { return backend_.clock; }}) {}

  const Collector& submit(int64_t tokens, int32_t speculate) {
    GenerationRequest request;
    request.prompt = {static_cast<int32_t>(answers_.size()), 1};
    request.max_tokens = tokens;
    request.speculate = speculate;
    engine_.submit(request, answers_.emplace_back());
    return answers_.back();
  }
  void steps(int count) {
    for (int i = 0; i < count; ++i) engine_.step();
  }
  double run() {
    engine_.run();
    return backend_.clock;
  }
  // Drafts a step of the first sequence, over the last steps.
  double recent_drafts(size_t steps) const {
    double sum = 0;
    for (size_t i = backend_.steps.size() - steps; i < backend_.steps.size(); ++i)
      sum += backend_.steps[i][0].drafts;
    return sum / static_cast<double>(steps);
  }
  FakeBackend& backend() { return backend_; }

 private:
  FakeBackend backend_;
  Engine engine_;
  std::deque<Collector> answers_;
};

// Seconds for `sequences` answers.
double seconds_of(double acceptance, const Cost& cost, int sequences, int32_t speculate,
                  bool adapt) {
  Machine machine(acceptance, cost, adapt);
  for (int i = 0; i < sequences; ++i) machine.submit(sequences == 1 ? 1000 : 600, speculate);
  return machine.run();
}

struct Situation {
  const char* name;
  double acceptance;
  Cost cost;
  int sequences = 1;
};

TEST(Speculation, IsNeverMuchWorseThanTheBestFixedDepth) {
  // The tries, and that each depth is timed once at the start.
  constexpr double most = 1.05;
  const Situation situations[] = {
      {"good drafts, cheap rows", 0.9, {.step = 1, .row = 0.05, .round = 0.05}},
      {"fair drafts, cheap rows", 0.5, {.step = 1, .row = 0.05, .round = 0.1}},
      {"bad drafts, cheap rows", 0, {.step = 1, .row = 0.05, .round = 0.05}},
      {"bad drafts, dear rows", 0, {.step = 0, .row = 1, .round = 0.5}},
      {"good drafts, dear rows", 0.9, {.step = 0, .row = 1, .round = 0.1}},
      {"good drafts, a full batch", 0.9, {.step = 1, .row = 1, .round = 0.5}, 8},
      {"good drafts, a batch with room", 0.9, {.step = 10, .row = 0.1, .round = 1}, 8},
      {"bad drafts, a batch", 0.05, {.step = 4, .row = 0.5, .round = 0.5}, 8},
  };
  for (const Situation& s : situations) {
    double best = seconds_of(s.acceptance, s.cost, s.sequences, 0, false);
    for (int32_t depth = 1; depth <= 3; ++depth)
      best = std::min(best, seconds_of(s.acceptance, s.cost, s.sequences, depth, false));
    const double adaptive = seconds_of(s.acceptance, s.cost, s.sequences, 3, true);
    EXPECT_LE(adaptive, most * best) << s.name << ": " << adaptive / best;
  }
}

TEST(Speculation, GoodDraftsOnCheapRowsAreAllUsed) {
  Machine machine(0.95, Cost{.step = 1, .row = 0.02, .round = 0.02});
  machine.submit(4000, 3);
  machine.steps(200);
  EXPECT_GT(machine.recent_drafts(100), 2.7);
}

TEST(Speculation, BadDraftsEndItAndThenTheHead) {
  Machine machine(0, Cost{.step = 1, .row = 0.1, .round = 0.1});
  machine.submit(4000, 3);
  machine.steps(400);
  EXPECT_LT(machine.recent_drafts(300), 0.15);
  EXPECT_TRUE(machine.backend().steps.back()[0].mtp);
  machine.steps(200);
  EXPECT_FALSE(machine.backend().steps.back()[0].mtp);
  EXPECT_EQ(machine.recent_drafts(80), 0);
  // It does not come back to this answer; the next one tries again.
  machine.backend().options.acceptance = 1;
  machine.steps(500);
  EXPECT_EQ(machine.recent_drafts(500), 0);
  machine.run();
  machine.submit(2000, 3);
  machine.steps(400);
  EXPECT_GT(machine.recent_drafts(50), 2.5);
}

TEST(Speculation, ComesBackWhenDraftsGetBetter) {
  Machine machine(0, Cost{.step = 1, .row = 0.1, .round = 0.1});
  machine.submit(4000, 3);
  machine.steps(400);
  EXPECT_LT(machine.recent_drafts(200), 0.15);
  machine.backend().options.acceptance = 0.95;
  machine.steps(150);
  EXPECT_GT(machine.recent_drafts(30), 2.5);
}

TEST(Speculation, StopsUnderLoadAndComesBack) {
  // Two rows more are free for one sequence, none for eight.
  Machine machine(0.9, [](const backend::Batch& batch) {
    return std::max(8.0, Cost{.step = 0, .row = 2}(batch));
  });
  machine.submit(4000, 3);
  machine.steps(100);
  EXPECT_GT(machine.recent_drafts(50), 2.4);
  for (int i = 0; i < 7; ++i) machine.submit(300, 3);
  machine.steps(200);
  ASSERT_EQ(machine.backend().steps.back().size(), 8u);
  EXPECT_LT(machine.recent_drafts(100), 0.3);
  machine.steps(200);
  ASSERT_EQ(machine.backend().steps.back().size(), 1u);
  EXPECT_GT(machine.recent_drafts(50), 2.4);
}

TEST(Speculation, ComesBackWhenRowsGetCheaper) {
  Cost cost{.step = 0, .row = 1};
  Machine machine(0.9, [&](const backend::Batch& batch) { return cost(batch); });
  machine.submit(4000, 3);
  machine.steps(400);
  EXPECT_LT(machine.recent_drafts(200), 0.5);
  cost = {.step = 1, .row = 0.01};
  machine.steps(600);
  EXPECT_GE(machine.recent_drafts(50), 1.9);
}

TEST(Speculation, ADraftlessSequenceDoesNotHoldUpTheOthers) {
  Listener listener;
  Speculation speculation(true, 48);
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<Sequence*> running;
  for (RequestId id = 0; id < 3; ++id) {
    sequences.push_back(std::make_unique<Sequence>(id, Answer(id, listener, nullptr, {}, {})));
    sequences.back()->speculate = id == 2 ? 0 : 2;
    speculation.join(*sequences.back());
    running.push_back(sequences.back().get());
  }
  for (int i = 0; i < 200; ++i) {
    speculation.choose(running);
    std::vector<PlannedStep> plan;
    for (Sequence* sequence : running) {
      const int32_t drafts = sequence->speculation.wanted;
      plan.push_back({.sequence = sequence,
                      .rows = 1 + drafts,
                      .drafts = drafts,
                      .draw = true,
                      .propose = drafts});
      // The first one's drafts are all right, the second one's all wrong.
      speculation.judged(sequence->speculation, drafts, sequence == running[0] ? drafts : 0);
    }
    speculation.timed(plan, 1);
  }
  EXPECT_EQ(running[0]->speculation.wanted, 2);
  EXPECT_EQ(running[1]->speculation.wanted, 0);
  EXPECT_EQ(running[2]->speculation.wanted, 0);
  EXPECT_FALSE(running[2]->speculation.head_in_step);
}

}  // namespace
}  // namespace qnext::engine
