// Element types of stored tensors and their exact conversion to float.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace qnext {

// f8_e4m3: 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinities, S.1111.111 is NaN
// (Micikevicius et al. 2022, "FP8 formats for deep learning").
// From q8_0 on: the quantised blocks of GGUF, see tensor/blocks.h and tensor/super_blocks.h.
enum class DType {
  f32,
  f16,
  bf16,
  f8_e4m3,
  i32,
  i64,
  u8,
  boolean,
  q8_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  iq4_nl,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_xs
};

std::string_view dtype_name(DType dtype);  // "F32", "F8_E4M3" as in safetensors, "Q4_K" as in GGUF
bool is_block_quantized(DType dtype);

// How a type lies in memory: blocks of so many values in so many bytes; 1 value where there are no
// blocks. Blocks hold f16 factors for all their values at these places; unused ones are -1.
struct BlockLayout {
  size_t values = 1;
  size_t bytes = 0;
  int factors[2] = {-1, -1};
};
const BlockLayout& block_layout(DType dtype);

// Bytes of `count` consecutive values, a multiple of the values of a block.
size_t dtype_bytes(DType dtype, size_t count);

inline float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(uint32_t{bits} << 16);
}
uint16_t float_to_bf16(float value);  // round to nearest even; NaN stays NaN
float f16_to_float(uint16_t bits);
uint16_t float_to_f16(float value);  // round to nearest even; overflow to infinity
float f8_e4m3_to_float(uint8_t bits);
uint8_t float_to_f8_e4m3(float value);  // round to nearest even; beyond 448 saturates

// out[i] = the value of element i, for f32, f16, bf16, f8_e4m3 and all block types, whose values
// are exactly what their definition says. `source` need not be aligned; `count` is a multiple of
// the values of a block.
void convert_to_float(DType dtype, const void* source, float* out, size_t count);

// The type in which values of either are held exactly, blocks if there is one: q4_k is q5_k with a
// fifth bit of 0; else f32.
DType common_dtype(DType a, DType b);
// Converts to the type itself, to f32, or q4_k to q5_k: what common_dtype() gives. The values stay
// the same; counts and alignment as above, but `out` fits f32 where that is the type.
void convert(DType from, const void* source, DType to, void* out, size_t count);

// One block of any block type, of any alignment, taken apart (tensor/blocks.h).
struct BlockParts;
void split_block(DType dtype, const void* source, BlockParts& parts);

}  // namespace qnext
