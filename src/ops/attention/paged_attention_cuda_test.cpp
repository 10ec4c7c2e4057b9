#include "ops/attention/paged_attention_cuda.h"

#include <algorithm>
#include <numeric>

#include "ops/attention/attention.h"
#include "ops/cuda_test.h"
#include "ops/matmul/f8_rows_test.h"
#include "tensor/dtype.h"

namespace qnext::ops::cuda {
namespace {

// Half a unit in the last place, relative.
constexpr double bf16_roundoff = 0x1p-8;
constexpr double f16_roundoff = 0x1p-11;
constexpr double f8_roundoff = 0x1p-4;
constexpr double f8_smallest_half = 0x1p-10;  // half the step of its subnormal numbers

double value_of(Bf16 bits) {
  return static_cast<double>(bf16_to_float(bits));
}
double value_of_f8(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return bits & 0x80 ? -magnitude : magnitude;
}

// Normal values; beyond the first million, stretches of them from random places.
std::vector<Bf16> random_bf16(Random& random, int64_t count, float deviation) {
  constexpr int64_t drawn = 1 << 20, stretch = 1000;
  std::vector<Bf16> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < std::min(drawn, count); ++i)
    values[static_cast<size_t>(i)] = float_to_bf16(random.normal(deviation));
  for (int64_t i = drawn; i < count; i += stretch)
    std::copy_n(values.begin() + random.integer(0, drawn - stretch), std::min(stretch, count - i),
                values.begin() + i);
  return values;
}

// One sequence's projections from position 0 on: [positions][q and gate | k | v].
struct Problem {
  PagedShape shape;
  int64_t positions;
  int64_t half;
  std::vector<Bf16> projections;
  std::vector<float> cosine, sine;

  Problem(Random& random, const PagedShape& shape_, int64_t positions_)
      : shape(shape_),
        positions(positions_),
        half(shape.head_dim / 8),
        projections(random_bf16(random, positions * width(), 2)) {
    for (int64_t i = 0; i < positions * half; ++i) {
      const double angle = static_cast<double>(random.normal(3));
      cosine.push_back(static_cast<float>(std::cos(angle)));
      sine.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  int64_t q_width() const { return shape.query_heads * 2 * shape.head_dim; }
  int64_t kv_width() const { return shape.kv_heads * shape.head_dim; }
  int64_t width() const { return q_width() + 2 * kv_width(); }
  int64_t out_width() const { return shape.query_heads * shape.head_dim; }
  int32_t pages(int64_t of_positions) const {
    return static_cast<int32_t>((of_positions + page_positions - 1) / page_positions);
  }
};

// Some rows of a sequence in one step.
struct Part {
  const Problem* problem;
  std::vector<int32_t> pages;
  int64_t begin, rows;
};

// row: the preparation, too, in the launch of attention.
enum class Form { none, answer, row, prompt };

struct Result {
  std::vector<Bf16> q, out;
};

// A cache of one shape with random pages and norm weights; all bits set (NaN in both formats)
// wherever nobody wrote.
class World {
 public:
  World(Random& random, const PagedShape& shape, int32_t pages)
      : shape_(shape),
        stride_(paged_page_bytes(shape) + 128),
        memory_(std::vector<uint8_t>(static_cast<size_t>(stride_ * pages), 0xFF)),
        free_(static_cast<size_t>(pages)),
        q_norm(random.normals(shape.head_dim, 0.2f)),
        k_norm(random.normals(shape.head_dim, 0.2f)),
        device_q_norm_(q_norm),
        device_k_norm_(k_norm) {
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

  // Prepares the rows of all parts, then lets them attend. most_rows, longest: 0: what they are.
  Result step(const std::vector<Part>& parts, Form form, int64_t most_rows = 0,
              int64_t longest = 0) const {
    const Problem& like = *parts[0].problem;
    HostBatch host;
    std::vector<Bf16> projections;
    std::vector<float> cosine, sine;
    for (const Part& part : parts) {
      host.add(static_cast<int32_t>(part.rows), -1, static_cast<int32_t>(part.begin), part.pages);
      const auto append = [&](auto& to, const auto& from, int64_t width) {
        to.insert(to.end(), from.begin() + part.begin * width,
                  from.begin() + (part.begin + part.rows) * width);
      };
      append(projections, part.problem->projections, like.width());
      append(cosine, part.problem->cosine, like.half);
      append(sine, part.problem->sine, like.half);
      most_rows = std::max(most_rows, part.rows);
      longest = std::max(longest, part.begin + part.rows);
    }
    const DeviceBatch device(host);
    const int64_t rows = device.batch.rows;
    const OnDevice<Bf16> from(projections);
    const OnDevice<float> device_cosine(cosine), device_sine(sine);
    const std::vector<Bf16> poison(static_cast<size_t>(rows * like.out_width()), 0xFFFF);
    const OnDevice<Bf16> q(poison), out(poison);
    const PagedCache cache{reinterpret_cast<std::byte*>(memory_.get()), stride_};
    const PagedProjections inputs{from.get(),
                                  like.width(),
                                  from.get() + like.q_width(),
                                  like.width(),
                                  from.get() + like.q_width() + like.kv_width(),
                                  like.width(),
                                  device_q_norm_.get(),
                                  device_k_norm_.get(),
                                  eps,
                                  device_cosine.get(),
                                  device_sine.get(),
                                  like.half};
    if (form != Form::row)
      paged_prepare(nullptr, device.batch, shape_, cache, inputs, q.get(), like.out_width());
    const PagedAttention attention{q.get(),
                                   like.out_width(),
                                   from.get() + shape_.head_dim,
                                   like.width(),
                                   static_cast<float>(scale()),
                                   out.get(),
                                   like.out_width()};
    if (form == Form::answer || form == Form::row) {
      const size_t bytes = paged_answer_workspace(shape_, rows, longest);
      const OnDevice<uint8_t> workspace(std::vector<uint8_t>(bytes, 0xFF));
      if (form == Form::row)
        paged_attention_row(nullptr, device.batch, shape_, cache, inputs, attention, longest,
                            workspace.get());
      else
        paged_attention_answer(nullptr, device.batch, shape_, cache, attention, most_rows, longest,
                               workspace.get());
      return {q.values(), out.values()};
    }
    if (form == Form::prompt)
      paged_attention_prompt(nullptr, device.batch, shape_, cache, attention, rows);
    return {q.values(), out.values()};
  }
  // Positions before `begin` into the cache.
  void fill(const Problem& problem, const std::vector<int32_t>& pages, int64_t begin) const {
    if (begin > 0) step({{&problem, pages, 0, begin}}, Form::none);
  }

  double scale() const { return 1 / std::sqrt(static_cast<double>(shape_.head_dim)); }

  std::vector<uint8_t> memory() const { return memory_.values(); }
  // A page's bytes in a copy of the memory.
  std::vector<uint8_t> page(int32_t number, const std::vector<uint8_t>& bytes) const {
    const auto first = bytes.begin() + number * stride_;
    return {first, first + paged_page_bytes(shape_)};
  }
  // Keys or values [positions, head_dim] of one kv head, as cached in a copy of the memory.
  std::vector<double> cached(const std::vector<int32_t>& pages, int64_t kv_head, bool of_values,
                             int64_t positions, const std::vector<uint8_t>& bytes) const {
    const int64_t dim = shape_.head_dim;
    const int64_t block = paged_page_bytes(shape_) / 2 / shape_.kv_heads;
    std::vector<double> values;
    for (int64_t position = 0; position < positions; ++position) {
      const uint8_t* at = bytes.data() +
                          pages[static_cast<size_t>(position / page_positions)] * stride_ +
                          (2 * kv_head + of_values) * block;
      const int64_t slot = position % page_positions;
      for (int64_t d = 0; d < dim; ++d) {
        if (shape_.format == KvFormat::bf16) {
          Bf16 bits;
          std::memcpy(&bits, at + (slot / 8 * (dim / 8) + d / 8) * 128 + slot % 8 * 16 + d % 8 * 2,
                      2);
          values.push_back(value_of(bits));
        } else if (of_values) {
          const int64_t u = slot % 16 / 8, t = slot % 8 / 2, e = slot % 2;
          values.push_back(value_of_f8(at[(slot / 16 * dim + d) * 16 + 4 * t + 2 * u + e]));
        } else {
          values.push_back(
              value_of_f8(at[(slot / 8 * (dim / 16) + d / 16) * 128 + slot % 8 * 16 + d % 16]));
        }
      }
    }
    return values;
  }

 private:
  PagedShape shape_;
  int64_t stride_;
  OnDevice<uint8_t> memory_;
  std::vector<int32_t> free_;

 public:
  static constexpr float eps = 1e-6f;
  std::vector<float> q_norm, k_norm;

 private:
  OnDevice<float> device_q_norm_, device_k_norm_;
};

// How far a form's result may be from attention over the cached values and the rounded queries.
// A weight is off by its rounding and by twice the error of its score: a sum of head_dim products
// in fp32, |q| |k| * scale <= 1.5^2 * sqrt(head_dim) <= 36, 24 roundings of a truncating tensor
// core, 36 * 24 * 2^-23 * 2 < 2^-12. The result is rounded to bf16.
constexpr double score_error = 0x1p-12;

// e4m3 weights, times 256 over the largest of their tile: below 2^-6 the step is 2^-9. All tiles
// together: half a step, for 64 positions a tile.
constexpr double f8_tiny_weights = 64 * f8_smallest_half / 256;

// The largest number that the sums of a query's products with the keys meet.
double largest_addend(const std::vector<double>& query, const std::vector<double>& keys,
                      int64_t positions) {
  double most = 0;
  for (int64_t position = 0; position < positions; ++position) {
    LargestAddend largest_one;
    for (size_t d = 0; d < query.size(); ++d)
      largest_one.add(query[d] * keys[static_cast<size_t>(position) * query.size() + d]);
    most = std::max(most, largest_one.value());
  }
  return most;
}

// Judges rows [begin, begin + rows) of a sequence, some of them, by the oracle.
void judge(const World& world, const Problem& problem, const std::vector<int32_t>& pages,
           int64_t begin, int64_t rows, Form form, const Bf16* q, const Bf16* out) {
  const std::vector<uint8_t> memory = world.memory();
  const PagedShape& shape = problem.shape;
  const int64_t dim = shape.head_dim;
  double error = 0, norm = 0;
  const bool f8 = shape.format == KvFormat::f8;
  const bool f8_products = f8 && form == Form::prompt;
  // Products of bf16 round weights to bf16; those of f16, over f8 caches, to f16, whose subnormal
  // step of 2^-24 hides weights of less than half of it.
  const double roundoff = f8_products ? f8_roundoff : f8 ? f16_roundoff : bf16_roundoff;
  for (int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
    const std::vector<double> keys = world.cached(pages, kv_head, false, begin + rows, memory);
    const std::vector<double> values = world.cached(pages, kv_head, true, begin + rows, memory);
    std::vector<double> magnitudes;
    for (double value : values) magnitudes.push_back(std::abs(value));
    const double tiny = f8_products ? f8_tiny_weights * largest(values)
                        : f8        ? static_cast<double>(begin + rows) * 0x1p-25 * 448
                                    : 1e-30;
    const int64_t group = shape.query_heads / shape.kv_heads;
    const bool is_long = begin + rows > 1000;  // the oracle takes its time
    const int64_t step = rows > 16 ? rows / (is_long ? 3 : 7) : 1;
    for (int64_t row = 0; row < rows; row += row + step < rows ? step : 1) {
      for (int64_t head = kv_head * group;
           head<(kv_head + 1) * group; head += begin + rows> 1000 ? 3 : 1) {
        std::vector<double> query, expected(static_cast<size_t>(dim)), size(expected);
        for (int64_t d = 0; d < dim; ++d)
          query.push_back(value_of(q[row * problem.out_width() + head * dim + d]));
        const int64_t positions = begin + row + 1;
        double weight = roundoff + score_error;
        if (f8_products) {
          query = rounded_to_f8(query);
          const double score_steps = static_cast<double>((dim + 31) / 32), value_steps = 2;
          weight += f8_step_error * (value_steps + 2 * score_steps * world.scale() *
                                                       largest_addend(query, keys, positions));
        }
        attention_oracle(query.data(), keys.data(), values.data(), positions, dim, world.scale(),
                         expected.data());
        attention_oracle(query.data(), keys.data(), magnitudes.data(), positions, dim,
                         world.scale(), size.data());
        for (int64_t d = 0; d < dim; ++d) {
          const auto at = static_cast<size_t>(d);
          const double gate = value_of(problem.projections[static_cast<size_t>(
              (begin + row) * problem.width() + (2 * head + 1) * dim + d)]);
          const double factor = 1 / (1 + std::exp(-gate));
          const double actual = value_of(out[row * problem.out_width() + head * dim + d]);
          const double bound =
              factor * (weight * size[at] + bf16_roundoff * std::abs(expected[at])) + tiny;
          ASSERT_NEAR(actual, factor * expected[at], bound)
              << "row " << row << ", head " << head << ", dimension " << d;
          error += (actual - factor * expected[at]) * (actual - factor * expected[at]);
          norm += factor * expected[at] * factor * expected[at];
        }
      }
    }
  }
  // Roundings of either sign cancel; what remains is of the order of one.
  EXPECT_LT(std::sqrt(error / norm), f8_products ? f8_roundoff : bf16_roundoff);
}

void expect_same(const Bf16* actual, const Bf16* expected, int64_t count) {
  for (int64_t i = 0; i < count; ++i) ASSERT_EQ(actual[i], expected[i]) << "value " << i;
}

constexpr PagedShape shapes[] = {{16, 2, 256, KvFormat::bf16}, {16, 2, 256, KvFormat::f8},
                                 {4, 2, 128, KvFormat::bf16},  {3, 1, 128, KvFormat::f8},
                                 {2, 2, 64, KvFormat::bf16},   {20, 2, 64, KvFormat::f8},
                                 {4, 2, 16, KvFormat::bf16},   {4, 1, 48, KvFormat::f8},
                                 {2, 1, 144, KvFormat::bf16},  {12, 1, 240, KvFormat::f8}};

testing::Message name(const PagedShape& shape) {
  return testing::Message() << shape.query_heads << " heads on " << shape.kv_heads << " of "
                            << shape.head_dim << (shape.format == KvFormat::f8 ? ", f8" : ", bf16");
}

TEST_F(CudaOps, PagedPrepare) {
  Random random(51);
  for (const PagedShape& shape : shapes) {
    SCOPED_TRACE(name(shape));
    const Problem problem(random, shape, 130);
    World world(random, shape, 3);
    const std::vector<int32_t> pages = world.take(3);
    const Result result = world.step({{&problem, pages, 0, 130}}, Form::none);
    const int64_t dim = shape.head_dim, half = problem.half;
    const bool f8 = shape.format == KvFormat::f8;
    // fp32 steps: a sum of dim squares, a root, five products, half the error of a square in a
    // root.
    const double before = (static_cast<double>(dim) / 16 + 16) * unit_roundoff;
    const auto prepared = [&](int64_t row, int64_t from, const std::vector<float>& weight) {
      std::vector<double> x;
      double squares = 0;
      for (int64_t d = 0; d < dim; ++d) {
        x.push_back(
            value_of(problem.projections[static_cast<size_t>(row * problem.width() + from + d)]));
        squares += x.back() * x.back();
      }
      const double root = std::sqrt(squares / static_cast<double>(dim) + 1e-6);
      for (int64_t d = 0; d < dim; ++d)
        x[static_cast<size_t>(d)] *=
            (1 + static_cast<double>(weight[static_cast<size_t>(d)])) / root;
      for (int64_t d = 0; d < half; ++d) {
        const double c = static_cast<double>(problem.cosine[static_cast<size_t>(row * half + d)]);
        const double s = static_cast<double>(problem.sine[static_cast<size_t>(row * half + d)]);
        double& first = x[static_cast<size_t>(d)];
        double& second = x[static_cast<size_t>(d + half)];
        const double turned = first * c - second * s;
        second = second * c + first * s;
        first = turned;
      }
      return x;
    };
    for (int64_t head = 0; head < shape.query_heads; ++head) {
      for (int64_t row = 0; row < 130; row += 3) {
        const std::vector<double> expected = prepared(row, 2 * head * dim, world.q_norm);
        for (int64_t d = 0; d < dim; ++d) {
          const double x = expected[static_cast<size_t>(d)];
          ASSERT_NEAR(
              value_of(result.q[static_cast<size_t>(row * problem.out_width() + head * dim + d)]),
              x, bf16_roundoff * std::abs(x) + before * 2 * largest(expected));
        }
      }
    }
    for (int64_t head = 0; head < shape.kv_heads; ++head) {
      const std::vector<double> keys = world.cached(pages, head, false, 130, world.memory());
      const std::vector<double> values = world.cached(pages, head, true, 130, world.memory());
      for (int64_t row = 0; row < 130; ++row) {
        const int64_t from = problem.q_width() + head * dim;
        const std::vector<double> expected = prepared(row, from, world.k_norm);
        for (int64_t d = 0; d < dim; ++d) {
          const double x = expected[static_cast<size_t>(d)];
          const double v = value_of(problem.projections[static_cast<size_t>(
              row * problem.width() + from + problem.kv_width() + d)]);
          const double rounding = f8 ? f8_roundoff : bf16_roundoff;
          const double smallest = f8 ? f8_smallest_half : 0;
          ASSERT_NEAR(keys[static_cast<size_t>(row * dim + d)], x,
                      std::max(rounding * std::abs(x), smallest) + before * 2 * largest(expected));
          ASSERT_NEAR(values[static_cast<size_t>(row * dim + d)], v,
                      f8 ? std::max(rounding * std::abs(v), smallest) : 0.0);
        }
      }
    }
  }
}

TEST_F(CudaOps, PagedValuesSaturate) {
  Random random(52);
  const PagedShape shape{1, 1, 16, KvFormat::f8};
  Problem problem(random, shape, 1);
  Bf16* v = problem.projections.data() + problem.q_width() + problem.kv_width();
  v[0] = float_to_bf16(1000);
  v[1] = float_to_bf16(-3e38f);
  v[2] = float_to_bf16(448);
  World world(random, shape, 1);
  const std::vector<int32_t> pages = world.take(1);
  world.step({{&problem, pages, 0, 1}}, Form::none);
  const std::vector<double> values = world.cached(pages, 0, true, 1, world.memory());
  EXPECT_EQ(values[0], 448);
  EXPECT_EQ(values[1], -448);
  EXPECT_EQ(values[2], 448);
}

// Drafts and decoded rows of several sequences; each alone, row by row, gives the same bits.
TEST_F(CudaOps, PagedAnswer) {
  Random random(53);
  for (const PagedShape& shape : shapes) {
    SCOPED_TRACE(name(shape));
    struct Case {
      int64_t begin, rows;
    };
    std::vector<Case> cases{{0, 1},    {0, 8},    {62, 1},   {63, 3},   {64, 1},
                            {65, 2},   {126, 4},  {999, 1},  {1022, 2}, {1024, 3},
                            {1500, 8}, {2043, 5}, {2048, 5}, {2304, 2}, {5000, 1}};
    std::vector<Problem> problems;
    int32_t pages = 0;
    for (Case& c : cases) {
      if (c.begin > 4000 && shape.head_dim < 128) c.begin -= 4000;  // the oracle takes its time
      problems.emplace_back(random, shape, c.begin + c.rows);
      pages += problems.back().pages(c.begin + c.rows);
    }
    World world(random, shape, pages);
    std::vector<Part> parts;
    for (size_t i = 0; i < cases.size(); ++i) {
      parts.push_back({&problems[i], world.take(problems[i].pages(problems[i].positions)),
                       cases[i].begin, cases[i].rows});
      world.fill(problems[i], parts[i].pages, cases[i].begin);
    }
    const Result together = world.step(parts, Form::answer, 8, 9000);
    int64_t first = 0;
    for (const Part& part : parts) {
      SCOPED_TRACE(testing::Message() << part.rows << " rows at " << part.begin);
      const int64_t width = part.problem->out_width();
      judge(world, *part.problem, part.pages, part.begin, part.rows, Form::answer,
            together.q.data() + first * width, together.out.data() + first * width);
      if (HasFatalFailure()) return;
      const Result alone = world.step({part}, Form::answer);
      expect_same(alone.out.data(), together.out.data() + first * width, part.rows * width);
      for (int64_t row = 0; row < part.rows; ++row) {
        const Result single =
            world.step({{part.problem, part.pages, part.begin + row, 1}}, Form::answer);
        expect_same(single.out.data(), together.out.data() + (first + row) * width, width);
        if (HasFatalFailure()) return;
      }
      first += part.rows;
    }
  }
}

// One row of each sequence, prepared where it attends: the bits of the rows and of the cache that
// two launches give, together and alone.
TEST_F(CudaOps, PagedRow) {
  Random random(60);
  for (const PagedShape& shape :
       {PagedShape{16, 2, 256, KvFormat::bf16}, PagedShape{16, 2, 256, KvFormat::f8},
        PagedShape{5, 1, 256, KvFormat::bf16}, PagedShape{4, 2, 128, KvFormat::bf16},
        PagedShape{3, 1, 128, KvFormat::f8}, PagedShape{2, 2, 64, KvFormat::bf16},
        PagedShape{8, 1, 64, KvFormat::f8}}) {
    SCOPED_TRACE(name(shape));
    ASSERT_TRUE(paged_row_takes(shape, shape.head_dim / 8));
    std::vector<Problem> problems;
    std::vector<Part> prepared, alone, together;
    constexpr int64_t begins[] = {0,   1,   7,   15,   16,   31,   32,   62,   63,   64,   65,
                                  127, 128, 200, 1022, 1023, 1024, 1151, 2047, 2048, 2304, 5000};
    int32_t pages = 0;
    for (const int64_t begin : begins) {
      problems.emplace_back(random, shape, begin + 1);
      pages += 3 * problems.back().pages(begin + 1);
    }
    World world(random, shape, pages);
    for (const Problem& problem : problems)
      for (std::vector<Part>* parts : {&prepared, &alone, &together}) {
        const int64_t begin = problem.positions - 1;
        parts->push_back({&problem, world.take(problem.pages(begin + 1)), begin, 1});
        world.fill(problem, parts->back().pages, begin);
      }
    const Result expected = world.step(prepared, Form::answer);
    // Alone a cluster, where it can.
    const int64_t width = problems[0].out_width();
    for (size_t i = 0; i < alone.size(); ++i) {
      const Result row = world.step({alone[i]}, Form::row);
      expect_same(row.out.data(), expected.out.data() + static_cast<int64_t>(i) * width, width);
      if (HasFatalFailure()) return;
    }
    const Result rows = world.step(together, Form::row);
    expect_same(rows.out.data(), expected.out.data(), static_cast<int64_t>(expected.out.size()));
    const std::vector<uint8_t> memory = world.memory();
    for (size_t i = 0; i < prepared.size(); ++i)
      for (size_t page = 0; page < prepared[i].pages.size(); ++page) {
        SCOPED_TRACE(testing::Message() << "page " << page << " behind " << begins[i]);
        const std::vector<uint8_t> bytes = world.page(prepared[i].pages[page], memory);
        ASSERT_EQ(world.page(alone[i].pages[page], memory), bytes);
        ASSERT_EQ(world.page(together[i].pages[page], memory), bytes);
      }
  }
}

TEST_F(CudaOps, PagedRowSaysWhatItTakes) {
  EXPECT_TRUE(paged_row_takes({16, 2, 256, KvFormat::bf16}, 32));
  EXPECT_FALSE(paged_row_takes({16, 2, 256, KvFormat::bf16}, 12));
  EXPECT_FALSE(paged_row_takes({18, 2, 256, KvFormat::f8}, 32));
  EXPECT_FALSE(paged_row_takes({16, 2, 240, KvFormat::f8}, 32));
  PagedProjections projections;
  projections.half = 12;
  EXPECT_ANY_THROW(paged_attention_row(nullptr, {}, {16, 2, 256, KvFormat::bf16}, {}, projections,
                                       {}, 1, nullptr));
}

// Where pieces are long, and many.
TEST_F(CudaOps, PagedAnswerBehindALongContext) {
  Random random(59);
  for (const PagedShape& shape :
       {PagedShape{2, 1, 64, KvFormat::bf16}, PagedShape{2, 1, 64, KvFormat::f8}})
    for (const int64_t begin :
         {int64_t{20000}, int64_t{65533}, int64_t{65536}, 16 * answer_span - 3, 16 * answer_span}) {
      SCOPED_TRACE(name(shape) << " at " << begin);
      constexpr int64_t rows = 3;
      const Problem problem(random, shape, begin + rows);
      World world(random, shape, problem.pages(begin + rows));
      const std::vector<int32_t> pages = world.take(problem.pages(begin + rows));
      world.fill(problem, pages, begin);
      const Result together =
          world.step({{&problem, pages, begin, rows}}, Form::answer, 4, 1 << 18);
      judge(world, problem, pages, begin, rows, Form::answer, together.q.data(),
            together.out.data());
      if (HasFatalFailure()) return;
      const int64_t width = problem.out_width();
      for (int64_t row = 0; row < rows; ++row) {
        const Result single = world.step({{&problem, pages, begin + row, 1}}, Form::answer);
        expect_same(single.out.data(), together.out.data() + row * width, width);
      }
    }
}

// Whole prompts, chunks against what is cached, several in one batch.
TEST_F(CudaOps, PagedPrompt) {
  Random random(54);
  for (const PagedShape& shape : shapes) {
    SCOPED_TRACE(name(shape));
    struct Case {
      int64_t begin, rows;
    };
    std::vector<Case> cases{{0, 1},   {0, 63},   {0, 64},   {0, 65},   {0, 200},
                            {37, 90}, {64, 128}, {900, 17}, {1000, 1}, {4900, 100}};
    std::vector<Problem> problems;
    int32_t pages = 0;
    for (Case& c : cases) {
      if (c.begin > 4000 && shape.head_dim < 128) c.begin -= 4000;  // the oracle takes its time
      problems.emplace_back(random, shape, c.begin + c.rows);
      pages += problems.back().pages(c.begin + c.rows);
    }
    World world(random, shape, pages);
    std::vector<Part> parts;
    for (size_t i = 0; i < cases.size(); ++i) {
      parts.push_back({&problems[i], world.take(problems[i].pages(problems[i].positions)),
                       cases[i].begin, cases[i].rows});
      world.fill(problems[i], parts[i].pages, cases[i].begin);
    }
    const Result together = world.step(parts, Form::prompt);
    int64_t first = 0;
    for (const Part& part : parts) {
      SCOPED_TRACE(testing::Message() << part.rows << " rows at " << part.begin);
      const int64_t width = part.problem->out_width();
      judge(world, *part.problem, part.pages, part.begin, part.rows, Form::prompt,
            together.q.data() + first * width, together.out.data() + first * width);
      if (HasFatalFailure()) return;
      const Result alone = world.step({part}, Form::prompt);
      expect_same(alone.out.data(), together.out.data() + first * width, part.rows * width);
      if (HasFatalFailure()) return;
      first += part.rows;
    }
  }
}

TEST_F(CudaOps, PagedAttentionNamesHeadsThatItCannotTake) {
  const Batch batch;
  for (int64_t dim : {8, 20, 272}) {
    const PagedShape shape{2, 1, dim, KvFormat::bf16};
    EXPECT_ANY_THROW(paged_prepare(nullptr, batch, shape, {}, {}, nullptr, 0));
    EXPECT_ANY_THROW(paged_attention_answer(nullptr, batch, shape, {}, {}, 1, 1, nullptr));
    EXPECT_ANY_THROW(paged_attention_prompt(nullptr, batch, shape, {}, {}, 1));
  }
}

// Random cuts, beside another sequence in some of the steps: the bits of the whole.
TEST_F(CudaOps, PagedPromptSameBitsHoweverCut) {
  Random random(55);
  for (const PagedShape& shape : shapes) {
    SCOPED_TRACE(name(shape));
    const Problem problem(random, shape, 500), other(random, shape, 70);
    World world(random, shape, 8 + 8 + 2);
    const std::vector<int32_t> pages = world.take(8), again = world.take(8), others = world.take(2);
    const Result whole = world.step({{&problem, pages, 0, 500}}, Form::prompt);
    const int64_t width = problem.out_width();
    for (int64_t begin = 0; begin < 500;) {
      const int64_t rows = std::min(random.integer(1, 150), 500 - begin);
      std::vector<Part> parts;
      const int64_t before = random.integer(0, 1) == 1 ? random.integer(1, 70) : 0;
      if (before > 0) parts.push_back({&other, others, 0, before});
      parts.push_back({&problem, again, begin, rows});
      const Result part = world.step(parts, Form::prompt);
      expect_same(part.out.data() + before * width, whole.out.data() + begin * width, rows * width);
      if (HasFatalFailure()) return;
      begin += rows;
    }
  }
}

}  // namespace
}  // namespace qnext::ops::cuda
