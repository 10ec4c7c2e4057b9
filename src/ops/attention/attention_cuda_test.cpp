#include "ops/attention/attention_cuda.h"

#include <algorithm>
#include <numeric>

#include "ops/activation/activation.h"
#include "ops/cuda_test.h"

namespace qnext::ops::cuda {
namespace {

// One sequence's queries, keys and values from position 0 on.
struct AttentionProblem {
  AttentionShape shape;
  DType dtype;
  int64_t positions;
  float scale;
  std::vector<float> q, k, v;  // q with the gate behind each head's query

  AttentionProblem(Random& random, const AttentionShape& shape_, DType dtype_, int64_t positions_)
      : shape(shape_),
        dtype(dtype_),
        positions(positions_),
        scale(1 / std::sqrt(static_cast<float>(shape.head_dim))),
        q(random.normals(positions * q_width(), 2)),
        k(random.normals(positions * kv_width())),
        v(random.normals(positions * kv_width())) {}
  int64_t q_width() const { return shape.query_heads * 2 * shape.head_dim; }
  int64_t kv_width() const { return shape.kv_heads * shape.head_dim; }
  int64_t out_width() const { return shape.query_heads * shape.head_dim; }
  float stored(float x) const { return dtype == DType::bf16 ? bf16_to_float(float_to_bf16(x)) : x; }
  int32_t pages() const {
    return static_cast<int32_t>((positions + shape.page_tokens - 1) / shape.page_tokens);
  }
};

// Device pages in random order for several sequences; all bits set (a NaN in both types) wherever
// nobody wrote.
class Pages {
 public:
  Pages(Random& random, const AttentionProblem& like, int32_t pages)
      : page_bytes_(like.shape.kv_heads * like.shape.page_tokens * like.shape.head_dim * 2 *
                    (like.dtype == DType::bf16 ? 2 : 4)),
        memory_(std::vector<uint8_t>(static_cast<size_t>(page_bytes_ * pages), 0xFF)),
        free_(static_cast<size_t>(pages)),
        cache{memory_.get(), page_bytes_, like.dtype} {
    std::iota(free_.begin(), free_.end(), 0);
    for (size_t i = free_.size(); i > 1; --i)
      std::swap(free_[i - 1],
                free_[static_cast<size_t>(random.integer(0, static_cast<int64_t>(i) - 1))]);
  }
  std::vector<int32_t> take(int32_t count) {
    const std::vector<int32_t> taken(free_.end() - count, free_.end());
    free_.resize(free_.size() - static_cast<size_t>(count));
    return taken;
  }

 private:
  int64_t page_bytes_;
  OnDevice<uint8_t> memory_;
  std::vector<int32_t> free_;

 public:
  KvCache cache;
};

// Some rows of some sequences in one step.
struct Part {
  const AttentionProblem* problem;
  std::vector<int32_t> pages;
  int64_t begin, rows;
};

std::vector<float> step(const std::vector<Part>& parts, const KvCache& cache, bool gated) {
  const AttentionProblem& like = *parts[0].problem;
  const int64_t dim = like.shape.head_dim;
  HostBatch host;
  std::vector<float> q, k, v;
  for (const Part& part : parts) {
    host.add(static_cast<int32_t>(part.rows), -1, static_cast<int32_t>(part.begin), part.pages);
    const auto append = [&](std::vector<float>& to, const std::vector<float>& from, int64_t width) {
      to.insert(to.end(), from.begin() + part.begin * width,
                from.begin() + (part.begin + part.rows) * width);
    };
    append(q, part.problem->q, like.q_width());
    append(k, part.problem->k, like.kv_width());
    append(v, part.problem->v, like.kv_width());
  }
  const DeviceBatch device(host);
  const OnDevice<float> dq(q), dk(k), dv(v);
  const OnDevice<float> out(poisoned(device.batch.rows * like.out_width()));
  kv_write(nullptr, device.batch, like.shape, cache, dk.get(), dv.get(), like.kv_width());
  attention(nullptr, device.batch, like.shape, cache,
            {dq.get(), like.q_width(), 2 * dim, gated ? dq.get() + dim : nullptr, like.q_width(),
             2 * dim, like.scale},
            out.get(), like.out_width());
  return out.values();
}

std::vector<double> oracle(const AttentionProblem& problem, int64_t row, int64_t head, bool gated) {
  const int64_t dim = problem.shape.head_dim;
  const int64_t kv_head = head / (problem.shape.query_heads / problem.shape.kv_heads);
  std::vector<double> keys, values;
  for (int64_t j = 0; j <= row; ++j) {
    for (int64_t d = 0; d < dim; ++d) {
      const auto at = static_cast<size_t>(j * problem.kv_width() + kv_head * dim + d);
      keys.push_back(static_cast<double>(problem.stored(problem.k[at])));
      values.push_back(static_cast<double>(problem.stored(problem.v[at])));
    }
  }
  const float* q = problem.q.data() + row * problem.q_width() + head * 2 * dim;
  std::vector<double> out(static_cast<size_t>(dim));
  attention_oracle(widened(q, dim).data(), keys.data(), values.data(), row + 1, dim,
                   static_cast<double>(problem.scale), out.data());
  if (gated)
    for (int64_t d = 0; d < dim; ++d)
      out[static_cast<size_t>(d)] *= ops::sigmoid(static_cast<double>(q[dim + d]));
  return out;
}

// Worst case. Scores: |s| <= scale |q| |k| <= 2 * sqrt(dim) * 3 in these inputs, each the sum of
// dim products in at most dim / 32 + 8 roundings; twice that error, relative, in p. Sums over
// positions average values below 6 in at most positions + 8 roundings; exp, gate and quotient add
// some sixteen.
double tolerance(const AttentionProblem& problem) {
  const auto dim = static_cast<double>(problem.shape.head_dim);
  const double score_error = 6 * std::sqrt(dim) * (dim / 32 + 8);
  return 6 * (2 * score_error + static_cast<double>(problem.positions) + 32) * unit_roundoff;
}

// Query heads, kv heads, head_dim, page_tokens.
constexpr AttentionShape shapes[] = {{1, 1, 16, 4},    {4, 2, 20, 16}, {3, 1, 128, 64},
                                     {16, 2, 256, 64}, {6, 3, 1, 4},   {2, 1, 300, 128},
                                     {2, 2, 1024, 16}};

// Whole prompts of several sequences in one batch.
TEST_F(CudaOps, Attention) {
  Random random(31);
  for (const AttentionShape& shape : shapes) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      std::vector<AttentionProblem> problems;
      for (int64_t positions : {1, 63, 64, 65, 200})
        problems.emplace_back(random, shape, dtype, positions);
      for (bool gated : {false, true}) {
        int32_t pages_needed = 0;
        for (const AttentionProblem& problem : problems) pages_needed += problem.pages();
        Pages pages(random, problems[0], pages_needed);
        std::vector<Part> parts;
        for (const AttentionProblem& problem : problems)
          parts.push_back({&problem, pages.take(problem.pages()), 0, problem.positions});
        const std::vector<float> out = step(parts, pages.cache, gated);
        const float* rows_out = out.data();
        for (const AttentionProblem& problem : problems) {
          SCOPED_TRACE(testing::Message()
                       << "head_dim " << shape.head_dim << ", positions " << problem.positions);
          std::vector<float> actual;
          std::vector<double> expected;
          for (int64_t row = 0; row < problem.positions;
               row += row + 4 < problem.positions ? 4 : 1) {
            for (int64_t head = 0; head < shape.query_heads; ++head) {
              const float* at = rows_out + row * problem.out_width() + head * shape.head_dim;
              const std::vector<double> of_head = oracle(problem, row, head, gated);
              expect_close(at, of_head, tolerance(problem));
              if (HasFatalFailure()) return;
              actual.insert(actual.end(), at, at + shape.head_dim);
              expected.insert(expected.end(), of_head.begin(), of_head.end());
            }
          }
          // Independent roundings grow as their root; 4 stands for exp's argument, whose error
          // grows with the score.
          const double terms = static_cast<double>(shape.head_dim + problem.positions) + 32;
          EXPECT_LT(relative_rms_error(actual.data(), expected),
                    4 * std::sqrt(terms) * unit_roundoff);
          rows_out += problem.positions * problem.out_width();
        }
      }
    }
  }
}

// Random cuts, a second sequence in some of the steps, other pages.
TEST_F(CudaOps, AttentionSameBitsHoweverSplit) {
  Random random(32);
  for (int round = 0; round < 14; ++round) {
    const DType dtype = round % 3 == 0 ? DType::bf16 : DType::f32;
    const AttentionProblem problem(random, shapes[round % 7], dtype, random.integer(1, 200));
    const AttentionProblem other(random, shapes[round % 7], dtype, 70);
    Pages pages(random, problem, 2 * problem.pages() + other.pages());
    const std::vector<float> whole =
        step({{&problem, pages.take(problem.pages()), 0, problem.positions}}, pages.cache, true);
    const std::vector<int32_t> mine = pages.take(problem.pages());
    const std::vector<int32_t> others = pages.take(other.pages());
    std::vector<float> out;
    for (int64_t begin = 0; begin < problem.positions;) {
      const int64_t rows = std::min(random.integer(1, 70), problem.positions - begin);
      std::vector<Part> parts;
      if (random.integer(0, 1) == 1) parts.push_back({&other, others, 0, random.integer(1, 70)});
      parts.push_back({&problem, mine, begin, rows});
      const std::vector<float> both = step(parts, pages.cache, true);
      out.insert(out.end(), both.end() - rows * problem.out_width(), both.end());
      begin += rows;
    }
    expect_same_bits(out, whole);
  }
}

// A later position's infinite value must not reach an earlier row of the same chunk.
TEST_F(CudaOps, AttentionReadsNoLaterPosition) {
  Random random(33);
  AttentionProblem problem(random, {4, 2, 20, 16}, DType::f32, 100);
  Pages pages(random, problem, 2 * problem.pages());
  const std::vector<float> expected =
      step({{&problem, pages.take(problem.pages()), 0, 100}}, pages.cache, false);
  const int64_t from = 80;
  std::fill_n(problem.v.begin() + from * problem.kv_width(), problem.kv_width(),
              std::numeric_limits<float>::infinity());
  const std::vector<float> out =
      step({{&problem, pages.take(problem.pages()), 0, 100}}, pages.cache, false);
  EXPECT_FALSE(std::isfinite(out[static_cast<size_t>(from * problem.out_width())]));
  expect_same_bits(slice(out, 0, from * problem.out_width()),
                   slice(expected, 0, from * problem.out_width()));
}

// Scores of hundreds: every position but one has probability zero.
TEST_F(CudaOps, AttentionExtremeScores) {
  Random random(34);
  AttentionProblem problem(random, {2, 1, 16, 4}, DType::f32, 100);
  for (float& value : problem.q) value *= 1000;
  Pages pages(random, problem, problem.pages());
  for (float value : step({{&problem, pages.take(problem.pages()), 0, 100}}, pages.cache, false))
    ASSERT_TRUE(std::isfinite(value));
}

TEST_F(CudaOps, KvWriteRoundsAsTheTensorCodec) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> values{0.0f,    -0.0f,    1.0f,      1.00390625f, 1.01171875f, 3e38f,
                            3.4e38f, infinity, -infinity, 1e-40f,      -1e-45f};
  Random random(35);
  while (values.size() < 35) values.push_back(random.normal(1e5f));
  HostBatch host;
  host.add(1, -1, 0, {0});
  const DeviceBatch device(host);
  const OnDevice<float> dv(values);
  const OnDevice<uint16_t> page(std::vector<uint16_t>(70, 0x7FC0));
  kv_write(nullptr, device.batch, {1, 1, 35, 1}, {page.get(), 140, DType::bf16}, dv.get(), dv.get(),
           35);
  const std::vector<uint16_t> actual = page.values();
  for (size_t i = 0; i < 35; ++i) {
    EXPECT_EQ(actual[i], float_to_bf16(values[i])) << values[i];
    EXPECT_EQ(actual[i + 35], actual[i]);
  }
}

}  // namespace
}  // namespace qnext::ops::cuda
