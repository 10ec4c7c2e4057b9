#include <gtest/gtest.h>

#include "ops/matmul/test_matrices.h"
#include "tensor/blocks.h"
#include "tensor/encode_row.h"

namespace qnext::ops {
namespace {

template <typename Block>
std::vector<float> through_block(const std::vector<float>& row) {
  std::vector<float> out(row.size());
  for (size_t i = 0; i < row.size(); i += block_values) {
    Block block;
    encode(row.data() + i, block);
    decode(block, out.data() + i);
  }
  return out;
}

void expect_published_encoding(const TestMatrix& source, DType format) {
  const WeightMatrix& view = source.view;
  AlignedBuffer packed = poisoned_workspace(packed_bytes(format, view.rows, view.columns));
  pack_weights(view, format, packed.data());
  const WeightMatrix matrix{format, view.rows, view.columns, packed.data(), nullptr};
  for (int64_t n = 0; n < view.rows; ++n) {
    std::vector<float> row(static_cast<size_t>(view.columns));
    unpack_row(matrix, n, row.data());
    const std::vector<float> values = source.row(n);
    ASSERT_TRUE(same_bits(row, format == DType::q8_0 ? through_block<BlockQ8_0>(values)
                                                     : through_block<BlockQ4_0>(values)))
        << "row " << n << " of " << view.rows << " x " << view.columns << " "
        << dtype_name(view.dtype) << " as " << dtype_name(format);
  }
}

class PackWeightsTest : public testing::TestWithParam<std::tuple<DType, DType, Isa>> {
 protected:
  IsaLimit limit_{std::get<2>(GetParam())};
};

TEST_P(PackWeightsTest, EncodesAsPublished) {
  const auto [source, format, isa] = GetParam();
  for (int64_t columns : {32, 64, 96, 160, 1024})
    for (int64_t rows : {1, 15, 16, 17, 130})
      expect_published_encoding(random_matrix(source, rows, columns, 1), format);
}

// Zero blocks, ties of magnitude, halves, subnormals, values whose scale overflows f16.
TEST_P(PackWeightsTest, EncodesTheUnusual) {
  const auto [source, format, isa] = GetParam();
  std::vector<float> values;
  for (float scale :
       {0.0f, 1.0f, -1.0f, 0x1p-20f, 0x1p-60f, 0x1p-126f, 0x1p-140f, 0x1p20f, 0x1p120f})
    for (int i = 0; i < 32; ++i)
      values.push_back(scale * static_cast<float>((i * 37) % 32 - 16) / 2);
  for (float steps : {127.0f, 254.0f, 7.0f})
    for (int i = 0; i < 32; ++i) values.push_back(i == 0 ? steps : static_cast<float>(i - 16) / 2);
  for (float value : {std::nanf(""), std::numeric_limits<float>::infinity()})
    for (int i = 0; i < 32; ++i) values.push_back(i % 5 == 3 ? value : static_cast<float>(i));
  TestMatrix matrix;
  matrix.bytes = stored(values, source);
  matrix.block_scales = {1, 1, 1, 1, 1};
  matrix.view = {source, 1, static_cast<int64_t>(values.size()), matrix.bytes.data() + 1,
                 matrix.block_scales.data()};
  expect_published_encoding(matrix, format);
}

TEST_P(PackWeightsTest, PadsWithZeros) {
  const auto [source, format, isa] = GetParam();
  const TestMatrix matrix = random_matrix(source, 3, 96, 2);
  AlignedBuffer packed = poisoned_workspace(packed_bytes(format, 3, 96));
  pack_weights(matrix.view, format, packed.data());
  const WeightMatrix padded{format, 16, 96, packed.data(), nullptr};
  for (int64_t n = 3; n < 16; ++n) {
    std::vector<float> row = poisoned(96);
    unpack_row(padded, n, row.data());
    for (float value : row) ASSERT_EQ(value, 0.0f);
  }
}

INSTANTIATE_TEST_SUITE_P(SourcesFormatsIsas, PackWeightsTest,
                         testing::Combine(testing::Values(DType::f32, DType::f16, DType::bf16,
                                                          DType::f8_e4m3),
                                          testing::Values(DType::q8_0, DType::q4_0),
                                          testing::ValuesIn(available_isas())),
                         [](const auto& test) {
                           return std::string(dtype_name(std::get<0>(test.param))) + "_" +
                                  std::string(dtype_name(std::get<1>(test.param))) + "_" +
                                  std::string(isa_name(std::get<2>(test.param)));
                         });

TEST(PackWeightsBySearchTest, HoldsWhatTheEncoderGives) {
  for (DType format : {DType::q4_k, DType::q5_k, DType::q6_k, DType::q4_1})
    for (DType source : {DType::f32, DType::bf16, DType::f8_e4m3, DType::q8_0}) {
      constexpr int64_t rows = 17, columns = 768;
      const TestMatrix matrix = random_matrix(source, rows, columns, 3);
      WeightMatrix view = matrix.view;
      std::vector<float> decoded;
      for (int64_t n = 0; n < rows; ++n) {
        const std::vector<float> row = matrix.row(n);
        decoded.insert(decoded.end(), row.begin(), row.end());
      }
      const std::vector<std::byte> published = stored(decoded, DType::f32);
      if (is_block_quantized(source))
        view = {DType::f32, rows, columns, published.data() + 1, nullptr};
      AlignedBuffer packed = poisoned_workspace(packed_bytes(format, rows, columns));
      pack_weights(view, format, packed.data());
      std::vector<std::byte> blocks(dtype_bytes(format, columns));
      for (int64_t n = 0; n < rows; ++n) {
        encode_row(format, decoded.data() + n * columns, nullptr, columns, blocks.data());
        std::vector<float> expected(columns), found = poisoned(columns);
        convert_to_float(format, blocks.data(), expected.data(), columns);
        unpack_row({format, rows, columns, packed.data(), nullptr}, n, found.data());
        ASSERT_TRUE(same_bits(found, expected))
            << dtype_name(source) << " as " << dtype_name(format);
      }
    }
}

TEST(CanPackTest, NeedsWholeBlocks) {
  EXPECT_TRUE(can_pack(DType::q4_0, 64));
  EXPECT_FALSE(can_pack(DType::q4_0, 63));
  EXPECT_TRUE(can_pack(DType::q4_k, 512));
  EXPECT_FALSE(can_pack(DType::q4_k, 288));
  EXPECT_FALSE(can_pack(DType::bf16, 64));
}

}  // namespace
}  // namespace qnext::ops
