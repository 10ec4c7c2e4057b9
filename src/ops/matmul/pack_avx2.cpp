// Weights to q4_0 and q8_0 panels, AVX2: a block of one row at a time, the operations of
// tensor/blocks.cpp in the same order, so that the bits are the published ones.
#include <immintrin.h>

#include "ops/matmul/kernels.h"
#include "ops/matmul/layout.h"
#include "ops/matmul/widen_avx2.h"

namespace qnext::ops::avx2 {

namespace {

constexpr int64_t scale_run = 128;

template <Encoded encoded>
constexpr layout::Format format_of = encoded == Encoded::q8_0 ? layout::q8_0 : layout::q4_0;

inline float largest_lane(__m256 eight) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

inline float inverse_of(float d) {
  const float inverse = 1.0f / d;
  return __builtin_isfinite(inverse) ? inverse : 0.0f;
}

// 32 integers of at most 8 bits as bytes, in order.
inline __m256i to_bytes(const __m256i (&integers)[4]) {
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(integers[0], integers[1]),
                                           _mm256_packs_epi32(integers[2], integers[3]));
  return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// Products that are not numbers count as zero.
inline __m256 scaled(__m256 value, __m256 inverse) {
  const __m256 product = _mm256_mul_ps(value, inverse);
  return _mm256_and_ps(product, _mm256_cmp_ps(product, product, _CMP_ORD_Q));
}

// Fills quants with one dword in 16; returns d.
inline float encode_q8_0(const __m256 (&values)[4], float largest, uint8_t* quants) {
  const float d = largest / 127.0f;
  const __m256 inverse = _mm256_set1_ps(inverse_of(d));
  // Halves away from zero: the float just below a half, added with the value's sign, carries
  // exactly the values from one half up into the next integer.
  const __m256 half = _mm256_set1_ps(0x1.fffffep-2f);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256i integers[4];
  for (int i = 0; i < 4; ++i) {
    const __m256 steps = scaled(values[i], inverse);
    integers[i] =
        _mm256_cvttps_epi32(_mm256_add_ps(steps, _mm256_or_ps(half, _mm256_and_ps(steps, sign))));
  }
  alignas(32) uint32_t dwords[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(dwords),
                     _mm256_xor_si256(to_bytes(integers), _mm256_set1_epi8(-128)));
  for (int j = 0; j < 8; ++j) __builtin_memcpy(quants + 64 * j, &dwords[j], 4);
  return d;
}

inline float encode_q4_0(const __m256 (&values)[4], float largest, uint8_t* quants) {
  // The first value of the largest magnitude, with its sign.
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
  alignas(32) float stored[32];
  uint32_t at_largest = 0;
  for (int i = 0; i < 4; ++i) {
    _mm256_store_ps(stored + 8 * i, values[i]);
    const __m256 equal =
        _mm256_cmp_ps(_mm256_and_ps(values[i], magnitude), _mm256_set1_ps(largest), _CMP_EQ_OQ);
    at_largest |= static_cast<uint32_t>(_mm256_movemask_ps(equal)) << (8 * i);
  }
  const float extreme = largest > 0 ? stored[__builtin_ctz(at_largest)] : 0.0f;
  const float d = extreme / -8.0f;
  const __m256 inverse = _mm256_set1_ps(inverse_of(d));
  __m256i integers[4];
  for (int i = 0; i < 4; ++i)
    integers[i] = _mm256_min_epi32(
        _mm256_cvttps_epi32(_mm256_add_ps(scaled(values[i], inverse), _mm256_set1_ps(8.5f))),
        _mm256_set1_epi32(15));
  const __m256i bytes = to_bytes(integers);
  alignas(16) uint32_t dwords[4];
  _mm_store_si128(reinterpret_cast<__m128i*>(dwords),
                  _mm_or_si128(_mm256_castsi256_si128(bytes),
                               _mm_slli_epi16(_mm256_extracti128_si256(bytes, 1), 4)));
  for (int j = 0; j < 4; ++j) __builtin_memcpy(quants + 64 * j, &dwords[j], 4);
  return d;
}

template <typename Type, Encoded encoded>
void pack_block(const PackTask& task, int64_t b) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
  auto* panel = static_cast<uint8_t*>(task.panel);
  for (int64_t row = 0; row < task.rows; ++row) {
    const uint8_t* source = static_cast<const uint8_t*>(task.source) +
                            (row * task.columns + b * layout::block) * Type::bytes;
    __m256 values[4];
    __m256 largest = _mm256_setzero_ps();
    if constexpr (Type::bytes == 1) {
      const __m256 scale = _mm256_set1_ps(task.scales[b * layout::block / scale_run]);
      for (int i = 0; i < 4; i += 2) {
        const F8::Pair pair = F8::load_pair(source + i * lanes);
        values[i] = _mm256_mul_ps(_mm256_mul_ps(pair.low, _mm256_set1_ps(256.0f)), scale);
        values[i + 1] = _mm256_mul_ps(_mm256_mul_ps(pair.high, _mm256_set1_ps(256.0f)), scale);
      }
    } else {
      for (int i = 0; i < 4; ++i) values[i] = Type::load(source + i * lanes * Type::bytes);
    }
    for (int i = 0; i < 4; ++i) {
      // The second operand is kept where the first is NaN.
      largest = _mm256_max_ps(_mm256_and_ps(values[i], magnitude), largest);
    }
    uint8_t* quants = panel + layout::dwords_at(format_of<encoded>, b) + 4 * row;
    const float d = encoded == Encoded::q8_0 ? encode_q8_0(values, largest_lane(largest), quants)
                                             : encode_q4_0(values, largest_lane(largest), quants);
    const uint16_t half = _cvtss_sh(d, _MM_FROUND_TO_NEAREST_INT);
    __builtin_memcpy(panel + layout::halves_at(format_of<encoded>, b) + 2 * row, &half, 2);
  }
}

template <typename Type, Encoded encoded>
void pack_panel(const PackTask& task) {
  const int64_t blocks = task.columns / layout::block;
  for (int64_t b = 0; b < blocks; ++b) {
    if (b % 2 == 0 && (task.rows < layout::panel_rows || b + 1 == blocks))
      __builtin_memset(static_cast<uint8_t*>(task.panel) + layout::halves_at(format_of<encoded>, b),
                       0, static_cast<size_t>(layout::unit_bytes(format_of<encoded>)));
    pack_block<Type, encoded>(task, b);
  }
}

template <typename Type>
void pack(const PackTask& task) {
  task.format == Encoded::q4_0 ? pack_panel<Type, Encoded::q4_0>(task)
                               : pack_panel<Type, Encoded::q8_0>(task);
}

}  // namespace

void pack_f32(const PackTask& task) {
  pack<F32>(task);
}
void pack_f16(const PackTask& task) {
  pack<F16>(task);
}
void pack_bf16(const PackTask& task) {
  pack<Bf16>(task);
}
void pack_f8_e4m3(const PackTask& task) {
  pack<F8>(task);
}

}  // namespace qnext::ops::avx2
