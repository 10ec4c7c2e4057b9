// Quants of 4 bits to registers of bytes, AVX-512. Included by AVX-512 files only, hence the
// unnamed namespace.
#pragma once

#include <immintrin.h>

#include "ops/matmul/block_loop_avx512.h"

namespace qnext::ops::avx512 {
namespace {

// 32 columns in 4 dwords: the first 16 in the low nibbles, the others in the high ones.
inline void load_nibbles(const uint8_t* dwords, __m512i (&quants)[8]) {
  const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i pair = load(dwords, j);
    quants[j] = _mm512_and_si512(pair, low);
    quants[j + 4] = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low);
  }
}

// 32 columns in 8 dwords, of which they have the low nibbles or the high ones.
inline void load_nibbles(const uint8_t* dwords, bool high, __m512i (&quants)[8]) {
  const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    const __m512i pair = load(dwords, j);
    quants[j] = _mm512_and_si512(high ? _mm512_srli_epi16(pair, 4) : pair, low);
  }
}

// The levels of iq4_nl and iq4_xs (tensor/blocks.h) plus 128.
inline void to_levels(__m512i (&quants)[8]) {
  const __m512i levels = _mm512_broadcast_i32x4(
      _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15));
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) quants[j] = _mm512_shuffle_epi8(levels, quants[j]);
}

}  // namespace
}  // namespace qnext::ops::avx512
