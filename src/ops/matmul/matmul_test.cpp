#include "ops/matmul/matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "ops/matmul/kernel_tables.h"
#include "ops/matmul/panel_blocks.h"
#include "ops/matmul/test_matrices.h"
#include "tensor/blocks.h"

namespace qnext::ops {
namespace {

constexpr double unit_roundoff = 0x1p-24;

// x with its int8 blocks if the columns allow; owns everything.
struct TestInput {
  std::vector<float> values;
  AlignedBuffer workspace;
  Activations view;
};

TestInput make_input(ThreadPool& pool, int64_t rows, int64_t columns, unsigned seed) {
  TestInput input;
  const int64_t stride = columns + 3;
  input.values = random_floats(static_cast<size_t>(rows * stride), seed);
  input.view = {input.values.data(), rows, columns, stride, nullptr};
  if (columns % 32 != 0) return input;
  input.workspace = poisoned_workspace(quantized_activation_bytes(rows, columns));
  input.view = quantize_activations(pool, input.view, input.workspace.data());
  return input;
}

std::vector<float> product(ThreadPool& pool, const Activations& x, const WeightMatrix& w) {
  std::vector<float> y = poisoned(static_cast<size_t>(x.rows * w.rows));
  matmul(pool, x, w, y.data(), w.rows);
  return y;
}

// What y[m, n] must be near, and how near.
struct Expected {
  double value = 0;
  double tolerance = 0;
};

// K products summed in fp32, in any order: at most K roundings on the way of each product
// (K u sum |x w|); e4m3 scales are one factor and one product more.
Expected expected_float(const Activations& x, const std::vector<float>& w, int64_t m) {
  Expected expected;
  for (size_t k = 0; k < w.size(); ++k) {
    const double term = double{w[k]} * double{x.values[m * x.stride + static_cast<int64_t>(k)]};
    expected.value += term;
    expected.tolerance += std::abs(term);
  }
  expected.tolerance *= static_cast<double>(w.size() + 3) * unit_roundoff;
  return expected;
}

const layout::ActivationBlock* blocks_of(const Activations& x, int64_t m) {
  return static_cast<const layout::ActivationBlock*>(activation_row(x, DType::q8_0, m));
}

// Row n of a matrix in panels, taken apart.
std::vector<BlockParts> parts_of(const WeightMatrix& w, int64_t n) {
  const layout::Format& format = panel_format(w.dtype);
  const auto* panel = static_cast<const uint8_t*>(w.data) +
                      n / layout::panel_rows * layout::panel_bytes(format, w.columns);
  std::vector<std::byte> block(block_layout(w.dtype).bytes);
  std::vector<BlockParts> parts(static_cast<size_t>(w.columns / format.columns));
  for (size_t b = 0; b < parts.size(); ++b) {
    gather_block(format, panel, static_cast<int64_t>(b), n % layout::panel_rows, block.data());
    split_block(w.dtype, block.data(), parts[b]);
  }
  return parts;
}

// The int8 rounding of x is part of the contract: with it in fp64, what remains are the roundings
// of scale * d_x or of d_x * sum, and of one fused sum each.
Expected expected_quantized(const Activations& x, const std::vector<BlockParts>& w, int64_t m) {
  const int64_t columns = x.columns / std::ssize(w);  // of a block
  Expected expected;
  double terms = 0;
  const auto add = [&](double term) {
    expected.value += term;
    expected.tolerance += std::abs(term);
    ++terms;
  };
  for (int64_t k = 0; k < x.columns; k += w[0].run) {
    const BlockParts& parts = w[static_cast<size_t>(k / columns)];
    const layout::ActivationBlock& inputs = blocks_of(x, m)[k / 32];
    double dot = 0, sum = 0;
    for (int64_t i = 0; i < parts.run; ++i) {
      dot += static_cast<double>(parts.quants[k % columns + i]) * inputs.quants[k % 32 + i];
      sum += inputs.quants[k % 32 + i];
    }
    const int64_t run = k % columns / parts.run;
    add(dot * double{parts.scales[run]} * double{inputs.scale});
    if (parts.has_minimums) add(sum * double{parts.minimums[run]} * double{inputs.scale});
  }
  expected.tolerance *= (terms + 2) * unit_roundoff;
  return expected;
}

class MatmulTest : public testing::TestWithParam<std::tuple<DType, Isa>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  IsaLimit limit_{std::get<1>(GetParam())};
  ThreadPool pool_{2};

  // So many columns, of whole blocks.
  int64_t wide(int64_t columns) const {
    return columns * std::max(int64_t{1}, static_cast<int64_t>(block_layout(dtype()).values) / 32);
  }

  std::vector<int64_t> widths() const {
    if (block_layout(dtype()).values == 256) return {256, 512, 768};
    if (is_block_quantized(dtype())) return {32, 64, 96, 160, 512, 2048};
    return {1, 7, 20, 32, 96, 127, 128, 129, 160, 300, 2048};
  }
  std::vector<int64_t> heights() const {
    if (is_block_quantized(dtype())) return {1, 15, 16, 17, 65};  // about panels of 16
    return {1, 2, 3, 15, 16, 17, 63, 64, 65, 130};
  }
};

TEST_P(MatmulTest, MatchesOracleAtAwkwardSizes) {
  for (int64_t columns : widths())
    for (int64_t outputs : heights())
      for (int64_t rows : {1, 2, 3, 4, 5, 12, 13, 65}) {
        const TestInput x = make_input(pool_, rows, columns, 1);
        const TestMatrix w = random_matrix(dtype(), outputs, columns, 2);
        const std::vector<float> y = product(pool_, x.view, w.view);
        for (int64_t n = 0; n < outputs; ++n) {
          const std::vector<float> weights = w.row(n);
          const std::vector<BlockParts> parts =
              is_block_quantized(dtype()) ? parts_of(w.view, n) : std::vector<BlockParts>();
          for (int64_t m = 0; m < rows; ++m) {
            const Expected expected = parts.empty() ? expected_float(x.view, weights, m)
                                                    : expected_quantized(x.view, parts, m);
            ASSERT_NEAR(double{y[static_cast<size_t>(m * outputs + n)]}, expected.value,
                        expected.tolerance)
                << "y[" << m << ", " << n << "] of " << rows << " x " << outputs << " x "
                << columns;
          }
        }
      }
}

TEST_P(MatmulTest, RowsDoNotSeeTheirBatch) {
  constexpr int64_t outputs = 65;
  for (int64_t columns : {wide(96), int64_t{2048}}) {
    const TestMatrix w = random_matrix(dtype(), outputs, columns, 3);
    const TestInput x = make_input(pool_, 65, columns, 4);
    const std::vector<float> all = product(pool_, x.view, w.view);
    for (int64_t count : {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 25, 64})
      for (int64_t first : {int64_t{0}, 65 - count}) {
        const std::vector<float> some = product(pool_, rows_of(x.view, first, count), w.view);
        ASSERT_EQ(0, std::memcmp(some.data(), all.data() + first * outputs, some.size() * 4))
            << count << " rows from " << first << ", " << columns << " columns";
      }
  }
}

TEST_P(MatmulTest, ThreadsDoNotMatter) {
  const TestMatrix w = random_matrix(dtype(), 1000, 256, 5);
  for (int64_t rows : {1, 30}) {
    const TestInput x = make_input(pool_, rows, 256, 6);
    const std::vector<float> two = product(pool_, x.view, w.view);
    for (int threads : {1, 3, 5}) {
      ThreadPool pool(threads);
      EXPECT_TRUE(same_bits(two, product(pool, x.view, w.view))) << threads << " threads";
    }
  }
}

TEST_P(MatmulTest, AccumulatesWithOneMoreRounding) {
  const TestMatrix w = random_matrix(dtype(), 37, wide(64), 7);
  const TestInput x = make_input(pool_, 5, wide(64), 8);
  const std::vector<float> sums = product(pool_, x.view, w.view);
  const std::vector<float> before = random_floats(sums.size(), 9);
  std::vector<float> y = before;
  matmul(pool_, x.view, w.view, y.data(), 37, true);
  for (size_t i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], before[i] + sums[i]) << i;
}

TEST_P(MatmulTest, WritesOnlyItsOutputs) {
  const TestMatrix w = random_matrix(dtype(), 19, wide(64), 10);
  const TestInput x = make_input(pool_, 3, wide(64), 11);
  constexpr int64_t stride = 40;
  std::vector<float> y(3 * stride, -1.0f);
  matmul(pool_, x.view, w.view, y.data() + 4, stride);
  for (int64_t i = 0; i < 3 * stride; ++i) {
    const bool inside = i % stride >= 4 && i % stride < 4 + 19;
    ASSERT_EQ(inside, y[static_cast<size_t>(i)] != -1.0f) << i;
  }
}

TEST_P(MatmulTest, ManyTasksInOneRegionAreTheSameProducts) {
  const TestInput x = make_input(pool_, 3, wide(128), 12);
  std::vector<TestMatrix> matrices;
  std::vector<std::vector<float>> outs;
  std::vector<MatmulTask> tasks;
  for (int64_t outputs : {int64_t{1}, int64_t{700}, int64_t{33}, int64_t{16}}) {
    matrices.push_back(random_matrix(dtype(), outputs, wide(128), static_cast<unsigned>(outputs)));
    outs.push_back(poisoned(static_cast<size_t>(3 * outputs)));
  }
  for (size_t t = 0; t < matrices.size(); ++t)
    tasks.push_back({&matrices[t].view, outs[t].data(), matrices[t].view.rows, false});
  matmul_many(pool_, x.view, tasks.data(), static_cast<int>(tasks.size()));
  for (size_t t = 0; t < matrices.size(); ++t)
    EXPECT_TRUE(same_bits(outs[t], product(pool_, x.view, matrices[t].view))) << t;
}

TEST_P(MatmulTest, NotANumberReachesItsRowAndNoOther) {
  const TestMatrix w = random_matrix(dtype(), 18, wide(64), 13);
  TestInput x = make_input(pool_, 3, wide(64), 14);
  x.values[static_cast<size_t>(x.view.stride + 40)] = std::nanf("");
  x.view = quantize_activations(pool_, x.view, x.workspace.data());
  const std::vector<float> y = product(pool_, x.view, w.view);
  for (size_t i = 0; i < y.size(); ++i) ASSERT_EQ(std::isnan(y[i]), i / 18 == 1) << i;
}

INSTANTIATE_TEST_SUITE_P(TypesAndIsas, MatmulTest,
                         testing::Combine(testing::ValuesIn(weight_types),
                                          testing::ValuesIn(available_isas())),
                         [](const auto& test) {
                           return std::string(dtype_name(std::get<0>(test.param))) + "_" +
                                  std::string(isa_name(std::get<1>(test.param)));
                         });

TEST(QuantizedMatmulTest, SameBitsOnEveryInstructionSet) {
  ThreadPool pool(2);
  for (DType dtype : block_types)
    for (int64_t columns : {32, 96, 256, 768, 2048}) {
      if (!can_pack(dtype, columns)) continue;
      const TestMatrix w = random_matrix(dtype, 50, columns, 20);
      std::vector<float> first;
      for (Isa isa : available_isas()) {
        const IsaLimit limit(isa);
        const TestInput x = make_input(pool, 13, columns, 21);
        const std::vector<float> y = product(pool, x.view, w.view);
        if (first.empty()) first = y;
        EXPECT_TRUE(same_bits(first, y)) << dtype_name(dtype) << " " << isa_name(isa);
      }
    }
}

// The largest weights against the largest activations: no sum on the way may saturate or wrap.
TEST(QuantizedMatmulTest, ExtremesAreExact) {
  ThreadPool pool(1);
  constexpr int64_t columns = 64;
  for (Isa isa : available_isas())
    for (DType dtype : {DType::q8_0, DType::q4_0})
      for (float x_sign : {1.0f, -1.0f})
        for (float w_sign : {1.0f, -1.0f}) {
          const IsaLimit limit(isa);
          const std::vector<float> values(16 * columns, 127 * w_sign);
          AlignedBuffer packed(packed_bytes(dtype, 16, columns), "packed weights");
          pack_weights({DType::f32, 16, columns, values.data(), nullptr}, dtype, packed.data());
          const std::vector<float> ones(columns, 127 * x_sign);
          AlignedBuffer workspace(quantized_activation_bytes(1, columns), "activations");
          const Activations x = quantize_activations(
              pool, {ones.data(), 1, columns, columns, nullptr}, workspace.data());
          const std::vector<float> y =
              product(pool, x, {dtype, 16, columns, packed.data(), nullptr});
          for (float value : y) ASSERT_EQ(value, 127.0f * 127.0f * columns * x_sign * w_sign);
        }
}

// The same for any bits of a block: all ones, all zeros, the signs' bits, every second bit.
TEST(QuantizedMatmulTest, ExtremeBlocksDoNotOverflow) {
  ThreadPool pool(1);
  constexpr int64_t columns = 512, outputs = 16;
  for (DType dtype : block_types)
    for (int pattern : {0x00, 0xFF, 0x7F, 0x80, 0x55, 0xAA})
      for (float x_value : {127.0f, -127.0f}) {
        const BlockLayout& layout = block_layout(dtype);
        std::string bytes(dtype_bytes(dtype, outputs * columns), static_cast<char>(pattern));
        const uint16_t one = float_to_f16(1);
        for (size_t block = 0; block < bytes.size(); block += layout.bytes)
          for (const int factor : layout.factors)
            if (factor >= 0) std::memcpy(bytes.data() + block + factor, &one, 2);
        AlignedBuffer packed(packed_bytes(dtype, outputs, columns), "packed weights");
        pack_weights({dtype, outputs, columns, bytes.data(), nullptr}, dtype, packed.data());
        const WeightMatrix w{dtype, outputs, columns, packed.data(), nullptr};
        const std::vector<float> values(columns, x_value);
        AlignedBuffer workspace(quantized_activation_bytes(1, columns), "activations");
        const Activations x = quantize_activations(
            pool, {values.data(), 1, columns, columns, nullptr}, workspace.data());
        const Expected expected = expected_quantized(x, parts_of(w, 0), 0);
        for (Isa isa : available_isas()) {
          const IsaLimit limit(isa);
          for (float value : product(pool, x, w))
            ASSERT_NEAR(double{value}, expected.value, expected.tolerance)
                << dtype_name(dtype) << " " << isa_name(isa) << " " << pattern;
        }
      }
}

TEST(QuantizeActivationsTest, RoundsToTheNearest) {
  ThreadPool pool(1);
  constexpr int64_t columns = 4096;
  std::vector<float> values = random_floats(columns, 30);
  for (size_t i = 0; i < 32; ++i) values[i] = 0;           // an empty block
  for (size_t i = 32; i < 64; ++i) values[i] = 0x1p-120f;  // too small to invert
  for (size_t i = 64; i < 96; ++i) values[i] *= 0x1p100f;
  values[100] = std::numeric_limits<float>::infinity();
  for (Isa isa : available_isas()) {
    const IsaLimit limit(isa);
    AlignedBuffer workspace = poisoned_workspace(quantized_activation_bytes(1, columns));
    quantize_activations(pool, {values.data(), 1, columns, columns, nullptr}, workspace.data());
    const auto* blocks = reinterpret_cast<const layout::ActivationBlock*>(workspace.data());
    for (int64_t b = 0; b < columns / 32; ++b) {
      const layout::ActivationBlock& block = blocks[b];
      const float* x = values.data() + 32 * b;
      int32_t sums[2] = {0, 0};
      float largest = 0;
      for (int64_t i = 0; i < 32; ++i) {
        sums[i / 16] += block.quants[i];
        largest = std::max(largest, std::abs(x[i]));
      }
      ASSERT_EQ(block.half_sums[0], sums[0]);
      ASSERT_EQ(block.half_sums[1], sums[1]);
      ASSERT_EQ(block.sum, -8 * (sums[0] + sums[1]));
      if (b == 3) {
        ASSERT_TRUE(std::isnan(block.scale));
        continue;
      }
      ASSERT_EQ(block.scale, b < 2 ? 0.0f : largest / 127.0f);
      ASSERT_EQ(block.offset, block.scale * static_cast<float>(sums[0] + sums[1]));
      // Half a step, and three roundings of a number of at most 127 steps.
      const double tolerance = b == 1 ? 0x1p-120 : block.scale * (0.5 + 3 * 127 * unit_roundoff);
      for (int64_t i = 0; i < 32; ++i)
        ASSERT_NEAR(double{block.scale} * block.quants[i], double{x[i]}, tolerance);
    }
  }
}

// Every code at every place of a row, NaN too.
TEST(F8MatmulTest, WidensEveryCodeExactly) {
  ThreadPool pool(1);
  constexpr int64_t columns = 150;
  std::vector<uint8_t> codes(256 * columns);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i / columns);
  const std::vector<float> scales = {0.5f, 2.0f, 0.25f, 4.0f};
  const WeightMatrix w{DType::f8_e4m3, 256, columns, codes.data(), scales.data()};
  for (Isa isa : available_isas())
    for (int64_t k : {0, 1, 15, 16, 31, 32, 127, 128, 149}) {
      const IsaLimit limit(isa);
      std::vector<float> x(columns);
      x[static_cast<size_t>(k)] = 1;
      const std::vector<float> y = product(pool, {x.data(), 1, columns, columns, nullptr}, w);
      for (size_t n = 0; n < 256; ++n) {
        const float expected =
            f8_e4m3_to_float(static_cast<uint8_t>(n)) * scales[n / 128 * 2 + (k >= 128)];
        if (std::isnan(expected))
          ASSERT_TRUE(std::isnan(y[n])) << isa_name(isa) << " code " << n;
        else
          ASSERT_EQ(y[n], expected) << isa_name(isa) << " code " << n << " column " << k;
      }
    }
}

TEST(MatmulOracleTest, IsThePlainSum) {
  const std::vector<float> w = {1, 2, 3, 4, 5, 6};
  const std::vector<float> x = {1, 10, 100, -1, 0, 2};
  std::vector<double> y(4);
  matmul_oracle({x.data(), 2, 3, 3, nullptr}, {DType::f32, 2, 3, w.data(), nullptr}, y.data());
  EXPECT_EQ(y, (std::vector<double>{321, 654, 5, 8}));
}

}  // namespace
}  // namespace qnext::ops
