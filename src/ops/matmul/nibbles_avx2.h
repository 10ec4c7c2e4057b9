// Quants of 4 bits to registers of bytes, AVX2. Included by AVX2 files only, hence the unnamed
// namespace.
#pragma once

#include <immintrin.h>

#include "ops/matmul/block_loop_avx2.h"

namespace qnext::ops::avx2 {
namespace {

// Dword j of 32 columns in 4: the first 16 in the low nibbles, the others in the high ones.
inline __m256i nibbles(const uint8_t* dwords, int j, int h) {
  const __m256i pair = load(dwords, j % 4, h);
  return _mm256_and_si256(j < 4 ? pair : _mm256_srli_epi16(pair, 4), _mm256_set1_epi8(15));
}

// Dword j of 32 columns in 8, of which they have the nibbles from bit `shift` on, 0 or 4.
inline __m256i nibbles(const uint8_t* dwords, int j, int h, int64_t shift) {
  return _mm256_and_si256(_mm256_srl_epi16(load(dwords, j, h), _mm_cvtsi64_si128(shift)),
                          _mm256_set1_epi8(15));
}

// The levels of iq4_nl and iq4_xs (tensor/blocks.h).
inline __m256i to_level(__m256i nibbles) {
  const __m256i levels = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
  return _mm256_shuffle_epi8(levels, nibbles);
}

}  // namespace
}  // namespace qnext::ops::avx2
