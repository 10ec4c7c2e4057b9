// Products with the formats of 32 columns a block, AVX2.
#include "ops/matmul/block_loop_avx2.h"
#include "ops/matmul/nibbles_avx2.h"

namespace qnext::ops::avx2 {

namespace {

// One factor, and a minimum where a second half has it.
template <layout::Format block_format, int largest_quant, int quant_offset>
struct Block {
  static constexpr layout::Format format = block_format;
  static constexpr int run = 32;
  static constexpr int largest = largest_quant;
  static constexpr int offset = quant_offset;
  static constexpr bool has_minimums = block_format.halves == 2;

  Block(const uint8_t* block_halves, const uint8_t* block_dwords)
      : halves(block_halves), dwords(block_dwords) {}
  __m256 scale(int64_t, int h) const { return load_half(halves, 0, h); }
  __m256 minimum(int64_t, int h) const { return load_half(halves, 1, h); }

  const uint8_t* halves;
  const uint8_t* dwords;
};

struct Q8_0 : Block<layout::q8_0, 0, 0> {
  using Block::Block;
  __m256i quants(int64_t, int j, int h) const {
    return _mm256_xor_si256(load(dwords, j, h), _mm256_set1_epi8(-128));
  }
};

template <layout::Format block_format, int quant_offset>
struct FourBits : Block<block_format, 15, quant_offset> {
  using Block<block_format, 15, quant_offset>::Block;
  __m256i quants(int64_t, int j, int h) const { return nibbles(this->dwords, j, h); }
};
using Q4_0 = FourBits<layout::q4_0, 8>;
using Q4_1 = FourBits<layout::q4_1, 0>;

struct IQ4_NL : Block<layout::iq4_nl, 0, 0> {
  using Block::Block;
  __m256i quants(int64_t, int j, int h) const { return to_level(nibbles(dwords, j, h)); }
};

// The first dword has the fifth bits: bit i of column i.
template <layout::Format block_format, int quant_offset>
struct FiveBits : Block<block_format, 31, quant_offset> {
  using Block<block_format, 31, quant_offset>::Block;
  __m256i quants(int64_t, int j, int h) const {
    // Column 4 j + i of a lane is byte i, its bit is bit 4 (j % 2) + i of byte j / 2.
    const auto at = static_cast<char>(j / 2);
    const __m256i from = _mm256_add_epi8(_mm256_broadcastsi128_si256(_mm_setr_epi8(
                                             0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12)),
                                         _mm256_set1_epi8(at));
    const __m256i bits = _mm256_set1_epi32(j % 2 == 0 ? 0x08040201 : static_cast<int>(0x80402010u));
    const __m256i high = _mm256_shuffle_epi8(load(this->dwords, 0, h), from);
    const __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(high, bits), bits);
    return _mm256_or_si256(nibbles(this->dwords + layout::dword_bytes, j, h),
                           _mm256_and_si256(is_set, _mm256_set1_epi8(16)));
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

}  // namespace qnext::ops::avx2
