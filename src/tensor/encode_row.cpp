#include "tensor/encode_row.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/cpu_features.h"
#include "base/error.h"
#include "tensor/block_search.h"
#include "tensor/write_levels.h"

namespace qnext {

namespace {

constexpr IsaTable<LevelSearch> searches{search_levels_scalar, search_levels_avx2,
                                         search_levels_avx512};

// Starts go beyond the ends of the levels, which lets extremes saturate, and short of them.
constexpr LevelGrid grid_of(DType dtype) {
  switch (dtype) {
    case DType::q8_0:
      return {32, -127, 127, 0, 0, false, false, {127, 127.5f, 126.5f, 128}, 4};
    case DType::q4_0:
      return {32, -8,    7,     0,
              0,  false, false, {-8, -7.4f, -7.7f, -8.3f, -8.6f, -9.3f, 7, 6.6f, 7.4f, 7.8f},
              10};
    case DType::q5_0:
      return {32, -16, 15, 0, 0, false, false, {-16, -15.3f, -16.5f, -17.2f, 15, 15.5f, 16.2f}, 7};
    case DType::q4_1:
      return {32, 0, 15, 0, 0, true, false, {15, 14.5f, 15.5f, 16, 16.7f, 14}, 6};
    case DType::q5_1:
      return {32, 0, 31, 0, 0, true, false, {31, 30.5f, 31.5f, 32, 33, 29.5f, 28}, 7};
    case DType::q4_k:
      return {32, 0, 15, 0, 63, true, false, {15, 14.5f, 15.5f, 16, 16.7f, 14}, 6};
    case DType::q5_k:
      return {32, 0, 31, 0, 63, true, false, {31, 30.5f, 31.5f, 32, 33, 29.5f, 28}, 7};
    case DType::q2_k:
      return {16, 0, 3, 0, 15, true, false, {3, 2.7f, 3.3f, 3.6f, 4, 2.4f}, 6};
    case DType::q3_k:
      return {16, -4,    3,     -32,
              31, false, false, {-4, -3.5f, -3.75f, -4.25f, -4.6f, -3.2f, 3, 2.75f, 3.3f, 3.7f},
              10};
    case DType::q6_k:
      return {16, -32, 31, -128, 127, false, false, {-32, -31.3f, -32.5f, 31, 31.5f}, 5};
    case DType::iq4_nl:
      return {32, -127, 113, 0, 0, false, true, {-127, -134, -122, -117, -112, 113, 119, 108}, 8};
    case DType::iq4_xs:
      return {32, -127, 113, -32, 31, false, true, {-127, -134, -122, -117, -112, 113, 119, 108},
              8};
    default:
      return {};
  }
}

// Weights that add up to about their number, none so small that sums of them vanish.
void normalize(const float* importance, size_t count, std::vector<float>& weights) {
  weights.assign(count, 1.0f);
  if (!importance) return;
  double total = 0;
  for (size_t i = 0; i < count; ++i) {
    if (!(importance[i] >= 0) || !std::isfinite(importance[i]))
      fail("importance {} of a row is {}; it must be a finite number, not below 0", i,
           importance[i]);
    total += importance[i];
  }
  if (total == 0) return;
  const double scale = static_cast<double>(count) / total;
  for (size_t i = 0; i < count; ++i)
    weights[i] = std::max(0x1p-16f, static_cast<float>(importance[i] * scale));
}

void check_values(const float* values, size_t count) {
  for (size_t i = 0; i < count; ++i)
    if (!std::isfinite(values[i])) fail("value {} is not a finite number", i);
}

// Writes the blocks of up to 256 values.
template <typename Block>
void encode_tile(const LevelGrid& grid, const float* values, const float* weights, size_t count,
                 std::byte* out) {
  float x[searched_values] = {}, w[searched_values];
  if (count < searched_values) {
    std::copy(values, values + count, x);
    std::fill(std::copy(weights, weights + count, w), w + searched_values, 1.0f);
    values = x;
    weights = w;
  }
  LevelFit fit;
  searches.choose()(grid, values, weights, fit);
  for (size_t i = 0; i < count / values_of<Block>; ++i) {
    Block block;
    write_levels(fit, static_cast<int>(i), block);
    std::memcpy(out + i * sizeof block, &block, sizeof block);
  }
}

template <typename Block>
void encode_published(const float* values, size_t count, std::byte* out) {
  for (size_t i = 0; i < count; i += block_values, out += sizeof(Block)) {
    Block block;
    encode(values + i, block);
    std::memcpy(out, &block, sizeof block);
  }
}

void encode_blocks(DType dtype, const float* values, const float* weights, size_t count,
                   std::byte* out) {
  const LevelGrid grid = grid_of(dtype);
  const auto with = [&]<typename Block>(Block) {
    for (size_t i = 0; i < count; i += searched_values) {
      const size_t here = std::min<size_t>(searched_values, count - i);
      encode_tile<Block>(grid, values + i, weights + i, here, out + dtype_bytes(dtype, i));
    }
  };
  switch (dtype) {
    case DType::q8_0:
      return with(BlockQ8_0{});
    case DType::q4_0:
      return with(BlockQ4_0{});
    case DType::q4_1:
      return with(BlockQ4_1{});
    case DType::q5_0:
      return with(BlockQ5_0{});
    case DType::q5_1:
      return with(BlockQ5_1{});
    case DType::iq4_nl:
      return with(BlockIQ4_NL{});
    case DType::q2_k:
      return with(BlockQ2_K{});
    case DType::q3_k:
      return with(BlockQ3_K{});
    case DType::q4_k:
      return with(BlockQ4_K{});
    case DType::q5_k:
      return with(BlockQ5_K{});
    case DType::q6_k:
      return with(BlockQ6_K{});
    case DType::iq4_xs:
      return with(BlockIQ4_XS{});
    default:
      QNEXT_CHECK(false, "no encoder of {}", dtype_name(dtype));
  }
}

void check_factors(DType dtype, size_t count, const std::byte* blocks) {
  const BlockLayout& layout = block_layout(dtype);
  for (size_t i = 0; i < count / layout.values; ++i)
    for (const int factor : layout.factors) {
      if (factor < 0) continue;
      uint16_t bits;
      std::memcpy(&bits, blocks + i * layout.bytes + static_cast<size_t>(factor), sizeof bits);
      if ((bits & 0x7C00) == 0x7C00)
        fail("values from {} on are too large for {}: the f16 factor of their block overflows",
             i * layout.values, dtype_name(dtype));
    }
}

// f16 and bf16.
template <typename Round>
void round_all(const float* values, size_t count, std::byte* out, DType dtype, Round&& round) {
  for (size_t i = 0; i < count; ++i) {
    const uint16_t bits = round(values[i]);
    if (dtype == DType::f16 && (bits & 0x7C00) == 0x7C00)
      fail("value {} = {} is too large for F16", i, values[i]);
    std::memcpy(out + 2 * i, &bits, sizeof bits);
  }
}

}  // namespace

bool can_encode(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16 ||
         is_block_quantized(dtype);
}

void encode_row(DType dtype, const float* values, const float* importance, size_t count,
                void* blocks) {
  check_values(values, count);
  auto* out = static_cast<std::byte*>(blocks);
  if (count == 0) return;
  switch (dtype) {
    case DType::f32:
      std::memcpy(out, values, count * sizeof(float));
      return;
    case DType::f16:
      return round_all(values, count, out, dtype, float_to_f16);
    case DType::bf16:
      return round_all(values, count, out, dtype, float_to_bf16);
    default:
      break;
  }
  QNEXT_CHECK(count % block_layout(dtype).values == 0, "{} values of {}", count, dtype_name(dtype));
  if (!importance && dtype == DType::q8_0) {
    encode_published<BlockQ8_0>(values, count, out);
  } else if (!importance && dtype == DType::q4_0) {
    encode_published<BlockQ4_0>(values, count, out);
  } else {
    std::vector<float> weights;
    normalize(importance, count, weights);
    encode_blocks(dtype, values, weights.data(), count, out);
  }
  check_factors(dtype, count, out);
}

}  // namespace qnext
