#include "checkpoint/finite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <random>

#include "base/error.h"

namespace qnext {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// Against the conversions of tensor/dtype.h, for every bit pattern of the narrow types.
TEST(FirstNonFinite, AgreesWithTheValueOfEveryPattern) {
  for (const auto& [dtype, patterns] :
       {std::pair{DType::f16, 65536u}, {DType::bf16, 65536u}, {DType::f8_e4m3, 256u}})
    for (uint32_t bits = 0; bits < patterns; ++bits) {
      float value;
      convert_to_float(dtype, &bits, &value, 1);
      EXPECT_EQ(first_non_finite(dtype, &bits, 1).has_value(), !std::isfinite(value))
          << dtype_name(dtype) << " " << bits;
    }
  for (float value : {0.0f, -1.0f, 3.4e38f, 1e-45f})
    EXPECT_FALSE(first_non_finite(DType::f32, &value, 1));
  for (float value : {INFINITY, -INFINITY, NAN, -NAN})
    EXPECT_EQ(first_non_finite(DType::f32, &value, 1), 0u);
}

TEST(FirstNonFinite, FindsTheFirstWhereverItIs) {
  for (DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f8_e4m3}) {
    const size_t size = dtype_bytes(dtype, 1);
    for (size_t count : {1u, 511u, 512u, 513u, 1700u})
      for (size_t bad = 0; bad < count; bad += 37) {
        // One byte off, so that unaligned data are covered.
        std::vector<std::byte> storage(1 + count * size);
        std::byte* data = storage.data() + 1;
        EXPECT_FALSE(first_non_finite(dtype, data, count));
        std::memset(data + bad * size, 0xFF, size);
        std::memset(data + (count - 1) * size, 0xFF, size);
        EXPECT_EQ(first_non_finite(dtype, data, count), bad);
        EXPECT_FALSE(first_non_finite(dtype, data, bad));
      }
  }
}

// A factor that is not finite spoils its block, whatever the rest of it says, and nothing else
// does.
TEST(FirstNonFinite, FindsTheFirstDamagedBlock) {
  std::mt19937 random(1);
  for (DType dtype :
       {DType::q8_0, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::iq4_nl, DType::q2_k,
        DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k, DType::iq4_xs}) {
    const size_t values = 20 * block_layout(dtype).values;
    std::vector<std::byte> blocks(dtype_bytes(dtype, values));
    std::vector<float> decoded(values);
    for (int i = 0; i < 200; ++i) {
      for (std::byte& byte : blocks) byte = static_cast<std::byte>(random());
      convert_to_float(dtype, blocks.data(), decoded.data(), values);
      std::optional<size_t> expected;
      for (size_t v = 0; v < values && !expected; ++v)
        if (!std::isfinite(decoded[v])) expected = v;
      ASSERT_EQ(first_non_finite(dtype, blocks.data(), values), expected) << dtype_name(dtype);
    }
  }
}

TEST(FirstNonFinite, IntegersAreAlwaysFinite) {
  const std::vector<std::byte> ones(64, std::byte{0xFF});
  for (DType dtype : {DType::i32, DType::i64, DType::u8, DType::boolean})
    EXPECT_FALSE(first_non_finite(dtype, ones.data(), 8));
}

TEST(CheckFinite, NamesTensorAndIndex) {
  const float values[] = {1, 2, NAN, 4};
  StoredTensor tensor{"model.norm.weight", DType::f32, {2, 2}};
  tensor.data = reinterpret_cast<const std::byte*>(values);
  tensor.bytes = sizeof values;
  EXPECT_THAT([&] { check_finite(tensor); },
              ThrowsMessage<Error>(
                  HasSubstr("tensor model.norm.weight: value 2 of 4 is not a finite number")));
}

}  // namespace
}  // namespace qnext
