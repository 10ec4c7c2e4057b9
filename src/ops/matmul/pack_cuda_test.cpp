// Packed weights against the values they were packed from.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>

#include "ops/matmul/packed_test.h"
#include "tensor/blocks.h"

namespace qnext::ops::cuda {
namespace {

// A cut tile, a cut scale block, several of both.
const std::vector<std::pair<int64_t, int64_t>> shapes = {
    {1, 1}, {17, 40}, {16, 64}, {130, 136}, {300, 513}};

class PackedWeights : public CudaOps,
                      public testing::WithParamInterface<std::tuple<DType, PackedFormat>> {};

// What the packed value must be, or (within `tolerance`) near.
struct Expected {
  double value, tolerance;
};

// Of the row-major source values, as the header says.
Expected expected_value(const TestMatrix& source, PackedFormat format,
                        const std::vector<std::vector<float>>& values, int64_t row,
                        int64_t column) {
  const float w = values[static_cast<size_t>(row)][static_cast<size_t>(column)];
  if (format == PackedFormat::bf16) return {double{bf16_to_float(float_to_bf16(w))}, 0};
  if (format == PackedFormat::f8) {
    if (source.view.dtype == DType::f8_e4m3) {
      // The source rounds code * scale once.
      return {double{w}, 0x1p-24 * std::abs(double{w})};
    }
    float largest = 0;
    for (int64_t r = row / 128 * 128; r < std::min(row / 128 * 128 + 128, source.view.rows); ++r)
      for (int64_t c = column / 128 * 128;
           c < std::min(column / 128 * 128 + 128, source.view.columns); ++c)
        largest =
            std::max(largest, std::abs(values[static_cast<size_t>(r)][static_cast<size_t>(c)]));
    const float scale = largest / 448.0f;
    return {double{f8_e4m3_to_float(float_to_f8_e4m3(w / scale))} * double{scale}, 0};
  }
  float block_values_of_row[block_values] = {};
  const int64_t first = column / block_values * block_values;
  for (int64_t c = first; c < std::min<int64_t>(first + block_values, source.view.columns); ++c)
    block_values_of_row[c - first] = values[static_cast<size_t>(row)][static_cast<size_t>(c)];
  BlockQ4_0 block;
  encode(block_values_of_row, block);
  const auto at = static_cast<int>(column - first);
  const int q = at < 16 ? block.qs[at] & 15 : block.qs[at - 16] >> 4;
  const float d = bf16_to_float(float_to_bf16(f16_to_float(block.d)));
  return {double{bf16_to_float(float_to_bf16(d * static_cast<float>(q - 8)))}, 0};
}

std::vector<std::vector<float>> rows_of(const TestMatrix& source) {
  std::vector<std::vector<float>> rows;
  for (int64_t row = 0; row < source.view.rows; ++row) rows.push_back(source.row(row));
  return rows;
}

TEST_P(PackedWeights, HoldTheSourcesValues) {
  const auto [dtype, format] = GetParam();
  for (const auto& [rows, columns] : shapes) {
    const TestMatrix source = random_matrix(dtype, rows, columns, 3);
    const PackedOnDevice packed(format, source);
    const std::vector<std::vector<float>> values = rows_of(source);
    const int64_t padded_rows = packed.matrix().row_tiles() * tile_rows;
    const int64_t padded_columns = packed.matrix().column_tiles() * tile_columns;
    for (int64_t row = 0; row < padded_rows; ++row)
      for (int64_t column = 0; column < padded_columns; ++column) {
        const Expected expected = row < rows && column < columns
                                      ? expected_value(source, format, values, row, column)
                                      : Expected{0, 0};
        ASSERT_NEAR(packed.value(row, column), expected.value, expected.tolerance)
            << rows << " x " << columns << " at " << row << ", " << column;
      }
  }
}

// gate_proj and up_proj share strips; their scales stay those of their own blocks.
TEST_P(PackedWeights, InterleavesTwoSources) {
  const auto [dtype, format] = GetParam();
  for (const auto& [rows, columns] : shapes) {
    const TestMatrix gate = random_matrix(dtype, rows, columns, 3);
    const TestMatrix up = random_matrix(dtype, rows, columns, 4);
    const DeviceMatrix device_gate(gate), device_up(up);
    const int64_t strips = (rows + 7) / 8;
    // One strip before them is left alone.
    PackedOnDevice both(format, (strips + 1) * tile_rows, columns);
    pack(nullptr, device_up.view(), Placement::lower, both.matrix(), 1);
    pack(nullptr, device_gate.view(), Placement::upper, both.matrix(), 1);
    both.read();
    const PackedOnDevice gate_alone(format, gate), up_alone(format, up);
    EXPECT_TRUE(format == PackedFormat::f8 || std::isnan(both.value(0, 0)) ||
                both.value(15, 0) != 0);
    for (int64_t row = 0; row < strips * 8; ++row)
      for (int64_t column = 0; column < both.matrix().column_tiles() * tile_columns; ++column) {
        const int64_t at = tile_rows + row / 8 * tile_rows + row % 8;
        ASSERT_EQ(both.value(at, column), row < rows ? gate_alone.value(row, column) : 0);
        ASSERT_EQ(both.value(at + 8, column), row < rows ? up_alone.value(row, column) : 0);
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, PackedWeights,
                         testing::Combine(testing::ValuesIn(stored_types),
                                          testing::ValuesIn(packed_formats)),
                         [](const auto& test) {
                           return std::string(dtype_name(std::get<0>(test.param))) + "_" +
                                  format_name(std::get<1>(test.param));
                         });

class RandomPackedWeights : public CudaOps, public testing::WithParamInterface<PackedFormat> {};

TEST_P(RandomPackedWeights, AreNormalAndZeroInThePadding) {
  constexpr int64_t rows = 141, columns = 1000;
  constexpr double deviation = 0.02;
  PackedOnDevice packed(GetParam(), rows, columns);
  fill_random(nullptr, packed.matrix(), static_cast<float>(deviation), 7);
  packed.read();
  double sum = 0, squares = 0;
  for (double value : packed.values()) {
    sum += value;
    squares += value * value;
  }
  constexpr double count = rows * columns;
  // Five standard errors of a mean of so many, and of a deviation besides what rounding adds.
  EXPECT_NEAR(sum / count, 0, 5 * deviation / std::sqrt(count));
  EXPECT_NEAR(std::sqrt(squares / count), deviation, 0.02 * deviation);
  for (int64_t row = 0; row < packed.matrix().row_tiles() * tile_rows; ++row)
    for (int64_t column = columns; column < packed.matrix().column_tiles() * tile_columns; ++column)
      ASSERT_EQ(packed.value(row, column), 0);
  ASSERT_EQ(packed.value(rows, 0), 0);
}

INSTANTIATE_TEST_SUITE_P(Formats, RandomPackedWeights, testing::ValuesIn(packed_formats),
                         [](const auto& test) { return format_name(test.param); });

}  // namespace
}  // namespace qnext::ops::cuda
