#include "ops/causal_conv/causal_conv.h"

#include "ops/activation/op_test.h"

namespace qnext::ops {
namespace {

struct Problem {
  int64_t rows;
  int64_t channels;
  int64_t width;
  std::vector<float> x;
  std::vector<float> weight;
  std::vector<float> state;  // before row 0

  Problem(Random& random, int64_t rows_, int64_t channels_, int64_t width_)
      : rows(rows_),
        channels(channels_),
        width(width_),
        x(random.normals(rows * channels)),
        weight(random.normals(channels * width)),
        state(random.normals((width - 1) * channels)) {}
  int64_t state_size() const { return (width - 1) * channels; }
};

// All states after each row, and y, from one call for the whole sequence.
struct Result {
  std::vector<float> y;
  std::vector<std::vector<float>> states;
};

Result run_whole(const Problem& problem, const float* state, int threads) {
  Result result{poisoned(problem.rows * problem.channels), {}};
  std::vector<float*> out;
  for (int64_t t = 0; t < problem.rows; ++t)
    result.states.push_back(poisoned(problem.state_size()));
  for (std::vector<float>& each : result.states) out.push_back(each.data());
  const ConvSequence sequence{0, problem.rows, state, out.data()};
  ThreadPool pool(threads);
  causal_conv(pool, problem.x.data(), problem.channels, problem.weight.data(), problem.channels,
              problem.width, {&sequence, 1}, result.y.data(), problem.channels);
  return result;
}

constexpr int64_t channel_counts[] = {1, 7, 16, 20, 96, 256, 257, 600};

TEST(CausalConv, MatchesOracle) {
  on_every_isa([] {
    Random random(1);
    for (int64_t channels : channel_counts) {
      for (int64_t width : {1, 2, 3, 4, 7, 17}) {
        const Problem problem(random, 9, channels, width);
        const Result result = run_whole(problem, problem.state.data(), 1);
        std::vector<double> state = widened(problem.state.data(), problem.state_size());
        std::vector<double> expected(result.y.size());
        causal_conv_oracle(widened(problem.x.data(), 9 * channels).data(),
                           widened(problem.weight.data(), channels * width).data(), 9, channels,
                           width, state.data(), expected.data());
        // A sum of `width` products of values below 5 each; silu grows by at most 1.1, and exp
        // and the quotient add some eight roundings.
        const double tolerance =
            (2.0 * static_cast<double>(width) * 25 + 8 * largest(expected)) * unit_roundoff;
        expect_close(result.y.data(), expected, tolerance);
        expect_close(result.states.back().data(), state, 0);
      }
    }
  });
}

TEST(CausalConv, NoStateIsZeros) {
  on_every_isa([] {
    Random random(2);
    const Problem problem(random, 5, 70, 4);
    const std::vector<float> zeros(static_cast<size_t>(problem.state_size()), 0.0f);
    const Result with = run_whole(problem, zeros.data(), 1);
    const Result without = run_whole(problem, nullptr, 1);
    expect_same_bits(without.y, with.y);
    for (size_t t = 0; t < 5; ++t) expect_same_bits(without.states[t], with.states[t]);
  });
}

// Random cuts, other sequences in the batch, any number of threads, the state updated in place.
TEST(CausalConv, SameBitsHoweverSplit) {
  on_every_isa([] {
    Random random(3);
    for (int round = 0; round < 20; ++round) {
      const Problem problem(random, random.integer(1, 30), channel_counts[random.integer(0, 7)], 4);
      const int64_t channels = problem.channels;
      const Result whole = run_whole(problem, nullptr, 1);
      std::vector<float> state;
      std::vector<float> y = poisoned(problem.rows * channels);
      for (int64_t begin = 0; begin < problem.rows;) {
        const int64_t rows = std::min(random.integer(1, 7), problem.rows - begin);
        // A companion of two rows comes first in the batch.
        std::vector<float> x = random.normals(2 * channels);
        x.insert(x.end(), problem.x.begin() + begin * channels,
                 problem.x.begin() + (begin + rows) * channels);
        std::vector<float> batch_y = poisoned((rows + 2) * channels);
        const bool first = state.empty();
        if (first) state = poisoned(problem.state_size());
        std::vector<float*> out(static_cast<size_t>(rows), nullptr);
        out.back() = state.data();
        const ConvSequence sequences[] = {{2, rows, first ? nullptr : state.data(), out.data()},
                                          {0, 2, nullptr, nullptr}};
        ThreadPool pool(static_cast<int>(random.integer(1, 5)));
        causal_conv(pool, x.data(), channels, problem.weight.data(), channels, 4, sequences,
                    batch_y.data(), channels);
        std::copy(batch_y.begin() + 2 * channels, batch_y.end(), y.begin() + begin * channels);
        begin += rows;
        expect_same_bits(state, whole.states[static_cast<size_t>(begin - 1)]);
      }
      expect_same_bits(y, whole.y);
    }
  });
}

}  // namespace
}  // namespace qnext::ops
