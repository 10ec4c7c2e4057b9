// Products with the formats of 256 columns a block, AVX-512: see tensor/super_blocks.h for where
// the bits of a block are.
#include "ops/matmul/block_loop_avx512.h"
#include "ops/matmul/nibbles_avx512.h"

namespace qnext::ops::avx512 {

namespace {

inline __m512i bits(__m512i dwords, int from, int mask) {
  return _mm512_and_si512(_mm512_srli_epi32(dwords, static_cast<unsigned>(from)),
                          _mm512_set1_epi32(mask));
}

// a | (b & mask)
inline __m512i or_masked(__m512i a, __m512i b, __m512i mask) {
  return _mm512_ternarylogic_epi32(a, b, mask, 0xF8);
}

// d times each of the 4 integers in a lane.
inline void scales_of_bytes(__m512i bytes, __m512 d, __m512* out) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    out[i] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(bits(bytes, 8 * i, 255)));
}
inline void scales_of_signed_bytes(__m512i bytes, __m512 d, __m512* out) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    out[i] =
        _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_srai_epi32(
                             _mm512_slli_epi32(bytes, static_cast<unsigned>(24 - 8 * i)), 24)));
}

inline __m512 negative(__m512 value) {
  return _mm512_sub_ps(_mm512_set1_ps(-0.0f), value);
}

// Adds `value` to the quants whose bit `bit` of a byte of 8 dwords is set.
inline void add_bit(const uint8_t* dwords, int64_t bit, int value, __m512i (&quants)[8]) {
  const __m512i mask = _mm512_set1_epi8(static_cast<char>(1 << bit));
  const __m512i values = _mm512_set1_epi8(static_cast<char>(value));
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j)
    quants[j] = _mm512_mask_add_epi8(quants[j], _mm512_test_epi8_mask(load(dwords, j), mask),
                                     quants[j], values);
}

// 2 bits a column, in 8 dwords for each 128.
inline void load_pairs(const uint8_t* dwords, int64_t step, __m512i (&quants)[8]) {
  const __m512i low = _mm512_set1_epi8(3);
  const __m128i count = _mm_cvtsi64_si128(step % 4 * 2);
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j)
    quants[j] = _mm512_and_si512(_mm512_srl_epi16(load(dwords, step / 4 * 8 + j), count), low);
}

// The scales of 32 or 16 columns, and minimums.
template <layout::Format block_format, int columns_of_run, int quant_offset>
struct SuperBlock {
  static constexpr layout::Format format = block_format;
  static constexpr int run = columns_of_run;
  static constexpr int offset = quant_offset;
  static constexpr bool has_minimums = false;
  static constexpr bool in_order = false;

  explicit SuperBlock(const uint8_t* block_dwords) : dwords(block_dwords) {}
  __m512 scale(int64_t run_index) const { return scales[run_index]; }

  const uint8_t* dwords;
  __m512 scales[256 / columns_of_run];
};

template <layout::Format block_format, int columns_of_run>
struct SuperBlockWithMinimums : SuperBlock<block_format, columns_of_run, 0> {
  using SuperBlock<block_format, columns_of_run, 0>::SuperBlock;
  static constexpr bool has_minimums = true;
  __m512 minimum(int64_t run_index) const { return minimums[run_index]; }
  __m512 minimums[256 / columns_of_run];
};

// Scales and minimums of 6 bits: the first three dwords of q4_k and q5_k.
template <layout::Format block_format>
struct SixBitScales : SuperBlockWithMinimums<block_format, 32> {
  SixBitScales(const uint8_t* halves, const uint8_t* block_dwords)
      : SuperBlockWithMinimums<block_format, 32>(block_dwords) {
    const __m512 d = load_half(halves, 0), least = negative(load_half(halves, 1));
    const __m512i first = load(block_dwords, 0), second = load(block_dwords, 1),
                  third = load(block_dwords, 2);
    scales_of_bytes(bits(first, 0, 0x3F3F3F3F), d, this->scales);
    scales_of_bytes(bits(second, 0, 0x3F3F3F3F), least, this->minimums);
    scales_of_bytes(_mm512_or_si512(bits(third, 0, 0x0F0F0F0F), bits(first, 2, 0x30303030)), d,
                    this->scales + 4);
    scales_of_bytes(_mm512_or_si512(bits(third, 4, 0x0F0F0F0F), bits(second, 2, 0x30303030)), least,
                    this->minimums + 4);
  }
};

struct Q4_K : SixBitScales<layout::q4_k> {
  using SixBitScales::SixBitScales;
  static constexpr bool in_order = true;
  static constexpr int64_t together = 2;
  void unpack(int64_t step, __m512i (&quants)[8]) const {
    load_nibbles(dwords + layout::dword_bytes * (3 + step / 2 * 8), step % 2, quants);
  }
};

struct Q5_K : SixBitScales<layout::q5_k> {
  using SixBitScales::SixBitScales;
  static constexpr bool in_order = true;
  static constexpr int64_t together = 2;
  void unpack(int64_t step, __m512i (&quants)[8]) const {
    load_nibbles(dwords + layout::dword_bytes * (11 + step / 2 * 8), step % 2, quants);
    add_bit(dwords + layout::dword_bytes * 3, step, 16, quants);
  }
};

struct Q6_K : SuperBlock<layout::q6_k, 16, 32> {
  static constexpr int64_t together = 1;
  Q6_K(const uint8_t* halves, const uint8_t* block_dwords) : SuperBlock(block_dwords) {
    const __m512 d = load_half(halves, 0);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) scales_of_signed_bytes(load(dwords, i), d, scales + 4 * i);
  }
  void unpack(int64_t step, __m512i (&quants)[8]) const {
    constexpr int64_t each = layout::q6_k_high + layout::q6_k_low;
    const int64_t quarter = step % 4;
    const uint8_t* high = dwords + layout::dword_bytes * (layout::q6_k_scales + step / 4 * each);
    load_nibbles(high + layout::dword_bytes * (layout::q6_k_high + quarter % 2 * 8), quarter / 2,
                 quants);
    // Bits 2 quarter and the next of each byte go to bits 4 and 5.
    const __m512i turn = _mm512_set1_epi32(static_cast<int>(2 * quarter - 4));
    const __m512i mask = _mm512_set1_epi8(0x30);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j)
      quants[j] = or_masked(quants[j], _mm512_rorv_epi32(load(high, j), turn), mask);
  }
};

struct Q3_K : SuperBlock<layout::q3_k, 16, 4> {
  static constexpr int64_t together = 4;
  Q3_K(const uint8_t* halves, const uint8_t* block_dwords) : SuperBlock(block_dwords) {
    const __m512 d = load_half(halves, 0);
    const __m512i high = load(dwords, 2);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512i low = load(dwords, i % 2);
      const __m512i six = _mm512_or_si512(bits(low, i / 2 * 4, 0x0F0F0F0F),
                                          _mm512_slli_epi32(bits(high, 2 * i, 0x03030303), 4));
      scales_of_signed_bytes(_mm512_sub_epi8(six, _mm512_set1_epi8(32)), d, scales + 4 * i);
    }
  }
  void unpack(int64_t step, __m512i (&quants)[8]) const {
    const uint8_t* high = dwords + layout::dword_bytes * layout::q3_k_scales;
    load_pairs(high + layout::dword_bytes * 8, step, quants);
    add_bit(high, step, 4, quants);
  }
};

struct Q2_K : SuperBlockWithMinimums<layout::q2_k, 16> {
  static constexpr bool in_order = true;
  static constexpr int64_t together = 4;
  Q2_K(const uint8_t* halves, const uint8_t* block_dwords) : SuperBlockWithMinimums(block_dwords) {
    const __m512 d = load_half(halves, 0), least = negative(load_half(halves, 1));
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      scales_of_bytes(bits(load(dwords, i), 0, 0x0F0F0F0F), d, scales + 4 * i);
      scales_of_bytes(bits(load(dwords, i), 4, 0x0F0F0F0F), least, minimums + 4 * i);
    }
  }
  void unpack(int64_t step, __m512i (&quants)[8]) const {
    load_pairs(dwords + layout::dword_bytes * 4, step, quants);
  }
};

struct IQ4_XS : SuperBlock<layout::iq4_xs, 32, 128> {
  static constexpr bool in_order = true;
  static constexpr int64_t together = 1;
  IQ4_XS(const uint8_t* halves, const uint8_t* block_dwords) : SuperBlock(block_dwords) {
    const __m512 d = load_half(halves, 0);
    const __m512i high = _mm512_cvtepu16_epi32(
        _mm256_load_si256(reinterpret_cast<const __m256i*>(halves + layout::half_bytes)));
    const __m512i low = load(dwords, 0);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m512i six =
          _mm512_or_si512(bits(low, 4 * i, 15), _mm512_slli_epi32(bits(high, 2 * i, 3), 4));
      scales[i] =
          _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_sub_epi32(six, _mm512_set1_epi32(32))));
    }
  }
  void unpack(int64_t step, __m512i (&quants)[8]) const {
    load_nibbles(dwords + layout::dword_bytes * (1 + 4 * step), quants);
    to_levels(quants);
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

}  // namespace qnext::ops::avx512
