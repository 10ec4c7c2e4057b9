// Element types of stored tensors and their exact conversion to float.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace qnext {

// f8_e4m3: 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinities, S.1111.111 is NaN
// (Micikevicius et al. 2022, "FP8 formats for deep learning").
// q8_0, q4_0: GGUF blocks of 32 values, see tensor/blocks.h.
enum class DType { f32, f16, bf16, f8_e4m3, i32, i64, u8, boolean, q8_0, q4_0 };

std::string_view dtype_name(DType dtype);  // "F32", "BF16", "F8_E4M3", ..., as in safetensors
bool is_block_quantized(DType dtype);
// Bytes of `count` consecutive values; a block format needs count % 32 == 0.
size_t dtype_bytes(DType dtype, size_t count);

inline float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(uint32_t{bits} << 16);
}
uint16_t float_to_bf16(float value);  // round to nearest even; NaN stays NaN
float f16_to_float(uint16_t bits);
uint16_t float_to_f16(float value);  // round to nearest even; overflow to infinity
float f8_e4m3_to_float(uint8_t bits);
uint8_t float_to_f8_e4m3(float value);  // round to nearest even; beyond 448 saturates

// out[i] = the value of element i, for f32, f16, bf16, f8_e4m3. `source` need not be aligned.
void convert_to_float(DType dtype, const void* source, float* out, size_t count);

}  // namespace qnext
