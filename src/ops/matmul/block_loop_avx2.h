// The product with weights in blocks, AVX2, for every format. Included by AVX2 files only, hence
// the unnamed namespace.
//
// A panel's 16 rows are two registers of 8 dwords, its halves. vpmaddubsw adds pairs of products in
// 16 bits; how many such sums still fit there depends on the format's largest quant: of q4_0, a
// whole block's eight (8 * 2 * 15 * 127 = 30480). Formats of signed bytes take |x| times w with x's
// sign (2 * 127 * 127 = 32258 fits, 2 * 255 * 127 would not).
//
// A format is a struct that is made of one block of 16 rows, and has
//   format                  as in layout.h
//   run                     columns that share a scale: 32 or 16
//   largest                 of its unsigned quants; 0 where they are signed, above -128
//   offset                  what is to be subtracted from unsigned quants: 0, 4 or a multiple of 8
//   has_minimums
//   quants(step, j, h)      columns 32 step + 4 j .. of rows 8 h .. 8 h + 7 of the panel
//   scale(run, h), minimum(run, h)
#pragma once

#include <immintrin.h>

#include "ops/matmul/kernels.h"

namespace qnext::ops::avx2 {
namespace {

constexpr int64_t prefetch_distance = 4096;

inline void prefetch(const uint8_t* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at + prefetch_distance), _MM_HINT_T0);
}

inline __m256i load(const uint8_t* dwords, int64_t index, int h) {
  return _mm256_load_si256(
      reinterpret_cast<const __m256i*>(dwords + layout::dword_bytes * index + 32 * h));
}
inline __m256 load_half(const uint8_t* halves, int64_t index, int h) {
  return _mm256_cvtph_ps(_mm_load_si128(
      reinterpret_cast<const __m128i*>(halves + layout::half_bytes * index + 16 * h)));
}
inline __m256i broadcast(const void* dword) {
  int32_t value;
  __builtin_memcpy(&value, dword, 4);
  return _mm256_set1_epi32(value);
}

// Keeps the order of additions as written: GCC would turn the chains of sums into trees that do not
// fit the registers.
inline void pin(__m256i& value) {
  asm("" : "+x"(value));
}

// How many vpmaddubsw results fit into 16 bits: all of a run, or fewer.
template <typename Format>
constexpr int pairs_of() {
  if (Format::largest == 0) return 1;
  const int fit = 32767 / (2 * 127 * Format::largest);
  const int in_run = Format::run / 4;
  int pairs = 1;
  while (2 * pairs <= fit && 2 * pairs <= in_run) pairs *= 2;
  return pairs;
}

// 2 x 4 sums of 16 bits, two registers of weights, x and constants fill the 16 registers; where
// sums of 32 bits come to these, fewer rows fit.
template <typename Format>
constexpr int most_rows = Format::largest == 0 || pairs_of<Format>() * 4 == Format::run ? 4 : 3;

// dots[r][h]: the sum of quants times x over run `part` of a step, without the offset.
template <typename Format, int rows>
inline void dot_run(const Format& weights, int64_t step, int part,
                    const layout::ActivationBlock* const* x, int64_t at, __m256i (&dots)[rows][2]) {
  constexpr int pairs = pairs_of<Format>();
  constexpr int dwords = Format::run / 4;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i short_sums[rows][2];
#pragma GCC unroll 8
  for (int j = 0; j < dwords; ++j) {
    const int dword = part * dwords + j;
    const __m256i w[2] = {weights.quants(step, dword, 0), weights.quants(step, dword, 1)};
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const __m256i x_quants = broadcast(x[r][at].quants + 4 * dword);
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        __m256i products;
        if constexpr (Format::largest == 0)
          products =
              _mm256_maddubs_epi16(_mm256_abs_epi8(x_quants), _mm256_sign_epi8(w[h], x_quants));
        else
          products = _mm256_maddubs_epi16(w[h], x_quants);
        if constexpr (pairs > 1) {
          short_sums[r][h] =
              j % pairs == 0 ? products : _mm256_add_epi16(short_sums[r][h], products);
          pin(short_sums[r][h]);
        } else {
          short_sums[r][h] = products;
        }
        if (j % pairs == pairs - 1) {
          const __m256i sums = _mm256_madd_epi16(short_sums[r][h], ones);
          dots[r][h] = j < pairs ? sums : _mm256_add_epi32(dots[r][h], sums);
          if constexpr (pairs < dwords) pin(dots[r][h]);
        }
      }
    }
  }
}

// -offset * the sum of x over run `part` of its block.
template <typename Format>
inline __m256i first_sum(const layout::ActivationBlock& x, int part) {
  if constexpr (Format::run == layout::block) {
    constexpr int eights = Format::offset / 8;
    const __m256i sum = broadcast(&x.sum);
    return eights == 1 ? sum : _mm256_slli_epi32(sum, __builtin_ctz(eights));
  } else {
    constexpr uint32_t factor = static_cast<uint32_t>(-Format::offset) & 0xFFFF;
    return _mm256_madd_epi16(
        broadcast(x.half_sums),
        _mm256_set1_epi32(static_cast<int32_t>(part == 0 ? factor : factor << 16)));
  }
}

// The sum of x over run `part`, times the scale of x.
template <typename Format>
inline __m256 offset_of(const layout::ActivationBlock& x, int part) {
  if constexpr (Format::run == layout::block) return _mm256_set1_ps(x.offset);
  const __m256i sum =
      _mm256_madd_epi16(broadcast(x.half_sums), _mm256_set1_epi32(part == 0 ? 1 : 1 << 16));
  return _mm256_mul_ps(_mm256_set1_ps(x.scale), _mm256_cvtepi32_ps(sum));
}

inline void store(const MatmulTile& tile, int64_t row, int64_t n, const float* sums) {
  float* y = tile.y[row] + (n - tile.begin);
  const int64_t count = tile.end - n < layout::panel_rows ? tile.end - n : layout::panel_rows;
  for (int64_t i = 0; i < count; ++i) y[i] = tile.accumulate ? y[i] + sums[i] : sums[i];
}

// One panel times `rows` rows of x from `row` on.
template <typename Format, int rows>
void multiply_panel(const MatmulTile& tile, int64_t n, int64_t row) {
  constexpr layout::Format format = Format::format;
  constexpr int64_t steps = format.columns / layout::block;
  constexpr int runs = layout::block / Format::run;  // of a step
  constexpr int64_t unit_blocks = layout::unit_blocks(format);
  constexpr int64_t lines = (format.dwords + steps - 1) / steps;  // to prefetch in a step
  const int64_t blocks = tile.columns / format.columns;
  const auto* unit = static_cast<const uint8_t*>(tile.weights) +
                     n / layout::panel_rows * layout::panel_bytes(format, tile.columns);
  const layout::ActivationBlock* x[rows];
  __m256 sums[rows][2];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    x[r] = static_cast<const layout::ActivationBlock*>(tile.x[row + r]);
    sums[r][0] = sums[r][1] = _mm256_setzero_ps();
  }
  int64_t at = 0;  // in x
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* halves = unit + layout::halves_at(format, b % unit_blocks);
    const uint8_t* dwords = unit + layout::dwords_at(format, b % unit_blocks);
    if (b % unit_blocks == 0) prefetch(unit);
    if (b % unit_blocks == unit_blocks - 1) unit += layout::unit_bytes(format);
    const Format weights(halves, dwords);
    for (int64_t step = 0; step < steps; ++step, ++at) {
#pragma GCC unroll 8
      for (int64_t i = 0; i < lines; ++i)
        prefetch(dwords + layout::dword_bytes * (step * lines + i));
#pragma GCC unroll 2
      for (int part = 0; part < runs; ++part) {
        __m256i dots[rows][2];
        dot_run<Format, rows>(weights, step, part, x, at, dots);
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
          const layout::ActivationBlock& inputs = x[r][at];
          const __m256 x_scale = _mm256_set1_ps(inputs.scale);
#pragma GCC unroll 2
          for (int h = 0; h < 2; ++h) {
            if constexpr (Format::offset != 0)
              dots[r][h] = _mm256_add_epi32(dots[r][h], first_sum<Format>(inputs, part));
            sums[r][h] = _mm256_fmadd_ps(
                _mm256_cvtepi32_ps(dots[r][h]),
                _mm256_mul_ps(weights.scale(step * runs + part, h), x_scale), sums[r][h]);
            if constexpr (Format::has_minimums)
              sums[r][h] = _mm256_fmadd_ps(weights.minimum(step * runs + part, h),
                                           offset_of<Format>(inputs, part), sums[r][h]);
          }
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    alignas(32) float out[layout::panel_rows];
    _mm256_store_ps(out, sums[r][0]);
    _mm256_store_ps(out + 8, sums[r][1]);
    store(tile, row + r, n, out);
  }
}

using PanelFunction = void (*)(const MatmulTile& tile, int64_t n, int64_t row);

template <typename Format>
void multiply(const MatmulTile& tile) {
  constexpr int most = most_rows<Format>;
  static constexpr PanelFunction functions[] = {
      nullptr, multiply_panel<Format, 1>, multiply_panel<Format, 2>, multiply_panel<Format, 3>,
      multiply_panel<Format, most>};
  // In equal parts: 5 rows are 3 + 2, not 4 + 1.
  const int64_t parts = (tile.rows + most - 1) / most;
  for (int64_t n = tile.begin; n < tile.end; n += layout::panel_rows)
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t row = tile.rows * part / parts;
      functions[tile.rows * (part + 1) / parts - row](tile, n, row);
    }
}

}  // namespace
}  // namespace qnext::ops::avx2
