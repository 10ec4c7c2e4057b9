#include "tensor/dtype.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "base/error.h"
#include "tensor/blocks.h"
#include "tensor/super_blocks.h"

namespace qnext {

std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::f16:
      return "F16";
    case DType::bf16:
      return "BF16";
    case DType::f8_e4m3:
      return "F8_E4M3";
    case DType::i32:
      return "I32";
    case DType::i64:
      return "I64";
    case DType::u8:
      return "U8";
    case DType::boolean:
      return "BOOL";
    case DType::q8_0:
      return "Q8_0";
    case DType::q4_0:
      return "Q4_0";
    case DType::q4_1:
      return "Q4_1";
    case DType::q5_0:
      return "Q5_0";
    case DType::q5_1:
      return "Q5_1";
    case DType::iq4_nl:
      return "IQ4_NL";
    case DType::q2_k:
      return "Q2_K";
    case DType::q3_k:
      return "Q3_K";
    case DType::q4_k:
      return "Q4_K";
    case DType::q5_k:
      return "Q5_K";
    case DType::q6_k:
      return "Q6_K";
    case DType::iq4_xs:
      return "IQ4_XS";
  }
  return "?";
}

bool is_block_quantized(DType dtype) {
  return block_layout(dtype).values > 1;
}

const BlockLayout& block_layout(DType dtype) {
  constexpr size_t count = static_cast<size_t>(DType::iq4_xs) + 1;
  static constexpr std::array<BlockLayout, count> layouts = [] {
    std::array<BlockLayout, count> table{};
    const auto set = [&](DType type, const BlockLayout& layout) {
      table[static_cast<size_t>(type)] = layout;
    };
    set(DType::f32, {1, 4});
    set(DType::f16, {1, 2});
    set(DType::bf16, {1, 2});
    set(DType::f8_e4m3, {1, 1});
    set(DType::i32, {1, 4});
    set(DType::i64, {1, 8});
    set(DType::u8, {1, 1});
    set(DType::boolean, {1, 1});
    set(DType::q8_0, {block_values, sizeof(BlockQ8_0), {offsetof(BlockQ8_0, d), -1}});
    set(DType::q4_0, {block_values, sizeof(BlockQ4_0), {offsetof(BlockQ4_0, d), -1}});
    set(DType::q4_1,
        {block_values, sizeof(BlockQ4_1), {offsetof(BlockQ4_1, d), offsetof(BlockQ4_1, minimum)}});
    set(DType::q5_0, {block_values, sizeof(BlockQ5_0), {offsetof(BlockQ5_0, d), -1}});
    set(DType::q5_1,
        {block_values, sizeof(BlockQ5_1), {offsetof(BlockQ5_1, d), offsetof(BlockQ5_1, minimum)}});
    set(DType::iq4_nl, {block_values, sizeof(BlockIQ4_NL), {offsetof(BlockIQ4_NL, d), -1}});
    set(DType::q2_k, {super_block_values,
                      sizeof(BlockQ2_K),
                      {offsetof(BlockQ2_K, d), offsetof(BlockQ2_K, minimum)}});
    set(DType::q3_k, {super_block_values, sizeof(BlockQ3_K), {offsetof(BlockQ3_K, d), -1}});
    set(DType::q4_k, {super_block_values,
                      sizeof(BlockQ4_K),
                      {offsetof(BlockQ4_K, d), offsetof(BlockQ4_K, minimum)}});
    set(DType::q5_k, {super_block_values,
                      sizeof(BlockQ5_K),
                      {offsetof(BlockQ5_K, d), offsetof(BlockQ5_K, minimum)}});
    set(DType::q6_k, {super_block_values, sizeof(BlockQ6_K), {offsetof(BlockQ6_K, d), -1}});
    set(DType::iq4_xs, {super_block_values, sizeof(BlockIQ4_XS), {offsetof(BlockIQ4_XS, d), -1}});
    return table;
  }();
  return layouts[static_cast<size_t>(dtype)];
}

size_t dtype_bytes(DType dtype, size_t count) {
  const BlockLayout& layout = block_layout(dtype);
  QNEXT_CHECK(count % layout.values == 0, "{} values of {}", count, dtype_name(dtype));
  return count / layout.values * layout.bytes;
}

uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  const uint32_t round = 0x7FFF + (bits >> 16 & 1);
  return static_cast<uint16_t>((bits + round) >> 16);
}

float f16_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = bits >> 10 & 0x1F;
  const uint32_t mantissa = bits & 0x3FF;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000 | mantissa << 13);
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t float_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const float magnitude = std::abs(value);
  if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7E00);
  if (magnitude >= 65520.0f) return static_cast<uint16_t>(sign | 0x7C00);
  if (magnitude < 0x1p-14f) {
    // Subnormal: nearbyint rounds to even; 1024 carries into the smallest normal by itself.
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24f)));
  }
  const uint32_t magnitude_bits = bits & 0x7FFFFFFF;
  const uint32_t rounded = magnitude_bits + 0xFFF + (magnitude_bits >> 13 & 1);
  return static_cast<uint16_t>(sign | ((rounded >> 13) - (112u << 10)));
}

float f8_e4m3_to_float(uint8_t bits) {
  const float sign = bits & 0x80 ? -1.0f : 1.0f;
  const int exponent = bits >> 3 & 15;
  const int mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return std::bit_cast<float>(0x7FC00000u);
  if (exponent == 0) return sign * static_cast<float>(mantissa) * 0x1p-9f;
  return sign * std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
}

uint8_t float_to_f8_e4m3(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (std::isnan(value)) return static_cast<uint8_t>(sign | 0x7F);
  const float magnitude = std::abs(value);
  if (magnitude >= 448.0f) return static_cast<uint8_t>(sign | 0x7E);
  if (magnitude < 0x1p-6f)
    return static_cast<uint8_t>(sign | static_cast<uint8_t>(std::nearbyint(magnitude * 0x1p9f)));
  const uint32_t bits = std::bit_cast<uint32_t>(magnitude);
  const uint32_t rounded = bits + 0x7FFFF + (bits >> 20 & 1);
  return static_cast<uint8_t>(sign | ((rounded >> 20) - (120u << 3)));
}

namespace {

template <typename Block>
void decode_all(const void* source, float* out, size_t count) {
  constexpr size_t values = values_of<Block>;
  QNEXT_CHECK(count % values == 0, "{} values in blocks of {}", count, values);
  const auto* bytes = static_cast<const std::byte*>(source);
  for (size_t i = 0; i < count / values; ++i) {
    Block block;
    std::memcpy(&block, bytes + i * sizeof block, sizeof block);
    decode(block, out + i * values);
  }
}

template <typename Block>
void split_one(const void* source, BlockParts& parts) {
  Block block;
  std::memcpy(&block, source, sizeof block);
  split(block, parts);
}

}  // namespace

void split_block(DType dtype, const void* source, BlockParts& parts) {
  switch (dtype) {
    case DType::q8_0:
      return split_one<BlockQ8_0>(source, parts);
    case DType::q4_0:
      return split_one<BlockQ4_0>(source, parts);
    case DType::q4_1:
      return split_one<BlockQ4_1>(source, parts);
    case DType::q5_0:
      return split_one<BlockQ5_0>(source, parts);
    case DType::q5_1:
      return split_one<BlockQ5_1>(source, parts);
    case DType::iq4_nl:
      return split_one<BlockIQ4_NL>(source, parts);
    case DType::q2_k:
      return split_one<BlockQ2_K>(source, parts);
    case DType::q3_k:
      return split_one<BlockQ3_K>(source, parts);
    case DType::q4_k:
      return split_one<BlockQ4_K>(source, parts);
    case DType::q5_k:
      return split_one<BlockQ5_K>(source, parts);
    case DType::q6_k:
      return split_one<BlockQ6_K>(source, parts);
    case DType::iq4_xs:
      return split_one<BlockIQ4_XS>(source, parts);
    default:
      QNEXT_CHECK(false, "{} has no blocks", dtype_name(dtype));
  }
}

void convert_to_float(DType dtype, const void* source, float* out, size_t count) {
  const auto load16 = [&](size_t i) {
    uint16_t bits;
    std::memcpy(&bits, static_cast<const std::byte*>(source) + 2 * i, 2);
    return bits;
  };
  if (count == 0) return;  // pointers may be null
  switch (dtype) {
    case DType::f32:
      std::memcpy(out, source, count * 4);
      return;
    case DType::bf16:
      for (size_t i = 0; i < count; ++i) out[i] = bf16_to_float(load16(i));
      return;
    case DType::f16:
      for (size_t i = 0; i < count; ++i) out[i] = f16_to_float(load16(i));
      return;
    case DType::f8_e4m3: {
      static const auto table = [] {
        std::array<float, 256> values{};
        for (size_t i = 0; i < 256; ++i) values[i] = f8_e4m3_to_float(static_cast<uint8_t>(i));
        return values;
      }();
      const auto* bytes = static_cast<const uint8_t*>(source);
      for (size_t i = 0; i < count; ++i) out[i] = table[bytes[i]];
      return;
    }
    case DType::q8_0:
      return decode_all<BlockQ8_0>(source, out, count);
    case DType::q4_0:
      return decode_all<BlockQ4_0>(source, out, count);
    case DType::q4_1:
      return decode_all<BlockQ4_1>(source, out, count);
    case DType::q5_0:
      return decode_all<BlockQ5_0>(source, out, count);
    case DType::q5_1:
      return decode_all<BlockQ5_1>(source, out, count);
    case DType::iq4_nl:
      return decode_all<BlockIQ4_NL>(source, out, count);
    case DType::q2_k:
      return decode_all<BlockQ2_K>(source, out, count);
    case DType::q3_k:
      return decode_all<BlockQ3_K>(source, out, count);
    case DType::q4_k:
      return decode_all<BlockQ4_K>(source, out, count);
    case DType::q5_k:
      return decode_all<BlockQ5_K>(source, out, count);
    case DType::q6_k:
      return decode_all<BlockQ6_K>(source, out, count);
    case DType::iq4_xs:
      return decode_all<BlockIQ4_XS>(source, out, count);
    default:
      QNEXT_CHECK(false, "no conversion of {} to float", dtype_name(dtype));
  }
}

DType common_dtype(DType a, DType b) {
  if (a == b) return a;
  const bool are_k =
      (a == DType::q4_k || a == DType::q5_k) && (b == DType::q4_k || b == DType::q5_k);
  return are_k ? DType::q5_k : DType::f32;
}

void convert(DType from, const void* source, DType to, void* out, size_t count) {
  if (from == to) {
    std::memcpy(out, source, dtype_bytes(from, count));
  } else if (to == DType::f32) {
    convert_to_float(from, source, static_cast<float*>(out), count);
  } else {
    QNEXT_CHECK(from == DType::q4_k && to == DType::q5_k, "no conversion of {} to {}",
                dtype_name(from), dtype_name(to));
    for (size_t b = 0; b < count / super_block_values; ++b) {
      BlockQ4_K block;
      std::memcpy(&block, static_cast<const std::byte*>(source) + b * sizeof block, sizeof block);
      const BlockQ5_K wider = as_q5_k(block);
      std::memcpy(static_cast<std::byte*>(out) + b * sizeof wider, &wider, sizeof wider);
    }
  }
}

}  // namespace qnext
