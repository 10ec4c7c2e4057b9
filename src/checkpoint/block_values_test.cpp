// A file that the gguf package of PyPI wrote, and the values that it gives to every type of tensor
// (tools/make_block_vectors.py).
#include <gtest/gtest.h>

#include <bit>

#include "checkpoint/finite.h"
#include "checkpoint/gguf.h"
#include "checkpoint/safetensors.h"

namespace qnext {
namespace {

const std::string data = QNEXT_SOURCE_DIR "/tests/data/gguf-blocks";

TEST(BlockValues, AreBitForBitThoseOfTheGgufPackage) {
  const GgufFiles files(data + ".gguf");
  const SafetensorsFile vectors(data + ".safetensors");
  ASSERT_EQ(files.tensors().size(), 15u);
  ASSERT_EQ(vectors.tensors().size(), 15u);
  for (const StoredTensor& tensor : files.tensors()) {
    EXPECT_EQ(tensor.name, dtype_name(tensor.dtype));
    const StoredTensor& values = vectors.get(tensor.name);
    ASSERT_EQ(tensor.shape, values.shape) << tensor.name;
    check_finite(tensor);
    const std::vector<float> expected = widened(values);
    const std::vector<float> found = widened(tensor);
    for (size_t i = 0; i < expected.size(); ++i)
      ASSERT_EQ(std::bit_cast<uint32_t>(found[i]), std::bit_cast<uint32_t>(expected[i]))
          << tensor.name << ", value " << i << ": " << found[i] << " for " << expected[i];
  }
}

TEST(BlockValues, TheFileHasItsMetadata) {
  const GgufFiles files(data + ".gguf");
  const GgufMetadata& metadata = files.metadata();
  EXPECT_EQ(metadata.string("general.architecture"), "sample");
  EXPECT_EQ(metadata.integer("sample.u8"), 200);
  EXPECT_EQ(metadata.integer("sample.i8"), -2);
  EXPECT_EQ(metadata.integer("sample.u16"), 60000);
  EXPECT_EQ(metadata.integer("sample.i16"), -3);
  EXPECT_EQ(metadata.integer("sample.u32"), 4000000000);
  EXPECT_EQ(metadata.integer("sample.i32"), -4);
  EXPECT_EQ(metadata.integer("sample.u64"), int64_t{1} << 62);
  EXPECT_EQ(metadata.integer("sample.i64"), -5);
  EXPECT_EQ(metadata.number("sample.f32"), 0.5);
  EXPECT_EQ(metadata.number("sample.f64"), 0.25);
  EXPECT_EQ(metadata.find_boolean("sample.boolean"), true);
  EXPECT_EQ(metadata.string("sample.text"), "Grüße\n");
  EXPECT_EQ(metadata.strings("sample.texts"), (std::vector<std::string_view>{"x", "yz"}));
  EXPECT_EQ(metadata.find_integers("sample.integers"), (std::vector<int64_t>{7, -8}));
}

}  // namespace
}  // namespace qnext
