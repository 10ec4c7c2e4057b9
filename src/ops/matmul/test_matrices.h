// Random matrices of every weight type, for the tests of products and of mixtures of experts.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/cpu_features.h"
#include "ops/matmul/matmul.h"
#include "tensor/testing/random_blocks.h"

namespace qnext::ops {

inline const DType weight_types[] = {DType::f32,  DType::f16,    DType::bf16, DType::f8_e4m3,
                                     DType::q8_0, DType::q4_0,   DType::q4_1, DType::q5_0,
                                     DType::q5_1, DType::iq4_nl, DType::q2_k, DType::q3_k,
                                     DType::q4_k, DType::q5_k,   DType::q6_k, DType::iq4_xs};
inline const std::span<const DType> block_types = std::span(weight_types).subspan(4);

inline std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512})
    if (isa <= best_isa()) isas.push_back(isa);
  return isas;
}

// Limits the instruction set within a scope.
class IsaLimit {
 public:
  explicit IsaLimit(Isa isa) { limit_isa(isa); }
  ~IsaLimit() { limit_isa(Isa::avx512); }
  IsaLimit(const IsaLimit&) = delete;
  IsaLimit& operator=(const IsaLimit&) = delete;
};

struct TestMatrix {
  WeightMatrix view;
  std::vector<std::byte> bytes;  // row-major types: from bytes[1] on, to be unaligned
  AlignedBuffer packed;
  std::vector<float> block_scales;

  std::vector<float> row(int64_t n) const {
    std::vector<float> values(static_cast<size_t>(view.columns));
    unpack_row(view, n, values.data());
    return values;
  }
};

inline std::vector<float> random_floats(size_t count, unsigned seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

inline std::vector<std::byte> stored(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> bytes(dtype_bytes(dtype, values.size()) + 1);
  std::byte* out = bytes.data() + 1;
  for (float value : values) {
    const uint16_t half = dtype == DType::f16 ? float_to_f16(value) : float_to_bf16(value);
    const uint8_t byte = float_to_f8_e4m3(value);
    const void* from = dtype == DType::f32       ? static_cast<const void*>(&value)
                       : dtype == DType::f8_e4m3 ? static_cast<const void*>(&byte)
                                                 : static_cast<const void*>(&half);
    std::memcpy(out, from, dtype_bytes(dtype, 1));
    out += dtype_bytes(dtype, 1);
  }
  return bytes;
}

inline TestMatrix random_matrix(DType dtype, int64_t rows, int64_t columns, unsigned seed) {
  const std::vector<float> values = random_floats(static_cast<size_t>(rows * columns), seed);
  TestMatrix matrix;
  matrix.view = {dtype, rows, columns, nullptr, nullptr};
  if (is_block_quantized(dtype)) {
    WeightMatrix source{DType::f32, rows, columns, values.data(), nullptr};
    std::string blocks;
    if (dtype != DType::q8_0 && dtype != DType::q4_0) {
      std::mt19937 random(seed);
      blocks = qnext::random_blocks(dtype, values.size(), random);
      source = {dtype, rows, columns, blocks.data(), nullptr};
    }
    matrix.packed = AlignedBuffer(packed_bytes(dtype, rows, columns), "packed weights");
    pack_weights(source, dtype, matrix.packed.data());
    matrix.view.data = matrix.packed.data();
    return matrix;
  }
  matrix.bytes = stored(values, dtype);
  matrix.view.data = matrix.bytes.data() + 1;
  if (dtype == DType::f8_e4m3) {
    const int64_t blocks = ((rows + 127) / 128) * ((columns + 127) / 128);
    matrix.block_scales = random_floats(static_cast<size_t>(blocks), seed + 1);
    matrix.view.block_scales = matrix.block_scales.data();
  }
  return matrix;
}

// Memory that a kernel must write before it reads it.
inline std::vector<float> poisoned(size_t count) {
  return std::vector<float>(count, std::numeric_limits<float>::quiet_NaN());
}
inline AlignedBuffer poisoned_workspace(size_t bytes) {
  AlignedBuffer buffer(bytes, "a test's workspace");
  if (bytes) std::memset(buffer.data(), 0xFF, bytes);
  return buffer;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace qnext::ops
