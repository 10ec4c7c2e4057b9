#include "ops/gated_delta/gated_delta_cuda.h"

#include <algorithm>

#include "ops/activation/activation.h"
#include "ops/cuda_test.h"

namespace qnext::ops::cuda {
namespace {

struct DeltaProblem {
  GatedDeltaShape shape;
  int64_t rows;
  std::vector<float> qkv, a, b, state;

  DeltaProblem(Random& random, const GatedDeltaShape& shape_, int64_t rows_)
      : shape(shape_),
        rows(rows_),
        qkv(random.normals(rows * qkv_width())),
        a(random.normals(rows * shape.value_heads)),
        b(random.normals(rows * shape.value_heads, 2)),
        state(random.normals(state_size())) {}
  int64_t qkv_width() const {
    return 2 * shape.key_heads * shape.key_dim + shape.value_heads * shape.value_dim;
  }
  int64_t out_width() const { return shape.value_heads * shape.value_dim; }
  int64_t state_size() const { return shape.value_heads * shape.key_dim * shape.value_dim; }
};

struct HeadWeights {
  std::vector<float> a_log, dt_bias;
  HeadWeights(Random& random, int64_t heads)
      : a_log(random.normals(heads)), dt_bias(random.normals(heads)) {}
};

// One head's normalised inputs in fp64.
struct HeadInputs {
  std::vector<double> q, k, v, g, beta;
  DeltaHead head;

  HeadInputs(const DeltaProblem& problem, const HeadWeights& weights, int64_t h) {
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
      const auto at = static_cast<size_t>(t * shape.value_heads + h);
      const auto of_head = static_cast<size_t>(h);
      g.push_back(-std::exp(static_cast<double>(weights.a_log[of_head])) *
                  ops::softplus(static_cast<double>(problem.a[at]) +
                                static_cast<double>(weights.dt_bias[of_head])));
      beta.push_back(ops::sigmoid(static_cast<double>(problem.b[at])));
    }
    head = {q.data(),    k.data(),     v.data(),      g.data(),
            beta.data(), problem.rows, shape.key_dim, shape.value_dim};
  }
};

// Worst case: a row rounds each element of S three times and sums key_dim products with |q|, |k|
// <= 1 in at most key_dim + 8 roundings; the rule contracts (|1 - beta k k^T| <= 1), so rows add
// up, no more. The gates' relative error of about 16 roundoffs enters each row alike.
double roundings(const DeltaProblem& problem) {
  return static_cast<double>(problem.rows) * (2 * static_cast<double>(problem.shape.key_dim) + 24);
}

constexpr GatedDeltaShape shapes[] = {{1, 2, 1, 1},   {1, 2, 16, 16},   {2, 6, 20, 20},
                                      {2, 4, 96, 70}, {2, 4, 128, 128}, {1, 1, 256, 256},
                                      {1, 40, 17, 33}};

// Compares one sequence's outputs [rows, out_width] and final state with the oracle's.
void compare(const DeltaProblem& problem, const HeadWeights& weights, bool fresh, const float* out,
             const float* final_state) {
  const GatedDeltaShape& shape = problem.shape;
  const int64_t size = shape.key_dim * shape.value_dim;
  for (int64_t h = 0; h < shape.value_heads; ++h) {
    const HeadInputs inputs(problem, weights, h);
    std::vector<double> state = widened(problem.state.data() + h * size, size);
    if (fresh) std::fill(state.begin(), state.end(), 0.0);
    const double bound = roundings(problem) * unit_roundoff * std::max(largest(state), 4.0);
    std::vector<double> expected(static_cast<size_t>(problem.rows * shape.value_dim));
    gated_delta_recurrent_oracle(inputs.head, state.data(), expected.data());
    std::vector<float> actual;
    for (int64_t t = 0; t < problem.rows; ++t) {
      const float* row = out + t * problem.out_width() + h * shape.value_dim;
      actual.insert(actual.end(), row, row + shape.value_dim);
    }
    expect_close(actual.data(), expected, bound);
    expect_close(final_state + h * size, state, bound);
    if (size < 256 || problem.rows < 60) continue;  // too few values for a mean
    // Independent roundings grow as their root; 4 stands for the spread of the factors.
    const double typical = 4 * std::sqrt(roundings(problem)) * unit_roundoff;
    EXPECT_LT(relative_rms_error(actual.data(), expected), typical) << "head " << h;
    EXPECT_LT(relative_rms_error(final_state + h * size, state), typical) << "head " << h;
  }
}

// Slot i holds sequence i's state and is replaced by its last row.
TEST_F(CudaOps, GatedDelta) {
  Random random(21);
  for (const GatedDeltaShape& shape : shapes) {
    const HeadWeights weights(random, shape.value_heads);
    std::vector<DeltaProblem> problems;
    for (int64_t rows : {1, 63, 64, 2, 65, 200}) problems.emplace_back(random, shape, rows);
    const int64_t stride = problems[0].state_size() + 3;
    HostBatch host;
    std::vector<float> qkv, a, b;
    std::vector<float> states = poisoned(static_cast<int64_t>(problems.size()) * stride);
    for (const DeltaProblem& problem : problems) {
      const auto i = static_cast<int32_t>(host.sequence.size());
      host.add(static_cast<int32_t>(problem.rows), i == 2 ? -1 : i);
      host.state_out.back() = i;
      qkv.insert(qkv.end(), problem.qkv.begin(), problem.qkv.end());
      a.insert(a.end(), problem.a.begin(), problem.a.end());
      b.insert(b.end(), problem.b.begin(), problem.b.end());
      if (i != 2)
        std::copy(problem.state.begin(), problem.state.end(), states.begin() + i * stride);
    }
    const DeviceBatch device(host);
    const OnDevice<float> dqkv(qkv), da(a), db(b), dlog(weights.a_log), dbias(weights.dt_bias);
    const OnDevice<float> dstates(states);
    const int64_t out_width = problems[0].out_width();
    const OnDevice<float> dout(poisoned(device.batch.rows * out_width));
    gated_delta(nullptr, device.batch, shape,
                {dqkv.get(), problems[0].qkv_width(), da.get(), db.get(), shape.value_heads,
                 dlog.get(), dbias.get()},
                {dstates.get(), stride}, dout.get(), out_width);
    const std::vector<float> out = dout.values(), after = dstates.values();
    for (size_t i = 0; i < problems.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "key_dim " << shape.key_dim << ", sequence " << i);
      compare(problems[i], weights, i == 2, out.data() + host.sequence[i].first_row * out_width,
              after.data() + static_cast<int64_t>(i) * stride);
      if (HasFatalFailure()) return;
      for (int64_t j = stride - 3; j < stride; ++j)
        ASSERT_TRUE(std::isnan(after[static_cast<size_t>(static_cast<int64_t>(i) * stride + j)]));
    }
  }
}

// One sequence, whole or in random cuts behind a companion: outputs and the state after every row.
std::vector<float> run(Random& random, const DeltaProblem& problem, const HeadWeights& weights,
                       bool whole) {
  const GatedDeltaShape& shape = problem.shape;
  const int64_t stride = problem.state_size();
  const OnDevice<float> dlog(weights.a_log), dbias(weights.dt_bias);
  const OnDevice<float> states(poisoned(problem.rows * stride));  // slot t: after row t
  std::vector<float> result;
  for (int64_t begin = 0; begin < problem.rows;) {
    const int64_t rows =
        whole ? problem.rows : std::min(random.integer(1, 9), problem.rows - begin);
    const DeltaProblem companion(random, shape, whole ? 0 : 2);
    HostBatch host;
    if (!whole) host.add(2);
    const int32_t first = host.add(static_cast<int32_t>(rows), static_cast<int32_t>(begin) - 1);
    for (int64_t t = 0; t < rows; ++t)
      host.state_out[static_cast<size_t>(first + t)] = static_cast<int32_t>(begin + t);
    const auto joined = [&](const std::vector<float>& ahead, const std::vector<float>& of,
                            int64_t width) {
      std::vector<float> both = ahead;
      both.insert(both.end(), of.begin() + begin * width, of.begin() + (begin + rows) * width);
      return both;
    };
    const DeviceBatch device(host);
    const OnDevice<float> dqkv(joined(companion.qkv, problem.qkv, problem.qkv_width()));
    const OnDevice<float> da(joined(companion.a, problem.a, shape.value_heads));
    const OnDevice<float> db(joined(companion.b, problem.b, shape.value_heads));
    const OnDevice<float> dout(poisoned(device.batch.rows * problem.out_width()));
    gated_delta(nullptr, device.batch, shape,
                {dqkv.get(), problem.qkv_width(), da.get(), db.get(), shape.value_heads, dlog.get(),
                 dbias.get()},
                {states.get(), stride}, dout.get(), problem.out_width());
    const std::vector<float> out = dout.values();
    result.insert(result.end(), out.end() - rows * problem.out_width(), out.end());
    begin += rows;
  }
  const std::vector<float> after = states.values();
  result.insert(result.end(), after.begin(), after.end());
  return result;
}

TEST_F(CudaOps, GatedDeltaSameBitsHoweverSplit) {
  Random random(22);
  for (const GatedDeltaShape& shape : shapes) {
    const HeadWeights weights(random, shape.value_heads);
    const DeltaProblem problem(random, shape, random.integer(5, 70));
    const std::vector<float> whole = run(random, problem, weights, true);
    for (float value : whole) ASSERT_FALSE(std::isnan(value));
    expect_same_bits(run(random, problem, weights, false), whole);
  }
}

}  // namespace
}  // namespace qnext::ops::cuda
