#include "ops/moe/moe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "ops/matmul/test_matrices.h"

namespace qnext::ops {
namespace {

constexpr double unit_roundoff = 0x1p-24;

// --- route -----------------------------------------------------------------------------------

class RouteTest : public testing::TestWithParam<bool> {};

TEST_P(RouteTest, MatchesOracle) {
  ThreadPool pool(2);
  const bool renormalize = GetParam();
  for (int64_t experts : {1, 2, 8, 60, 512})
    for (int64_t top_k : {1, 2, 10, 60}) {
      if (top_k > experts) continue;
      constexpr int64_t rows = 33;
      const std::vector<float> logits = random_floats(static_cast<size_t>(rows * experts), 1, 3);
      const std::vector<double> wide(logits.begin(), logits.end());
      std::vector<int32_t> expected_ids(static_cast<size_t>(rows * top_k));
      std::vector<double> expected(expected_ids.size());
      route_oracle(wide.data(), rows, experts, top_k, renormalize, expected_ids.data(),
                   expected.data());
      const int64_t stride = top_k + 1;
      std::vector<int32_t> ids(static_cast<size_t>(rows * stride), -7);
      std::vector<float> weights = poisoned(ids.size());
      route(pool, logits.data(), rows, experts, top_k, renormalize, ids.data(), weights.data(),
            stride);
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t slot = 0; slot < top_k; ++slot) {
          const auto at = static_cast<size_t>(row * stride + slot);
          const auto from = static_cast<size_t>(row * top_k + slot);
          ASSERT_EQ(ids[at], expected_ids[from]);
          // Two exponentials of at most 1 ulp whose argument was rounded (|logit| < 32: 2^-20
          // relative), a sum of up to `experts` terms, a quotient.
          ASSERT_NEAR(double{weights[at]}, expected[from],
                      expected[from] * (64 + static_cast<double>(experts)) * unit_roundoff);
        }
        ASSERT_EQ(ids[static_cast<size_t>(row * stride + top_k)], -7);
        ASSERT_TRUE(std::isnan(weights[static_cast<size_t>(row * stride + top_k)]));
      }
    }
}
INSTANTIATE_TEST_SUITE_P(Renormalize, RouteTest, testing::Bool());

TEST(RouteTest, TiesGoToTheLowerIndex) {
  ThreadPool pool(1);
  const std::vector<float> logits = {1, 3, 2, 3, 3, 2, 0, 2};
  std::vector<int32_t> ids(5);
  std::vector<float> weights(5);
  route(pool, logits.data(), 1, 8, 5, true, ids.data(), weights.data(), 5);
  EXPECT_EQ(ids, (std::vector<int32_t>{1, 3, 4, 2, 5}));
  EXPECT_EQ(weights[0], weights[2]);
  EXPECT_EQ(weights[3], weights[4]);
}

TEST(RouteTest, NotANumberStillGivesExpertsOnce) {
  ThreadPool pool(1);
  std::vector<float> logits = poisoned(8);
  logits[5] = 1;
  std::vector<int32_t> ids(8, -1);
  std::vector<float> weights(8);
  route(pool, logits.data(), 1, 8, 8, true, ids.data(), weights.data(), 8);
  std::sort(ids.begin(), ids.end());
  for (int32_t e = 0; e < 8; ++e) EXPECT_EQ(ids[static_cast<size_t>(e)], e);
}

// --- gated_experts ---------------------------------------------------------------------------

struct Mixture {
  std::vector<TestMatrix> matrices;
  std::vector<GatedExpert> experts;
  int64_t hidden;
  int64_t largest_width = 0;
};

// One expert a width; types in turn.
Mixture make_mixture(int64_t hidden, const std::vector<int64_t>& widths,
                     const std::vector<DType>& types) {
  Mixture mixture;
  mixture.hidden = hidden;
  mixture.matrices.reserve(3 * widths.size());
  unsigned seed = 100;
  for (size_t e = 0; e < widths.size(); ++e) {
    const DType type = types[e % types.size()];
    const auto add = [&](int64_t rows, int64_t columns) {
      mixture.matrices.push_back(random_matrix(type, rows, columns, seed += 2));
      return mixture.matrices.back().view;
    };
    const WeightMatrix gate = add(widths[e], hidden);
    const WeightMatrix up = add(widths[e], hidden);
    mixture.experts.push_back({gate, up, add(hidden, widths[e])});
    mixture.largest_width = std::max(mixture.largest_width, widths[e]);
  }
  return mixture;
}

struct Routed {
  std::vector<float> values;
  AlignedBuffer workspace;
  Activations x;
  std::vector<int32_t> ids;
  std::vector<float> weights;
  int64_t slots;
};

Routed make_rows(ThreadPool& pool, int64_t rows, int64_t hidden, int64_t experts, int64_t slots) {
  Routed routed;
  routed.values = random_floats(static_cast<size_t>(rows * hidden), 7, 0.1f);
  routed.x = {routed.values.data(), rows, hidden, hidden, nullptr};
  if (hidden % 32 == 0) {
    routed.workspace = AlignedBuffer(quantized_activation_bytes(rows, hidden), "activations");
    routed.x = quantize_activations(pool, routed.x, routed.workspace.data());
  }
  routed.slots = slots;
  routed.weights = random_floats(static_cast<size_t>(rows * slots), 8);
  std::mt19937 random(9);
  std::vector<int32_t> all(static_cast<size_t>(experts));
  std::iota(all.begin(), all.end(), 0);
  for (int64_t row = 0; row < rows; ++row) {
    std::shuffle(all.begin(), all.end(), random);
    for (int64_t slot = 0; slot < slots; ++slot)
      routed.ids.push_back(all[static_cast<size_t>(slot % experts)]);
  }
  return routed;
}

std::vector<float> run(ThreadPool& pool, const Mixture& mixture, const Routed& routed,
                       int64_t first, int64_t count) {
  Activations x = routed.x;
  x.values += first * x.stride;
  x.rows = count;
  if (x.quantized)
    x.quantized =
        static_cast<const std::byte*>(x.quantized) + quantized_activation_bytes(first, x.columns);
  AlignedBuffer workspace = poisoned_workspace(
      gated_experts_workspace(count, routed.slots, mixture.hidden, mixture.largest_width));
  std::vector<float> y(static_cast<size_t>(count * mixture.hidden), 1.0f);
  gated_experts(pool, x, mixture.experts, routed.ids.data() + first * routed.slots,
                routed.weights.data() + first * routed.slots, routed.slots, y.data(),
                mixture.hidden, workspace.data());
  return y;
}
std::vector<float> run(ThreadPool& pool, const Mixture& mixture, const Routed& routed) {
  return run(pool, mixture, routed, 0, routed.x.rows);
}

// The mixture in fp64 with what each value may be off by, carried along first order. Relative
// error of a sum of K products: K u of the sum of magnitudes; of an int8 activation block: half a
// step, largest / 254.
struct Bounded {
  std::vector<double> value, error;
};

Bounded multiply(const WeightMatrix& weight, const Bounded& x) {
  const auto columns = static_cast<size_t>(weight.columns);
  std::vector<double> steps(columns, 0.0);
  if (is_block_quantized(weight.dtype))
    for (size_t b = 0; b < columns; b += 32) {
      double largest = 0;
      for (size_t k = b; k < b + 32; ++k)
        largest = std::max(largest, std::abs(x.value[k]) + x.error[k]);
      for (size_t k = b; k < b + 32; ++k) steps[k] = largest / 254 * (1 + 1e-4);
    }
  Bounded y;
  std::vector<float> row(columns);
  for (int64_t n = 0; n < weight.rows; ++n) {
    unpack_row(weight, n, row.data());
    double value = 0, error = 0;
    for (size_t k = 0; k < columns; ++k) {
      const double w = double{row[k]};
      value += w * x.value[k];
      error += std::abs(w) * (x.error[k] + steps[k]) +
               static_cast<double>(columns + 3) * unit_roundoff * std::abs(w * x.value[k]);
    }
    y.value.push_back(value);
    y.error.push_back(error);
  }
  return y;
}

Bounded expected_row(const Mixture& mixture, const Routed& routed, int64_t row) {
  Bounded x;
  for (int64_t k = 0; k < mixture.hidden; ++k)
    x.value.push_back(double{routed.values[static_cast<size_t>(row * mixture.hidden + k)]});
  x.error.assign(x.value.size(), 0.0);
  Bounded y{std::vector<double>(x.value.size(), 1.0), std::vector<double>(x.value.size(), 0.0)};
  for (int64_t slot = 0; slot < routed.slots; ++slot) {
    const auto at = static_cast<size_t>(row * routed.slots + slot);
    const GatedExpert& expert = mixture.experts[static_cast<size_t>(routed.ids[at])];
    Bounded inner = multiply(expert.gate, x);
    const Bounded up = multiply(expert.up, x);
    for (size_t i = 0; i < inner.value.size(); ++i) {
      const double silu = inner.value[i] / (1 + std::exp(-inner.value[i]));
      // |silu'| < 1.1; six roundings and the 3 ulp of exp.
      const double error = 1.1 * inner.error[i] + 9 * unit_roundoff * std::abs(silu);
      inner.error[i] =
          std::abs(silu) * up.error[i] + std::abs(up.value[i]) * error + error * up.error[i];
      inner.value[i] = silu * up.value[i];
    }
    const Bounded down = multiply(expert.down, inner);
    for (size_t n = 0; n < down.value.size(); ++n) {
      const double term = double{routed.weights[at]} * down.value[n];
      y.value[n] += term;
      y.error[n] += std::abs(double{routed.weights[at]}) * down.error[n] +
                    static_cast<double>(routed.slots + 1) * unit_roundoff *
                        (std::abs(term) + std::abs(y.value[n]));
    }
  }
  return y;
}

class GatedExpertsTest : public testing::TestWithParam<std::tuple<DType, Isa>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  bool blocks() const { return is_block_quantized(dtype()); }
  // About so many columns, of whole blocks.
  int64_t wide(int64_t columns) const {
    const auto block = static_cast<int64_t>(block_layout(dtype()).values);
    return block <= 32 ? columns : block * std::max(int64_t{1}, columns / 64);
  }
  std::vector<int64_t> all_wide(std::vector<int64_t> widths) const {
    for (int64_t& width : widths) width = wide(width);
    return widths;
  }
  IsaLimit limit_{std::get<1>(GetParam())};
  ThreadPool pool_{2};

  void expect_near_oracle(const Mixture& mixture, const Routed& routed) {
    const std::vector<float> y = run(pool_, mixture, routed);
    for (int64_t row = 0; row < routed.x.rows; ++row) {
      const Bounded expected = expected_row(mixture, routed, row);
      for (size_t n = 0; n < expected.value.size(); ++n)
        ASSERT_NEAR(double{y[static_cast<size_t>(row * mixture.hidden) + n]}, expected.value[n],
                    expected.error[n])
            << "row " << row << " column " << n << " of " << routed.x.rows;
    }
  }
};

TEST_P(GatedExpertsTest, MatchesOracle) {
  const Mixture mixture =
      blocks() ? make_mixture(wide(96), all_wide({32, 64, 32, 160, 32, 64}), {dtype()})
               : make_mixture(50, {20, 33, 7, 64, 1, 130}, {dtype()});
  for (int64_t rows : {1, 2, 3, 17, 70})
    for (int64_t slots : {1, 3, 6})
      expect_near_oracle(mixture, make_rows(pool_, rows, mixture.hidden, 6, slots));
}

TEST_P(GatedExpertsTest, MatchesOracleWithOneDenseExpert) {
  const Mixture mixture = make_mixture(wide(64), all_wide({96}), {dtype()});
  expect_near_oracle(mixture, make_rows(pool_, 150, wide(64), 1, 1));
}

TEST_P(GatedExpertsTest, SameExpertInTwoSlotsCountsTwice) {
  const Mixture mixture = make_mixture(wide(64), all_wide({32, 32}), {dtype()});
  expect_near_oracle(mixture, make_rows(pool_, 5, wide(64), 2, 5));
}

TEST_P(GatedExpertsTest, MatchesOracleWithTypesMixed) {
  const Mixture mixture = make_mixture(wide(64), all_wide({32, 64, 96, 32}),
                                       {dtype(), DType::bf16, DType::q4_0, DType::f8_e4m3});
  expect_near_oracle(mixture, make_rows(pool_, 20, wide(64), 4, 3));
}

TEST_P(GatedExpertsTest, RowsDoNotSeeTheirBatch) {
  const Mixture mixture = make_mixture(wide(96), all_wide({64, 32, 64, 32, 128}), {dtype()});
  const Routed routed = make_rows(pool_, 80, wide(96), 5, 3);
  const std::vector<float> all = run(pool_, mixture, routed);
  for (int64_t count : {1, 2, 7, 30})
    for (int64_t first : {int64_t{0}, int64_t{13}, 80 - count}) {
      const std::vector<float> some = run(pool_, mixture, routed, first, count);
      ASSERT_EQ(0, std::memcmp(some.data(), all.data() + first * wide(96), some.size() * 4))
          << count << " rows from " << first;
    }
}

TEST_P(GatedExpertsTest, ThreadsDoNotMatter) {
  const Mixture mixture = make_mixture(wide(160), all_wide({64, 32, 64}), {dtype()});
  for (int64_t rows : {1, 40}) {
    const Routed routed = make_rows(pool_, rows, wide(160), 3, 2);
    const std::vector<float> two = run(pool_, mixture, routed);
    for (int threads : {1, 3, 5, 80}) {
      ThreadPool pool(threads);
      EXPECT_TRUE(same_bits(two, run(pool, mixture, routed))) << threads << " threads";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(TypesAndIsas, GatedExpertsTest,
                         testing::Combine(testing::Values(DType::f32, DType::f16, DType::bf16,
                                                          DType::f8_e4m3, DType::q8_0, DType::q4_0,
                                                          DType::q4_k, DType::q6_k),
                                          testing::ValuesIn(available_isas())),
                         [](const auto& test) {
                           return std::string(dtype_name(std::get<0>(test.param))) + "_" +
                                  std::string(isa_name(std::get<1>(test.param)));
                         });

// Batches beyond one turn of rows, and the oracle function itself.
TEST(GatedExpertsManyRowsTest, TurnsAgreeWithTheOracle) {
  ThreadPool pool(2);
  const Mixture mixture = make_mixture(16, {16, 16, 16}, {DType::f32});
  constexpr int64_t rows = 2100;
  const Routed routed = make_rows(pool, rows, 16, 3, 2);
  const std::vector<float> y = run(pool, mixture, routed);
  const std::vector<double> weights(routed.weights.begin(), routed.weights.end());
  std::vector<double> expected(rows * 16);
  gated_experts_oracle(routed.x, mixture.experts, routed.ids.data(), weights.data(), 2,
                       expected.data());
  for (int64_t row : {0, 1, 1023, 1024, 1025, 2047, 2048, 2099}) {
    const Bounded bounded = expected_row(mixture, routed, row);
    for (size_t n = 0; n < 16; ++n) {
      const size_t at = static_cast<size_t>(row) * 16 + n;
      EXPECT_NEAR(expected[at] + 1, bounded.value[n], 1e-12);
      EXPECT_NEAR(double{y[at]}, bounded.value[n], bounded.error[n]) << row;
    }
  }
}

TEST(GatedExpertsQuantizedTest, SameBitsOnEveryInstructionSet) {
  ThreadPool pool(2);
  for (DType dtype : {DType::q8_0, DType::q4_0, DType::q5_k}) {
    const Mixture mixture = make_mixture(256, {256, 512}, {dtype});
    std::vector<float> first;
    for (Isa isa : available_isas()) {
      const IsaLimit limit(isa);
      const Routed routed = make_rows(pool, 9, 256, 2, 2);
      const std::vector<float> y = run(pool, mixture, routed);
      if (first.empty()) first = y;
      EXPECT_TRUE(same_bits(first, y)) << dtype_name(dtype) << " " << isa_name(isa);
    }
  }
}

}  // namespace
}  // namespace qnext::ops
