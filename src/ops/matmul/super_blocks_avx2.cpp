// Products with the formats of 256 columns a block, AVX2: see tensor/super_blocks.h for where the
// bits of a block are.
#include "ops/matmul/block_loop_avx2.h"
#include "ops/matmul/nibbles_avx2.h"

namespace qnext::ops::avx2 {

namespace {

inline __m256i bits(__m256i dwords, int from, int mask) {
  return _mm256_and_si256(_mm256_srli_epi32(dwords, from), _mm256_set1_epi32(mask));
}
// The same with a count that is not known when compiling.
inline __m256i bits_at(__m256i dwords, int64_t from, int mask) {
  return _mm256_and_si256(_mm256_srl_epi32(dwords, _mm_cvtsi64_si128(from)),
                          _mm256_set1_epi32(mask));
}

// Dword j of 32 columns of 2 bits, of which 8 dwords have 128.
inline __m256i pairs(const uint8_t* dwords, int64_t step, int j, int h) {
  return bits_at(load(dwords, step / 4 * 8 + j, h), step % 4 * 2, 0x03030303);
}
// Bit `step` of each byte of dword j, as `value`.
inline __m256i high_bits(const uint8_t* dwords, int64_t step, int j, int h, char value) {
  const __m256i mask = _mm256_set1_epi8(static_cast<char>(1 << step));
  return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(load(dwords, j, h), mask), mask),
                          _mm256_set1_epi8(value));
}

// d times each of the 4 integers in a lane, to out[4][2].
using Scales = __m256[2];
inline void scales_of_bytes(__m256i bytes, __m256 d, Scales* out, int h) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    out[i][h] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(bits(bytes, 8 * i, 255)));
}
inline void scales_of_signed_bytes(__m256i bytes, __m256 d, Scales* out, int h) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    out[i][h] = _mm256_mul_ps(
        d, _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(bytes, 24 - 8 * i), 24)));
}

inline __m256 negative(__m256 value) {
  return _mm256_sub_ps(_mm256_set1_ps(-0.0f), value);
}

// The scales of 32 or 16 columns, and minimums.
template <layout::Format block_format, int columns_of_run, int largest_quant, int quant_offset>
struct SuperBlock {
  static constexpr layout::Format format = block_format;
  static constexpr int run = columns_of_run;
  static constexpr int largest = largest_quant;
  static constexpr int offset = quant_offset;
  static constexpr bool has_minimums = false;

  explicit SuperBlock(const uint8_t* block_dwords) : dwords(block_dwords) {}
  __m256 scale(int64_t run_index, int h) const { return scales[run_index][h]; }

  const uint8_t* dwords;
  Scales scales[256 / columns_of_run];
};

template <layout::Format block_format, int columns_of_run, int largest_quant>
struct SuperBlockWithMinimums : SuperBlock<block_format, columns_of_run, largest_quant, 0> {
  using SuperBlock<block_format, columns_of_run, largest_quant, 0>::SuperBlock;
  static constexpr bool has_minimums = true;
  __m256 minimum(int64_t run_index, int h) const { return minimums[run_index][h]; }
  Scales minimums[256 / columns_of_run];
};

// Scales and minimums of 6 bits: the first three dwords of q4_k and q5_k.
template <layout::Format block_format, int largest_quant>
struct SixBitScales : SuperBlockWithMinimums<block_format, 32, largest_quant> {
  SixBitScales(const uint8_t* halves, const uint8_t* block_dwords)
      : SuperBlockWithMinimums<block_format, 32, largest_quant>(block_dwords) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m256 d = load_half(halves, 0, h), least = negative(load_half(halves, 1, h));
      const __m256i first = load(block_dwords, 0, h), second = load(block_dwords, 1, h);
      const __m256i third = load(block_dwords, 2, h);
      scales_of_bytes(bits(first, 0, 0x3F3F3F3F), d, this->scales, h);
      scales_of_bytes(bits(second, 0, 0x3F3F3F3F), least, this->minimums, h);
      scales_of_bytes(_mm256_or_si256(bits(third, 0, 0x0F0F0F0F), bits(first, 2, 0x30303030)), d,
                      this->scales + 4, h);
      scales_of_bytes(_mm256_or_si256(bits(third, 4, 0x0F0F0F0F), bits(second, 2, 0x30303030)),
                      least, this->minimums + 4, h);
    }
  }
};

struct Q4_K : SixBitScales<layout::q4_k, 15> {
  using SixBitScales::SixBitScales;
  __m256i quants(int64_t step, int j, int h) const {
    return nibbles(dwords + layout::dword_bytes * (3 + step / 2 * 8), j, h, step % 2 * 4);
  }
};

struct Q5_K : SixBitScales<layout::q5_k, 31> {
  using SixBitScales::SixBitScales;
  __m256i quants(int64_t step, int j, int h) const {
    return _mm256_or_si256(
        nibbles(dwords + layout::dword_bytes * (11 + step / 2 * 8), j, h, step % 2 * 4),
        high_bits(dwords + layout::dword_bytes * 3, step, j, h, 16));
  }
};

struct Q6_K : SuperBlock<layout::q6_k, 16, 63, 32> {
  Q6_K(const uint8_t* halves, const uint8_t* block_dwords) : SuperBlock(block_dwords) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        scales_of_signed_bytes(load(dwords, i, h), load_half(halves, 0, h), scales + 4 * i, h);
  }
  __m256i quants(int64_t step, int j, int h) const {
    constexpr int64_t each = layout::q6_k_high + layout::q6_k_low;
    const int64_t quarter = step % 4;
    const uint8_t* of_half = dwords + layout::dword_bytes * (layout::q6_k_scales + step / 4 * each);
    const __m256i low =
        nibbles(of_half + layout::dword_bytes * (layout::q6_k_high + quarter % 2 * 8), j, h,
                quarter / 2 * 4);
    const __m256i high = bits_at(load(of_half, j, h), 2 * quarter, 0x03030303);
    return _mm256_or_si256(low, _mm256_slli_epi16(high, 4));
  }
};

struct Q3_K : SuperBlock<layout::q3_k, 16, 7, 4> {
  Q3_K(const uint8_t* halves, const uint8_t* block_dwords) : SuperBlock(block_dwords) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const __m256i six =
            _mm256_or_si256(bits(load(dwords, i % 2, h), i / 2 * 4, 0x0F0F0F0F),
                            _mm256_slli_epi32(bits(load(dwords, 2, h), 2 * i, 0x03030303), 4));
        scales_of_signed_bytes(_mm256_sub_epi8(six, _mm256_set1_epi8(32)), load_half(halves, 0, h),
                               scales + 4 * i, h);
      }
  }
  __m256i quants(int64_t step, int j, int h) const {
    const uint8_t* high = dwords + layout::dword_bytes * layout::q3_k_scales;
    return _mm256_or_si256(pairs(high + layout::dword_bytes * 8, step, j, h),
                           high_bits(high, step, j, h, 4));
  }
};

struct Q2_K : SuperBlockWithMinimums<layout::q2_k, 16, 3> {
  Q2_K(const uint8_t* halves, const uint8_t* block_dwords) : SuperBlockWithMinimums(block_dwords) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m256 d = load_half(halves, 0, h), least = negative(load_half(halves, 1, h));
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        scales_of_bytes(bits(load(dwords, i, h), 0, 0x0F0F0F0F), d, scales + 4 * i, h);
        scales_of_bytes(bits(load(dwords, i, h), 4, 0x0F0F0F0F), least, minimums + 4 * i, h);
      }
    }
  }
  __m256i quants(int64_t step, int j, int h) const {
    return pairs(dwords + layout::dword_bytes * 4, step, j, h);
  }
};

struct IQ4_XS : SuperBlock<layout::iq4_xs, 32, 0, 0> {
  IQ4_XS(const uint8_t* halves, const uint8_t* block_dwords) : SuperBlock(block_dwords) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m256i high = _mm256_cvtepu16_epi32(
          _mm_load_si128(reinterpret_cast<const __m128i*>(halves + layout::half_bytes + 16 * h)));
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const __m256i six = _mm256_or_si256(bits(load(dwords, 0, h), 4 * i, 15),
                                            _mm256_slli_epi32(bits(high, 2 * i, 3), 4));
        scales[i][h] =
            _mm256_mul_ps(load_half(halves, 0, h),
                          _mm256_cvtepi32_ps(_mm256_sub_epi32(six, _mm256_set1_epi32(32))));
      }
    }
  }
  __m256i quants(int64_t step, int j, int h) const {
    return to_level(nibbles(dwords + layout::dword_bytes * (1 + 4 * step), j, h));
  }
};

}  // namespace

void multiply_q2_k(const MatmulTile& tile) {
  multiply<Q2_K>(tile);
}
void multiply_q3_k(const MatmulTile& tile) {
  multiply<Q3_K>(tile);
}
void multiply_q4_k(const MatmulTile& tile) {
  multiply<Q4_K>(tile);
}
void multiply_q5_k(const MatmulTile& tile) {
  multiply<Q5_K>(tile);
}
void multiply_q6_k(const MatmulTile& tile) {
  multiply<Q6_K>(tile);
}
void multiply_iq4_xs(const MatmulTile& tile) {
  multiply<IQ4_XS>(tile);
}

}  // namespace qnext::ops::avx2
