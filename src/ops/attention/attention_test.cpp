#include "ops/attention/attention.h"

#include <algorithm>
#include <numeric>

#include "ops/activation/activation.h"
#include "ops/activation/op_test.h"
#include "tensor/blocks.h"

namespace qnext::ops {
namespace {

// One sequence's queries, keys, values and gates, and what the oracle makes of them.
struct Problem {
  AttentionShape shape;
  DType dtype;
  int64_t positions;
  float scale;
  std::vector<float> q, k, v;  // q with the gate behind each head's query

  Problem(Random& random, AttentionShape shape_, DType dtype_, int64_t positions_)
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
  // One head's row as the cache holds it, appended to `out`.
  void add_stored(const float* row, std::vector<double>& out) const {
    if (dtype == DType::q8_0) {
      for (int64_t d = 0; d < shape.head_dim; d += block_values) {
        BlockQ8_0 block;
        float values[block_values];
        encode(row + d, block);
        decode(block, values);
        out.insert(out.end(), values, values + block_values);
      }
      return;
    }
    for (int64_t d = 0; d < shape.head_dim; ++d)
      out.push_back(static_cast<double>(dtype == DType::bf16 ? bf16_to_float(float_to_bf16(row[d]))
                                                             : row[d]));
  }
};

// The types in which a cache may hold heads of this size.
std::vector<DType> cache_types(const AttentionShape& shape) {
  std::vector<DType> types{DType::f32, DType::bf16};
  if (shape.head_dim % block_values == 0) types.push_back(DType::q8_0);
  return types;
}

// A cache of shuffled pages, NaN wherever nobody wrote.
class Cache {
 public:
  Cache(Random& random, const Problem& problem)
      : pages_(static_cast<size_t>((problem.positions + problem.shape.page_tokens - 1) /
                                   problem.shape.page_tokens)) {
    const size_t page_bytes = kv_page_bytes(problem.shape, problem.dtype);
    memory_.assign(page_bytes * pages_.size() / sizeof(float) + 1,
                   std::numeric_limits<float>::quiet_NaN());
    // NaN in bf16, and as the f16 factor of a block.
    if (problem.dtype != DType::f32)
      std::fill_n(reinterpret_cast<uint16_t*>(memory_.data()), memory_.size() * 2,
                  uint16_t{0x7FC0});
    std::iota(pages_.begin(), pages_.end(), 0);
    for (size_t i = pages_.size(); i > 1; --i)
      std::swap(pages_[i - 1],
                pages_[static_cast<size_t>(random.integer(0, static_cast<int64_t>(i) - 1))]);
    cache = {memory_.data(), static_cast<int64_t>(page_bytes), problem.dtype};
  }
  const int32_t* pages() const { return pages_.data(); }

  KvCache cache;

 private:
  std::vector<float> memory_;
  std::vector<int32_t> pages_;
};

// Rows [begin, begin + rows) of the problem: written to the cache, then attended to.
void run(ThreadPool& pool, const Problem& problem, const Cache& cache, int64_t begin, int64_t rows,
         bool gated, std::vector<float>& out) {
  const AttentionSequence sequence{begin, rows, begin, cache.pages()};
  kv_write(pool, problem.shape, cache.cache, problem.k.data(), problem.v.data(), problem.kv_width(),
           {&sequence, 1});
  std::vector<float> workspace = poisoned(static_cast<int64_t>(
      attention_workspace(problem.shape, {&sequence, 1}, pool.size()) / sizeof(float)));
  const int64_t dim = problem.shape.head_dim;
  const AttentionInputs inputs{
      problem.q.data(),  problem.q_width(), 2 * dim,      gated ? problem.q.data() + dim : nullptr,
      problem.q_width(), 2 * dim,           problem.scale};
  attention(pool, problem.shape, cache.cache, inputs, {&sequence, 1}, out.data(),
            problem.out_width(), workspace.data());
}

// The first `rows` positions to the cache, without attending.
void fill(ThreadPool& pool, const Problem& problem, const Cache& cache, int64_t rows) {
  const AttentionSequence sequence{0, rows, 0, cache.pages()};
  kv_write(pool, problem.shape, cache.cache, problem.k.data(), problem.v.data(), problem.kv_width(),
           {&sequence, 1});
}

// All rows from `first` on in one chunk; the output of earlier ones stays poisoned.
std::vector<float> run_whole(Random& random, const Problem& problem, bool gated, int threads,
                             int64_t first = 0) {
  ThreadPool pool(threads);
  const Cache cache(random, problem);
  std::vector<float> out = poisoned(problem.positions * problem.out_width());
  fill(pool, problem, cache, first);
  run(pool, problem, cache, first, problem.positions - first, gated, out);
  return out;
}

std::vector<double> oracle(const Problem& problem, int64_t row, int64_t head, bool gated) {
  const int64_t dim = problem.shape.head_dim;
  const int64_t kv_head = head / (problem.shape.query_heads / problem.shape.kv_heads);
  std::vector<double> keys;
  std::vector<double> values;
  for (int64_t j = 0; j <= row; ++j) {
    const size_t at = static_cast<size_t>(j * problem.kv_width() + kv_head * dim);
    problem.add_stored(&problem.k[at], keys);
    problem.add_stored(&problem.v[at], values);
  }
  const float* q = problem.q.data() + row * problem.q_width() + head * 2 * dim;
  std::vector<double> out(static_cast<size_t>(dim));
  attention_oracle(widened(q, dim).data(), keys.data(), values.data(), row + 1, dim,
                   static_cast<double>(problem.scale), out.data());
  if (gated)
    for (int64_t d = 0; d < dim; ++d)
      out[static_cast<size_t>(d)] *= sigmoid(static_cast<double>(q[dim + d]));
  return out;
}

// Scores: |s| <= scale |q| |k| <= 2 * sqrt(dim) * 3 in these inputs, each the sum of dim products
// in at most dim / 4 + 4 roundings (scalar kernel); twice that error, relative, in p. Sums over
// positions average values below 6 in at most positions + 8 roundings, positions / 8 blocks are
// rescaled once each; exp, gate and quotient add some sixteen.
double tolerance(const Problem& problem) {
  const double dim = static_cast<double>(problem.shape.head_dim);
  const double score_error = 6 * std::sqrt(dim) * (dim / 4 + 8);
  return 6 * (2 * score_error + static_cast<double>(problem.positions) + 32) * unit_roundoff;
}

// Query heads, kv heads, head_dim, page_tokens.
constexpr AttentionShape shapes[] = {{1, 1, 24, 4},   {4, 2, 20, 16},   {3, 1, 96, 64},
                                     {10, 2, 32, 16}, {7, 1, 16, 64},   {16, 2, 256, 16},
                                     {6, 3, 1, 4},    {2, 2, 128, 2048}};

TEST(Attention, MatchesOracle) {
  on_every_isa([] {
    Random random(1);
    for (const AttentionShape& shape : shapes) {
      for (DType dtype : cache_types(shape)) {
        for (bool gated : {false, true}) {
          const Problem problem(random, shape, dtype, random.integer(1, 150));
          const std::vector<float> out = run_whole(random, problem, gated, 2);
          for (int64_t row = 0; row < problem.positions; row += row % 3 + 1)
            for (int64_t head = 0; head < shape.query_heads; ++head)
              expect_close(out.data() + row * problem.out_width() + head * shape.head_dim,
                           oracle(problem, row, head, gated), tolerance(problem));
        }
      }
    }
  });
}

TEST(Attention, LongContextMatchesOracle) {
  on_every_isa([] {
    Random random(2);
    for (const auto& [dim, dtype] : {std::pair(24, DType::f32), std::pair(32, DType::q8_0)}) {
      const Problem problem(random, {2, 1, dim, 64}, dtype, 2 * attention_split + 20);
      const int64_t first = 2 * attention_split - 10;
      const std::vector<float> out = run_whole(random, problem, true, 2, first);
      for (int64_t row : {first, first + 9, first + 10, problem.positions - 1})
        for (int64_t head = 0; head < 2; ++head)
          expect_close(out.data() + row * problem.out_width() + head * dim,
                       oracle(problem, row, head, true), tolerance(problem));
    }
  });
}

TEST(Attention, SameBitsHoweverSplit) {
  on_every_isa([] {
    Random random(3);
    for (size_t round = 0; round < 32; ++round) {
      const AttentionShape& shape = shapes[round % 8];
      const std::vector<DType> types = cache_types(shape);
      const Problem problem(random, shape, types[round / 8 % types.size()], random.integer(1, 140));
      const std::vector<float> whole = run_whole(random, problem, true, 1);
      const Cache cache(random, problem);
      std::vector<float> out = poisoned(problem.positions * problem.out_width());
      ThreadPool pool(static_cast<int>(random.integer(1, 5)));
      for (int64_t begin = 0; begin < problem.positions;) {
        const int64_t rows = std::min(random.integer(1, 20), problem.positions - begin);
        run(pool, problem, cache, begin, rows, true, out);
        begin += rows;
      }
      expect_same_bits(out, whole);
    }
  });
}

// Across the borders between pieces: one long chunk works piece after piece, short ones side by
// side.
TEST(Attention, SameBitsAcrossPieces) {
  on_every_isa([] {
    Random random(4);
    struct Case {
      int64_t head_dim;
      int64_t page_tokens;
      DType dtype;
    };
    for (const Case& c : {Case{20, 4, DType::bf16}, Case{20, 64, DType::bf16},
                          Case{32, 16, DType::q8_0}, Case{64, 64, DType::q8_0}}) {
      const Problem problem(random, {3, 1, c.head_dim, c.page_tokens}, c.dtype,
                            2 * attention_split + 40);
      for (int64_t first : {attention_split - 40, 2 * attention_split - 40}) {
        const std::vector<float> whole = run_whole(random, problem, true, 2, first);
        const Cache cache(random, problem);
        std::vector<float> out = poisoned(problem.positions * problem.out_width());
        ThreadPool pool(3);
        fill(pool, problem, cache, first);
        const int64_t last = first + 80;
        for (int64_t begin = first; begin < last;) {
          const int64_t rows = std::min(random.integer(1, 16), last - begin);
          run(pool, problem, cache, begin, rows, true, out);
          begin += rows;
        }
        const auto part = [&](const std::vector<float>& x) {
          return std::vector<float>(x.begin() + first * problem.out_width(),
                                    x.begin() + last * problem.out_width());
        };
        expect_same_bits(part(out), part(whole));
      }
    }
  });
}

// Two sequences in one batch give what each gives alone, whatever the page size.
TEST(Attention, SameBitsInABatch) {
  on_every_isa([] {
    Random random(5);
    for (int64_t page_tokens : {4, 16, 64}) {
      Problem problem(random, {8, 2, 24, page_tokens}, DType::f32, attention_split + 90);
      const int64_t shorter = 75;
      const std::vector<float> alone =
          run_whole(random, problem, true, 1, problem.positions - shorter - 4);
      // The same tokens once more behind the first, as a second sequence that ends earlier.
      const int64_t second = problem.positions - shorter;
      problem.k.insert(problem.k.end(), problem.k.begin(),
                       problem.k.begin() + second * problem.kv_width());
      problem.v.insert(problem.v.end(), problem.v.begin(),
                       problem.v.begin() + second * problem.kv_width());
      problem.q.insert(problem.q.end(), problem.q.begin(),
                       problem.q.begin() + second * problem.q_width());
      const int64_t first = problem.positions;
      // Pages of the two sequences alternate.
      std::vector<char> joined(2 * kv_page_bytes(problem.shape, problem.dtype) *
                               static_cast<size_t>((first + page_tokens - 1) / page_tokens));
      std::fill_n(reinterpret_cast<float*>(joined.data()), joined.size() / sizeof(float),
                  std::numeric_limits<float>::quiet_NaN());
      const KvCache both{joined.data(),
                         static_cast<int64_t>(kv_page_bytes(problem.shape, problem.dtype)),
                         problem.dtype};
      std::vector<int32_t> even;
      std::vector<int32_t> odd;
      for (int32_t page = 0; page < (first + page_tokens - 1) / page_tokens; ++page) {
        even.push_back(2 * page);
        odd.push_back(2 * page + 1);
      }
      ThreadPool pool(3);
      const AttentionInputs inputs{problem.q.data(),      problem.q_width(), 48,
                                   problem.q.data() + 24, problem.q_width(), 48,
                                   problem.scale};
      std::vector<float> out = poisoned((first + second) * problem.out_width());
      const AttentionSequence filled[] = {{0, first, 0, even.data()},
                                          {first, second, 0, odd.data()}};
      kv_write(pool, problem.shape, both, problem.k.data(), problem.v.data(), problem.kv_width(),
               filled);
      const AttentionSequence last[] = {{first - 4, 4, first - 4, even.data()},
                                        {first + second - 4, 4, second - 4, odd.data()}};
      std::vector<float> workspace = poisoned(static_cast<int64_t>(
          attention_workspace(problem.shape, last, pool.size()) / sizeof(float)));
      attention(pool, problem.shape, both, inputs, last, out.data(), problem.out_width(),
                workspace.data());
      for (const auto& [at, alone_at] :
           {std::pair(first - 4, first - 4), std::pair(first + second - 4, second - 4)}) {
        const auto four_rows = [&](const std::vector<float>& x, int64_t row) {
          return std::vector<float>(x.begin() + row * problem.out_width(),
                                    x.begin() + (row + 4) * problem.out_width());
        };
        expect_same_bits(four_rows(out, at), four_rows(alone, alone_at));
      }
    }
  });
}

// A later position's infinite value must not reach an earlier row of the same chunk.
TEST(Attention, LaterPositionsDoNotSpoilEarlierRows) {
  on_every_isa([] {
    Random random(6);
    for (DType dtype : {DType::f32, DType::bf16, DType::q8_0}) {
      Problem problem(random, {4, 2, 32, 16}, dtype, 40);
      const std::vector<float> expected = run_whole(random, problem, false, 1);
      for (int64_t d = 0; d < problem.kv_width(); ++d)
        problem.v[static_cast<size_t>(30 * problem.kv_width() + d)] =
            std::numeric_limits<float>::infinity();
      std::vector<float> out = run_whole(random, problem, false, 1);
      EXPECT_FALSE(std::isfinite(out[static_cast<size_t>(30 * problem.out_width())]));
      const size_t before = static_cast<size_t>(30 * problem.out_width());
      expect_same_bits({out.begin(), out.begin() + static_cast<int64_t>(before)},
                       {expected.begin(), expected.begin() + static_cast<int64_t>(before)});
    }
  });
}

// Scores of hundreds: every position but one has probability zero.
TEST(Attention, ExtremeScores) {
  on_every_isa([] {
    Random random(7);
    Problem problem(random, {2, 1, 16, 4}, DType::f32, 100);
    for (float& value : problem.q) value *= 1000;
    const std::vector<float> out = run_whole(random, problem, false, 1);
    for (float value : out) ASSERT_TRUE(std::isfinite(value));
  });
}

TEST(KvWrite, RoundsToBf16AsTheTensorCodec) {
  on_every_isa([] {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float infinity = std::numeric_limits<float>::infinity();
    std::vector<float> values{0.0f,    -0.0f,    1.0f,      1.00390625f, 1.01171875f, 3e38f,
                              3.4e38f, infinity, -infinity, nan,         1e-40f,      -1e-45f};
    Random random(8);
    while (values.size() < 35) values.push_back(random.normal(1e5f));
    const AttentionShape shape{1, 1, 35, 1};
    std::vector<uint16_t> page(70);
    const int32_t first_page = 0;
    const AttentionSequence sequence{0, 1, 0, &first_page};
    ThreadPool pool(1);
    kv_write(pool, shape, {page.data(), 140, DType::bf16}, values.data(), values.data(), 35,
             {&sequence, 1});
    for (size_t i = 0; i < 35; ++i) {
      EXPECT_EQ(page[i], float_to_bf16(values[i])) << values[i];
      EXPECT_EQ(page[i + 35], page[i]);
    }
  });
}

TEST(KvWrite, EncodesQ8_0AsTheBlockCodec) {
  on_every_isa([] {
    Random random(9);
    const AttentionShape shape{2, 2, 96, 4};
    constexpr int64_t width = 2 * 96;
    std::vector<float> keys = random.normals(width);
    std::vector<float> values = random.normals(width, 1e-6f);
    keys[3] = 1e4f;  // alone in its block
    std::fill_n(keys.begin() + 32, 32, 0.0f);
    values[40] = std::numeric_limits<float>::quiet_NaN();
    const size_t page_bytes = kv_page_bytes(shape, DType::q8_0);
    ASSERT_EQ(page_bytes, 2 * 2 * 4 * 96 / block_values * sizeof(BlockQ8_0));
    constexpr auto untouched = std::byte{0xA5};
    std::vector<std::byte> page(page_bytes, untouched);
    const int32_t first_page = 0;
    const AttentionSequence sequence{0, 1, 2, &first_page};
    ThreadPool pool(1);
    kv_write(pool, shape, {page.data(), static_cast<int64_t>(page_bytes), DType::q8_0}, keys.data(),
             values.data(), width, {&sequence, 1});
    constexpr size_t row_bytes = 3 * sizeof(BlockQ8_0);
    for (size_t part = 0; part < 4; ++part) {
      const float* head = (part < 2 ? keys : values).data() + part % 2 * 96;
      BlockQ8_0 expected[3];
      for (int b = 0; b < 3; ++b) encode(head + b * block_values, expected[b]);
      const std::byte* row = page.data() + (part * 4 + 2) * row_bytes;
      EXPECT_EQ(std::memcmp(row, expected, row_bytes), 0) << part;
      // Other positions stay as they were.
      EXPECT_EQ(row[-1], untouched);
      EXPECT_EQ(row[row_bytes], untouched);
    }
  });
}

}  // namespace
}  // namespace qnext::ops
