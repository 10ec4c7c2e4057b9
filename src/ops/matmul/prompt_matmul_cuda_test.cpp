// Products of many rows against fp64 sums over the packed values, and the same bits for a row
// whoever else is there.
#include "ops/matmul/prompt_matmul_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "ops/matmul/f8_rows_test.h"

namespace qnext::ops::cuda {
namespace {

using Kind = PromptOutput::Kind;

constexpr double fp32_rounding = 0x1p-24;
constexpr double bf16_rounding = 0x1p-8;  // of a value: half a last place of 8 bits, and then some
// The tensor core aligns 16 products and the sum so far to the largest and drops what lies below
// its last place: with respect to the sum of magnitudes at most this for each 16 columns. (Seen at
// 2,048 columns: 2^-21.4 in all, where 128 steps of this allow 2^-15.)
constexpr double step_truncation = 0x1p-22;

struct Problem {
  Activations activations;
  int64_t rows, outputs, columns;
  PackedOnDevice w;
  Bf16Rows x;
  int64_t gap = 8;  // output values behind a row's own

  Problem(const Operands& operands, int64_t rows_, int64_t outputs_, int64_t columns_,
          bool zero_scales = false)
      : activations(operands.activations),
        rows(rows_),
        outputs(outputs_),
        columns(columns_),
        w(operands.format, matrix(operands.format, outputs_, columns_, zero_scales)),
        x(random_floats(static_cast<size_t>(rows_ * columns_), 5), columns_) {
    // What lies behind a row's columns is not read.
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t k = columns; k < x.stride; ++k)
        x.bits[static_cast<size_t>(row * x.stride + k)] = 0x7FC0;
  }

  static TestMatrix matrix(PackedFormat format, int64_t outputs, int64_t columns,
                           bool zero_scales) {
    TestMatrix m = random_matrix(format == PackedFormat::f8 ? DType::f8_e4m3 : DType::f32, outputs,
                                 columns, 3);
    if (zero_scales)
      for (size_t i = 0; i < m.block_scales.size(); i += 2) m.block_scales[i] = 0;
    return m;
  }
  // A row as it is multiplied.
  std::vector<double> input(int64_t row) const {
    std::vector<double> values;
    for (int64_t k = 0; k < columns; ++k) values.push_back(x.value(row, k));
    return activations == Activations::f8 ? rounded_to_f8(values) : values;
  }
  void multiply(const OnDevice<Bf16>& from, int64_t count, const PromptOutput& output) const {
    if (activations == Activations::bf16) {
      prompt_matmul(nullptr, from.get(), x.stride, count, w.matrix(), output);
      return;
    }
    const F8OnDevice rounded(count, columns);
    round_rows_to_f8(nullptr, from.get(), x.stride, count, columns, rounded.rows());
    prompt_matmul(nullptr, rounded.rows(), count, w.matrix(), output);
    check_cuda(cudaDeviceSynchronize(), "prompt_matmul");  // before `rounded` goes
  }
  int64_t stride() const { return (outputs + 7) / 8 * 8 + gap; }

  // Rows first .. first + count alone, in floats; what was there before: `before`.
  std::vector<float> run(Kind kind, int64_t first, int64_t count, float before) const {
    const OnDevice<Bf16> device_x(std::vector<Bf16>(x.bits.begin() + first * x.stride,
                                                    x.bits.begin() + (first + count) * x.stride));
    const auto size = static_cast<size_t>(count * stride());
    if (kind == Kind::bf16_store) {
      const OnDevice<Bf16> y(std::vector<Bf16>(size, 0x7FC0));
      multiply(device_x, count, {kind, y.get(), stride()});
      std::vector<float> values;
      for (Bf16 bits : y.values()) values.push_back(bf16_to_float(bits));
      return values;
    }
    const OnDevice<float> y(std::vector<float>(size, before));
    multiply(device_x, count, {kind, y.get(), stride()});
    return y.values();
  }

  // Some rows of what run() gave, every output of them.
  void expect(const std::vector<float>& found, Kind kind, double before, int64_t row_step) const {
    const std::vector<double> weights = w.values();
    for (int64_t row = 0; row < rows; row += row_step) {
      const std::vector<double> inputs = input(row);
      for (int64_t n = 0; n < stride(); ++n) {
        const auto value = double{found[static_cast<size_t>(row * stride() + n)]};
        if (n >= outputs) {
          ASSERT_TRUE(kind == Kind::fp32_add ? value == before : std::isnan(value));
          continue;
        }
        double sum = 0, magnitude = 0;
        LargestAddend largest;
        for (int64_t k = 0; k < columns; ++k) {
          const double product =
              inputs[static_cast<size_t>(k)] * weights[static_cast<size_t>(n * columns + k)];
          sum += product;
          magnitude += std::abs(product);
          largest.add(product);
        }
        // Steps of products; two roundings for each change of the f8 unit, and its last.
        const double steps = static_cast<double>((columns + 15) / 16);
        const double blocks = static_cast<double>((columns + 127) / 128);
        double tolerance = (steps * step_truncation + (2 * blocks + 2) * fp32_rounding) * magnitude;
        if (activations == Activations::f8)
          tolerance += static_cast<double>((columns + 31) / 32) * f8_step_error * largest.value();
        if (kind == Kind::bf16_store) tolerance += bf16_rounding * std::abs(sum);
        if (kind == Kind::fp32_add) {
          sum += before;
          tolerance += fp32_rounding * std::abs(sum);
        }
        ASSERT_NEAR(value, sum, tolerance) << "row " << row << " of " << rows << ", output " << n
                                           << " of " << outputs << ", " << columns << " columns";
      }
    }
  }
};

class PromptMatmul : public CudaOps, public testing::WithParamInterface<Operands> {};

TEST_P(PromptMatmul, AgreesWithTheOracle) {
  // Outputs: less than a strip, cut runs of 8, several tiles of 256. Columns: less than a step, an
  // odd number of tiles, whole.
  for (const auto& [outputs, columns] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 8}, {16, 16}, {130, 40}, {40, 130}, {300, 520}, {257, 2048}})
    for (int64_t rows : {1, 63, 64, 65, 1000}) {
      const Problem problem(GetParam(), rows, outputs, columns);
      const Kind kind = rows % 2 == 0 ? Kind::fp32_store : Kind::bf16_store;
      problem.expect(problem.run(kind, 0, rows, NAN), kind, 0, rows < 100 ? 1 : 37);
    }
}

TEST_P(PromptMatmul, AddsToWhatIsThere) {
  const Problem problem(GetParam(), 200, 90, 264);
  problem.expect(problem.run(Kind::fp32_add, 0, 200, 3.0f), Kind::fp32_add, 3, 1);
}

// More tiles than processors, in several bands.
TEST_P(PromptMatmul, ManyTiles) {
  const Problem problem(GetParam(), 3000, 4100, 72);
  problem.expect(problem.run(Kind::bf16_store, 0, 3000, NAN), Kind::bf16_store, 0, 173);
  problem.expect(problem.run(Kind::fp32_store, 0, 3000, NAN), Kind::fp32_store, 0, 173);
}

TEST_P(PromptMatmul, ARowsBitsDoNotDependOnTheOthers) {
  for (int64_t columns : {40, 640}) {
    constexpr int64_t rows = 1000;
    const Problem problem(GetParam(), rows, 300, columns);
    const std::vector<float> together = problem.run(Kind::fp32_add, 0, rows, 1.0f);
    // Tiles of other sizes, at other places.
    for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{
             {0, 1}, {17, 1}, {999, 1}, {3, 65}, {500, 129}, {100, 900}})
      EXPECT_TRUE(same_bits(problem.run(Kind::fp32_add, first, count, 1.0f),
                            slice(together, first * problem.stride(), count * problem.stride())))
          << count << " rows from " << first << ", " << columns << " columns";
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, PromptMatmul, testing::ValuesIn(prompt_operands),
                         [](const auto& test) { return operands_name(test.param); });

// Blocks that a zero scale erases, first and last ones among them, and a matrix of nothing else.
TEST_F(CudaOps, PromptMatmulZeroScales) {
  for (Activations activations : {Activations::bf16, Activations::f8})
    for (int64_t columns : {100, 200, 700}) {
      const Problem problem({PackedFormat::f8, activations}, 70, 260, columns, true);
      problem.expect(problem.run(Kind::fp32_store, 0, 70, NAN), Kind::fp32_store, 0, 1);
    }
}

TEST_F(CudaOps, PromptMatmulUnalignedOutput) {
  Problem problem({PackedFormat::bf16}, 70, 45, 64);
  problem.gap = 3;
  problem.expect(problem.run(Kind::bf16_store, 0, 70, NAN), Kind::bf16_store, 0, 1);
}

TEST_F(CudaOps, PromptMatmulRefusesRowsOfF8ForOtherWeights) {
  const Problem problem({PackedFormat::bf16}, 1, 16, 16);
  EXPECT_ANY_THROW(prompt_matmul(nullptr, F8Rows(), 1, problem.w.matrix(), {}));
}

// Values of all sizes, a row of zeros, columns that end anywhere; the bytes as the header says.
TEST_F(CudaOps, RoundRowsToF8) {
  for (int64_t columns : {1, 15, 40, 520, 2048}) {
    constexpr int64_t rows = 37;
    std::vector<float> values = random_floats(static_cast<size_t>(rows * columns), 11);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t k = 0; k < columns; ++k) {
        float& value = values[static_cast<size_t>(row * columns + k)];
        value = row == 5 ? 0 : std::ldexp(value, static_cast<int>(7 * row % 41 - 20 - k % 19));
      }
    Bf16Rows x(values, columns);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t k = columns; k < x.stride; ++k)
        x.bits[static_cast<size_t>(row * x.stride + k)] = 0x7FC0;
    const OnDevice<Bf16> from(x.bits);
    const F8OnDevice to(rows, columns);
    round_rows_to_f8(nullptr, from.get(), x.stride, rows, columns, to.rows());
    const std::vector<uint8_t> codes = to.codes();
    const std::vector<float> units = to.units();
    for (int64_t row = 0; row < rows; ++row) {
      std::vector<double> before;
      for (int64_t k = 0; k < columns; ++k) before.push_back(x.value(row, k));
      ASSERT_EQ(units[static_cast<size_t>(row)], std::ldexp(1.0f, f8_unit_exponent(before)));
      const std::vector<double> expected = rounded_to_f8(before);
      for (int64_t k = 0; k < f8_columns(columns); ++k) {
        const int64_t u = k % 16 / 8, t = k % 8 / 2, e = k % 2;
        const auto at =
            static_cast<size_t>(row * f8_columns(columns) + k / 16 * 16 + 4 * t + 2 * u + e);
        const double found =
            double{f8_e4m3_to_float(codes[at])} * double{units[static_cast<size_t>(row)]};
        ASSERT_EQ(found, k < columns ? expected[static_cast<size_t>(k)] : 0)
            << "row " << row << ", column " << k << " of " << columns;
      }
    }
  }
}

}  // namespace
}  // namespace qnext::ops::cuda
