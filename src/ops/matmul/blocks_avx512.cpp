// Products with the formats of 32 columns a block, AVX-512.
#include "ops/matmul/block_loop_avx512.h"
#include "ops/matmul/nibbles_avx512.h"

namespace qnext::ops::avx512 {

namespace {

// One factor, and a minimum where a second half has it.
template <layout::Format block_format, int quant_offset>
struct Block {
  static constexpr layout::Format format = block_format;
  static constexpr int run = 32;
  static constexpr int offset = quant_offset;
  static constexpr bool has_minimums = block_format.halves == 2;
  static constexpr bool in_order = true;
  static constexpr int64_t together = 1;

  Block(const uint8_t* halves, const uint8_t* block_dwords) : dwords(block_dwords) {
    d = load_half(halves, 0);
    if constexpr (has_minimums) least = load_half(halves, 1);
  }
  __m512 scale(int64_t) const { return d; }
  __m512 minimum(int64_t) const { return least; }

  const uint8_t* dwords;
  __m512 d;
  __m512 least;
};

struct Q8_0 : Block<layout::q8_0, 128> {
  using Block::Block;
  void unpack(int64_t, __m512i (&quants)[8]) const {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) quants[j] = load(dwords, j);
  }
};

template <layout::Format block_format, int quant_offset>
struct FourBits : Block<block_format, quant_offset> {
  using Block<block_format, quant_offset>::Block;
  void unpack(int64_t, __m512i (&quants)[8]) const { load_nibbles(this->dwords, quants); }
};
using Q4_0 = FourBits<layout::q4_0, 8>;
using Q4_1 = FourBits<layout::q4_1, 0>;

struct IQ4_NL : Block<layout::iq4_nl, 128> {
  using Block::Block;
  void unpack(int64_t, __m512i (&quants)[8]) const {
    load_nibbles(dwords, quants);
    to_levels(quants);
  }
};

// The first dword has the fifth bits: bit i of column i.
template <layout::Format block_format, int quant_offset>
struct FiveBits : Block<block_format, quant_offset> {
  using Block<block_format, quant_offset>::Block;
  void unpack(int64_t, __m512i (&quants)[8]) const {
    load_nibbles(this->dwords + layout::dword_bytes, quants);
    const __m512i high = load(this->dwords, 0);
    const __m512i fifth = _mm512_set1_epi8(16);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      // Column 4 j + i of a lane is byte i, its bit is bit 4 (j % 2) + i of byte j / 2.
      const __m512i from = _mm512_add_epi8(
          _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12)),
          _mm512_set1_epi8(static_cast<char>(j / 2)));
      const __m512i bytes = _mm512_shuffle_epi8(high, from);
      const __m512i bits =
          _mm512_set1_epi32(j % 2 == 0 ? 0x08040201 : static_cast<int>(0x80402010u));
      quants[j] =
          _mm512_mask_add_epi8(quants[j], _mm512_test_epi8_mask(bytes, bits), quants[j], fifth);
    }
  }
};
using Q5_0 = FiveBits<layout::q5_0, 16>;
using Q5_1 = FiveBits<layout::q5_1, 0>;

}  // namespace

void multiply_q8_0(const MatmulTile& tile) {
  multiply<Q8_0>(tile);
}
void multiply_q4_0(const MatmulTile& tile) {
  multiply<Q4_0>(tile);
}
void multiply_q4_1(const MatmulTile& tile) {
  multiply<Q4_1>(tile);
}
void multiply_q5_0(const MatmulTile& tile) {
  multiply<Q5_0>(tile);
}
void multiply_q5_1(const MatmulTile& tile) {
  multiply<Q5_1>(tile);
}
void multiply_iq4_nl(const MatmulTile& tile) {
  multiply<IQ4_NL>(tile);
}

}  // namespace qnext::ops::avx512
