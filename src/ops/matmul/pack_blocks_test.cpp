// Weights stored in blocks of any type, as GGUF files hold them, to panels.
#include <gtest/gtest.h>

#include <random>

#include "ops/matmul/test_matrices.h"
#include "tensor/blocks.h"

namespace qnext::ops {
namespace {

struct Blocks {
  std::vector<std::byte> bytes;  // one byte off, so that nothing is aligned
  WeightMatrix view;

  std::vector<float> widened() const {
    std::vector<float> values(static_cast<size_t>(view.rows * view.columns));
    convert_to_float(view.dtype, view.data, values.data(), values.size());
    return values;
  }
};

Blocks random_blocks(DType dtype, int64_t rows, int64_t columns) {
  std::mt19937 random(7);
  const std::string bytes =
      qnext::random_blocks(dtype, static_cast<size_t>(rows * columns), random);
  Blocks blocks;
  blocks.bytes.resize(1 + bytes.size());
  std::memcpy(blocks.bytes.data() + 1, bytes.data(), bytes.size());
  blocks.view = {dtype, rows, columns, blocks.bytes.data() + 1, nullptr};
  return blocks;
}

void replace_quants(Blocks& blocks, int8_t from, int8_t to) {
  for (size_t at = 1; at < blocks.bytes.size(); at += sizeof(BlockQ8_0))
    for (size_t i = offsetof(BlockQ8_0, qs); i < sizeof(BlockQ8_0); ++i)
      if (blocks.bytes[at + i] == static_cast<std::byte>(from))
        blocks.bytes[at + i] = static_cast<std::byte>(to);
}

AlignedBuffer pack(const WeightMatrix& source, DType format) {
  AlignedBuffer packed = poisoned_workspace(packed_bytes(format, source.rows, source.columns));
  pack_weights(source, format, packed.data());
  return packed;
}

std::vector<float> unpack(const WeightMatrix& source, DType format, const AlignedBuffer& packed) {
  const WeightMatrix matrix{format, source.rows, source.columns, packed.data(), nullptr};
  std::vector<float> values(static_cast<size_t>(source.rows * source.columns));
  for (int64_t row = 0; row < source.rows; ++row)
    unpack_row(matrix, row, values.data() + row * source.columns);
  return values;
}

TEST(PackBlocks, MovesBlocksOfTheSameFormat) {
  for (const DType format : block_types)
    for (const int64_t rows : {1, 15, 16, 17, 130})
      for (const int64_t columns : {32, 64, 96, 256, 768, 1024}) {
        if (!can_pack(format, columns)) continue;
        Blocks blocks = random_blocks(format, rows, columns);
        if (format == DType::q8_0) replace_quants(blocks, -128, -127);
        const AlignedBuffer packed = pack(blocks.view, format);
        ASSERT_TRUE(same_bits(unpack(blocks.view, format, packed), blocks.widened()))
            << dtype_name(format) << " " << rows << " x " << columns;
      }
}

TEST(PackBlocks, EncodesAnewWhatKernelsDoNotTake) {
  Blocks blocks = random_blocks(DType::q8_0, 17, 96);
  replace_quants(blocks, 5, -128);
  const AlignedBuffer packed = pack(blocks.view, DType::q8_0);
  const std::vector<float> found = unpack(blocks.view, DType::q8_0, packed);
  const std::vector<float> stored = blocks.widened();
  size_t extreme = 0;
  for (size_t i = 0; i < stored.size(); ++i) {
    BlockQ8_0 block;
    std::memcpy(&block, blocks.bytes.data() + 1 + i / 32 * sizeof block, sizeof block);
    const float d = f16_to_float(block.d);
    extreme += block.qs[i % 32] == -128;
    // Half a step of the new block, 128 / 127 of the old, and the rounding of its scale: 2^-11 of
    // at most 127 steps.
    ASSERT_NEAR(found[i], stored[i], 0.57 * d) << i;
  }
  EXPECT_GT(extreme, 0u);
}

TEST(PackBlocks, WidensAndEncodesAllOtherTypes) {
  for (const DType type : block_types)
    for (const DType format : {DType::q8_0, DType::q4_0})
      for (const int64_t rows : {1, 16, 33})
        for (const int64_t columns : {32, 96, 256, 288, 512, 608}) {
          const auto block = static_cast<int64_t>(block_layout(type).values);
          if (type == format || columns % block != 0) continue;
          const Blocks blocks = random_blocks(type, rows, columns);
          const std::vector<float> values = blocks.widened();
          const WeightMatrix wide{DType::f32, rows, columns, values.data(), nullptr};
          const AlignedBuffer expected = pack(wide, format);
          const AlignedBuffer found = pack(blocks.view, format);
          ASSERT_EQ(std::memcmp(found.data(), expected.data(), packed_bytes(format, rows, columns)),
                    0)
              << dtype_name(type) << " as " << dtype_name(format) << ", " << rows << " x "
              << columns;
        }
}

}  // namespace
}  // namespace qnext::ops
