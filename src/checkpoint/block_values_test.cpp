// Every quantised block type against the values that the gguf package of PyPI gives
// (tools/make_block_vectors.py).
#include <gtest/gtest.h>

#include <bit>

#include "checkpoint/safetensors.h"

namespace qnext {
namespace {

constexpr DType block_types[] = {DType::q8_0, DType::q4_0,   DType::q4_1, DType::q5_0,
                                 DType::q5_1, DType::iq4_nl, DType::q2_k, DType::q3_k,
                                 DType::q4_k, DType::q5_k,   DType::q6_k, DType::iq4_xs};

TEST(BlockValues, AreBitForBitThoseOfTheGgufPackage) {
  const SafetensorsFile vectors(QNEXT_SOURCE_DIR "/tests/data/gguf-blocks.safetensors");
  for (const DType dtype : block_types) {
    const std::string name(dtype_name(dtype));
    const StoredTensor& blocks = vectors.get(name + ".blocks");
    const StoredTensor& values = vectors.get(name + ".values");
    const auto count = static_cast<size_t>(values.elements());
    ASSERT_TRUE(is_block_quantized(dtype)) << name;
    ASSERT_EQ(blocks.bytes, dtype_bytes(dtype, count)) << name;
    ASSERT_EQ(static_cast<size_t>(blocks.shape[1]), block_layout(dtype).bytes) << name;
    std::vector<float> expected(count), found(count, -1);
    convert_to_float(DType::f32, values.data, expected.data(), count);
    convert_to_float(dtype, blocks.data, found.data(), count);
    for (size_t i = 0; i < count; ++i)
      ASSERT_EQ(std::bit_cast<uint32_t>(found[i]), std::bit_cast<uint32_t>(expected[i]))
          << name << ", value " << i << ": " << found[i] << " for " << expected[i];
  }
}

}  // namespace
}  // namespace qnext
