#include "ops/gated_delta/gated_delta.h"

#include <algorithm>

#include "ops/activation/activation.h"
#include "ops/activation/op_test.h"

namespace qnext::ops {
namespace {

struct Problem {
  GatedDeltaShape shape;
  int64_t rows;
  std::vector<float> qkv;
  std::vector<float> a;
  std::vector<float> b;
  std::vector<float> a_log;
  std::vector<float> dt_bias;
  std::vector<float> state;  // before row 0

  Problem(Random& random, GatedDeltaShape shape_, int64_t rows_)
      : shape(shape_),
        rows(rows_),
        qkv(random.normals(rows * qkv_width())),
        a(random.normals(rows * shape.value_heads)),
        b(random.normals(rows * shape.value_heads, 2)),
        a_log(random.normals(shape.value_heads)),
        dt_bias(random.normals(shape.value_heads)),
        state(random.normals(state_size())) {}

  int64_t qkv_width() const {
    return 2 * shape.key_heads * shape.key_dim + shape.value_heads * shape.value_dim;
  }
  int64_t out_width() const { return shape.value_heads * shape.value_dim; }
  int64_t state_size() const { return shape.value_heads * shape.key_dim * shape.value_dim; }
};

struct Result {
  std::vector<float> out;
  std::vector<std::vector<float>> states;  // after each row
};

Result run_whole(Problem problem, const float* state, int threads) {
  Result result{poisoned(problem.rows * problem.out_width()), {}};
  for (int64_t t = 0; t < problem.rows; ++t)
    result.states.push_back(poisoned(problem.state_size()));
  std::vector<float*> out;
  for (std::vector<float>& each : result.states) out.push_back(each.data());
  const DeltaSequence sequence{0, problem.rows, state, out.data()};
  ThreadPool pool(threads);
  gated_delta(pool, problem.shape,
              {problem.qkv.data(), problem.qkv_width(), problem.a.data(), problem.b.data(),
               problem.shape.value_heads, problem.a_log.data(), problem.dt_bias.data()},
              {&sequence, 1}, result.out.data(), problem.out_width());
  return result;
}

// One head's normalised inputs in fp64.
struct HeadInputs {
  std::vector<double> q, k, v, g, beta;
  DeltaHead head;

  HeadInputs(const Problem& problem, int64_t h) {
    const GatedDeltaShape& shape = problem.shape;
    const int64_t key_head = h / (shape.value_heads / shape.key_heads);
    q.resize(static_cast<size_t>(problem.rows * shape.key_dim));
    k = q;
    for (int64_t t = 0; t < problem.rows; ++t) {
      const float* row = problem.qkv.data() + t * problem.qkv_width();
      const float* key = row + (shape.key_heads + key_head) * shape.key_dim;
      l2_normalize_oracle(widened(row + key_head * shape.key_dim, shape.key_dim).data(),
                          shape.key_dim, 1 / std::sqrt(static_cast<double>(shape.key_dim)),
                          q.data() + t * shape.key_dim);
      l2_normalize_oracle(widened(key, shape.key_dim).data(), shape.key_dim, 1,
                          k.data() + t * shape.key_dim);
      const float* value = row + 2 * shape.key_heads * shape.key_dim + h * shape.value_dim;
      v.insert(v.end(), value, value + shape.value_dim);
      const size_t at = static_cast<size_t>(t * shape.value_heads + h);
      const size_t of_head = static_cast<size_t>(h);
      g.push_back(-std::exp(static_cast<double>(problem.a_log[of_head])) *
                  softplus(static_cast<double>(problem.a[at]) +
                           static_cast<double>(problem.dt_bias[of_head])));
      beta.push_back(sigmoid(static_cast<double>(problem.b[at])));
    }
    head = {q.data(),    k.data(),     v.data(),      g.data(),
            beta.data(), problem.rows, shape.key_dim, shape.value_dim};
  }
};

// A row rounds each element of S three times and sums key_dim products with |q|, |k| <= 1 in at
// most key_dim + 8 roundings; the rule contracts (|1 - beta k k^T| <= 1), so rows add up, no more.
// The gates' relative error of about 16 roundoffs enters each row alike.
double tolerance(const Problem& problem, double largest_state) {
  return static_cast<double>(problem.rows) * (2 * static_cast<double>(problem.shape.key_dim) + 24) *
         unit_roundoff * std::max(largest_state, 4.0);
}

constexpr GatedDeltaShape shapes[] = {{1, 1, 1, 1},     {1, 2, 7, 5},   {2, 2, 8, 20},
                                      {2, 6, 24, 24},   {1, 3, 17, 33}, {2, 4, 96, 96},
                                      {1, 2, 128, 128}, {1, 1, 20, 70}};

TEST(GatedDelta, MatchesOracle) {
  on_every_isa([] {
    Random random(1);
    for (const GatedDeltaShape& shape : shapes) {
      for (int64_t rows : {1, 2, 11}) {
        const Problem problem(random, shape, rows);
        const Result result = run_whole(problem, problem.state.data(), 1);
        for (int64_t h = 0; h < shape.value_heads; ++h) {
          const HeadInputs inputs(problem, h);
          const int64_t size = shape.key_dim * shape.value_dim;
          std::vector<double> state = widened(problem.state.data() + h * size, size);
          const double bound = tolerance(problem, largest(state));
          std::vector<double> expected(static_cast<size_t>(rows * shape.value_dim));
          gated_delta_recurrent_oracle(inputs.head, state.data(), expected.data());
          for (int64_t t = 0; t < rows; ++t)
            expect_close(result.out.data() + t * problem.out_width() + h * shape.value_dim,
                         {expected.begin() + t * shape.value_dim,
                          expected.begin() + (t + 1) * shape.value_dim},
                         bound);
          expect_close(result.states.back().data() + h * size, state, bound);
        }
      }
    }
  });
}

TEST(GatedDelta, NoStateIsZeros) {
  on_every_isa([] {
    Random random(2);
    for (const GatedDeltaShape& shape : shapes) {
      const Problem problem(random, shape, 3);
      const std::vector<float> zeros(static_cast<size_t>(problem.state_size()), 0.0f);
      const Result with = run_whole(problem, zeros.data(), 1);
      const Result without = run_whole(problem, nullptr, 2);
      expect_same_bits(without.out, with.out);
      expect_same_bits(without.states.back(), with.states.back());
    }
  });
}

// A cut of the problem's rows [begin, begin + rows) behind two rows of a companion.
void run_cut(const Problem& problem, Random& random, int64_t begin, int64_t rows, bool first,
             std::vector<float>& state, std::vector<float>& out) {
  Problem batch(random, problem.shape, 2);
  const auto append = [&](std::vector<float>& to, const std::vector<float>& from, int64_t width) {
    to.insert(to.end(), from.begin() + begin * width, from.begin() + (begin + rows) * width);
  };
  append(batch.qkv, problem.qkv, problem.qkv_width());
  append(batch.a, problem.a, problem.shape.value_heads);
  append(batch.b, problem.b, problem.shape.value_heads);
  std::vector<float*> state_out(static_cast<size_t>(rows), nullptr);
  state_out.back() = state.data();
  const DeltaSequence sequences[] = {{0, 2, batch.state.data(), nullptr},
                                     {2, rows, first ? nullptr : state.data(), state_out.data()}};
  std::vector<float> batch_out = poisoned((rows + 2) * problem.out_width());
  ThreadPool pool(static_cast<int>(random.integer(1, 5)));
  gated_delta(pool, problem.shape,
              {batch.qkv.data(), batch.qkv_width(), batch.a.data(), batch.b.data(),
               problem.shape.value_heads, problem.a_log.data(), problem.dt_bias.data()},
              sequences, batch_out.data(), problem.out_width());
  std::copy(batch_out.begin() + 2 * problem.out_width(), batch_out.end(),
            out.begin() + begin * problem.out_width());
}

TEST(GatedDelta, SameBitsHoweverSplit) {
  on_every_isa([] {
    Random random(3);
    for (int round = 0; round < 24; ++round) {
      const Problem problem(random, shapes[round % 8], random.integer(1, 20));
      const Result whole = run_whole(problem, nullptr, 1);
      std::vector<float> state = poisoned(problem.state_size());
      std::vector<float> out = poisoned(problem.rows * problem.out_width());
      for (int64_t begin = 0; begin < problem.rows;) {
        const int64_t rows = std::min(random.integer(1, 6), problem.rows - begin);
        run_cut(problem, random, begin, rows, begin == 0, state, out);
        begin += rows;
        expect_same_bits(state, whole.states[static_cast<size_t>(begin - 1)]);
      }
      expect_same_bits(out, whole.out);
    }
  });
}

// Random normalised inputs; decays of every size, some so strong that exp(g) is zero.
struct RandomHead {
  std::vector<double> q, k, v, g, beta;
  DeltaHead head;

  RandomHead(Random& random, int64_t tokens, int64_t key_dim, int64_t value_dim, double decay) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (std::vector<double>* x : {&q, &k}) {
        x->resize(x->size() + static_cast<size_t>(key_dim));
        const std::vector<float> raw = random.normals(key_dim);
        l2_normalize_oracle(widened(raw.data(), key_dim).data(), key_dim, 1,
                            x->data() + t * key_dim);
      }
      for (int64_t e = 0; e < value_dim; ++e) v.push_back(static_cast<double>(random.normal()));
      g.push_back(-decay * std::abs(static_cast<double>(random.normal())));
      beta.push_back(sigmoid(static_cast<double>(random.normal(3))));
    }
    head = {q.data(), k.data(), v.data(), g.data(), beta.data(), tokens, key_dim, value_dim};
  }
};

// Both forms are exact but for fp64 rounding: some hundred tokens times key_dim operations at
// 2^-53 each.
constexpr double oracle_tolerance = 1e-12;

TEST(GatedDeltaOracle, ChunkedAgreesWithRecurrent) {
  Random random(4);
  for (double decay : {0.0, 1e-3, 0.1, 3.0, 100.0, 2000.0}) {
    const RandomHead inputs(random, 100, 24, 20, decay);
    const std::vector<float> start = random.normals(24 * 20);
    std::vector<double> state = widened(start.data(), 24 * 20);
    std::vector<double> expected(100 * 20);
    gated_delta_recurrent_oracle(inputs.head, state.data(), expected.data());
    for (int64_t chunk : {1, 2, 7, 16, 64, 99, 100, 128}) {
      std::vector<double> chunk_state = widened(start.data(), 24 * 20);
      std::vector<double> out(100 * 20);
      gated_delta_chunked_oracle(inputs.head, chunk, chunk_state.data(), out.data());
      for (size_t i = 0; i < out.size(); ++i)
        ASSERT_NEAR(out[i], expected[i], oracle_tolerance) << chunk << " " << decay;
      for (size_t i = 0; i < state.size(); ++i)
        ASSERT_NEAR(chunk_state[i], state[i], oracle_tolerance) << chunk << " " << decay;
    }
  }
}

}  // namespace
}  // namespace qnext::ops
