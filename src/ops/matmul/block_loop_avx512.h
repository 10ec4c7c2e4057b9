// The product with weights in blocks, AVX-512 with VNNI, for every format. Included by AVX-512
// files only, hence the unnamed namespace.
//
// A panel's 16 rows are the 16 lanes: vpdpbusd multiplies one dword of each row with one dword of
// x, broadcast by the load itself. Unpacking 32 columns of weights is paid once for up to 12 rows
// of x: 12 float accumulators, 8 registers of weights, scales and temporaries fill the 32
// registers. The chain of vpdpbusd of one row overlaps with the next rows' out of order.
//
// A format is a struct that is made of one block of 16 rows, and has
//   format                  as in layout.h
//   run                     columns that share a scale: 32 or 16
//   offset                  what is to be subtracted from its unsigned quants: 0 or a power of two
//   has_minimums
//   in_order                whether its lines are read one after the other. The hardware's
//                           prefetchers then do best alone: lines that a program asks for hide from
//                           them, and these are 15 to 20 % slower
//   together                steps that share lines: unrolled, so that shifts are constants and a
//                           line is loaded once
//   unpack(step, quants)    columns 32 step .. of the block: 8 registers, of 4 columns a lane
//   scale(run), minimum(run)
#pragma once

#include <immintrin.h>

#include "ops/matmul/kernels.h"

namespace qnext::ops::avx512 {
namespace {

constexpr int most_rows = 12;

// For formats whose lines are not read in order. Into the second level only, where more lines can
// be under way than at the first; panels follow each other in memory, so this runs on into the
// next.
inline void prefetch(const uint8_t* at) {
  constexpr int64_t distance = 8192;
  _mm_prefetch(reinterpret_cast<const char*>(at + distance), _MM_HINT_T1);
}

inline __m512i load(const uint8_t* dwords, int64_t index) {
  return _mm512_load_si512(dwords + layout::dword_bytes * index);
}

inline __m512 load_half(const uint8_t* halves, int64_t index) {
  return _mm512_cvtph_ps(
      _mm256_load_si256(reinterpret_cast<const __m256i*>(halves + layout::half_bytes * index)));
}

inline __m512i broadcast(const void* dword) {
  int32_t value;
  __builtin_memcpy(&value, dword, 4);
  return _mm512_set1_epi32(value);
}

// -offset * the sum of x over run `part` of its block: where the dot product starts.
template <typename Format>
inline __m512i first_sum(const layout::ActivationBlock& x, int part) {
  if constexpr (Format::offset == 0) {
    return _mm512_setzero_si512();
  } else if constexpr (Format::run == layout::block) {
    constexpr int eights = Format::offset / 8;
    const __m512i sum = broadcast(&x.sum);
    return eights == 1 ? sum : _mm512_slli_epi32(sum, __builtin_ctz(eights));
  } else {
    constexpr uint32_t factor = static_cast<uint32_t>(-Format::offset) & 0xFFFF;
    return _mm512_madd_epi16(
        broadcast(x.half_sums),
        _mm512_set1_epi32(static_cast<int32_t>(part == 0 ? factor : factor << 16)));
  }
}

// The sum of x over run `part`, times the scale of x.
template <typename Format>
inline __m512 offset_of(const layout::ActivationBlock& x, int part) {
  if constexpr (Format::run == layout::block) return _mm512_set1_ps(x.offset);
  const __m512i sum =
      _mm512_madd_epi16(broadcast(x.half_sums), _mm512_set1_epi32(part == 0 ? 1 : 1 << 16));
  return _mm512_mul_ps(_mm512_set1_ps(x.scale), _mm512_cvtepi32_ps(sum));
}

// The scale of run `part` of a step, and its minimum where there is one.
struct Factors {
  __m512 scale;
  __m512 minimum;
};

template <typename Format>
inline Factors factors_of(const Format& weights, int64_t run) {
  if constexpr (Format::has_minimums)
    return {weights.scale(run), weights.minimum(run)};
  else
    return {weights.scale(run), _mm512_setzero_ps()};
}

// Adds run `part` of 32 columns to the sum of one row of x.
template <typename Format, int part>
inline void add_run(const __m512i (&quants)[8], const layout::ActivationBlock& x,
                    const Factors& factors, __m512& sum) {
  constexpr int dwords = Format::run / 4;
  __m512i dot = first_sum<Format>(x, part);
#pragma GCC unroll 8
  for (int j = 0; j < dwords; ++j)
    dot = _mm512_dpbusd_epi32(dot, quants[part * dwords + j],
                              broadcast(x.quants + 4 * (part * dwords + j)));
  sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot),
                        _mm512_mul_ps(factors.scale, _mm512_set1_ps(x.scale)), sum);
  if constexpr (Format::has_minimums)
    sum = _mm512_fmadd_ps(factors.minimum, offset_of<Format>(x, part), sum);
}

// One panel times `rows` rows of x from `row` on.
template <typename Format, int rows>
void multiply_panel(const MatmulTile& tile, int64_t n, int64_t row) {
  constexpr layout::Format format = Format::format;
  constexpr int64_t steps = format.columns / layout::block;
  constexpr int runs = layout::block / Format::run;  // of a step
  constexpr int64_t unit_blocks = layout::unit_blocks(format);
  constexpr int64_t lines = (format.dwords + steps - 1) / steps;  // of a step
  const int64_t blocks = tile.columns / format.columns;
  const auto* unit = static_cast<const uint8_t*>(tile.weights) +
                     n / layout::panel_rows * layout::panel_bytes(format, tile.columns);
  const layout::ActivationBlock* x[rows];
  __m512 sums[rows];
#pragma GCC unroll 12
  for (int r = 0; r < rows; ++r) {
    x[r] = static_cast<const layout::ActivationBlock*>(tile.x[row + r]);
    sums[r] = _mm512_setzero_ps();
  }
  int64_t at = 0;  // in x
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* halves = unit + layout::halves_at(format, b % unit_blocks);
    const uint8_t* dwords = unit + layout::dwords_at(format, b % unit_blocks);
    if (!Format::in_order && b % unit_blocks == 0) prefetch(unit);
    if (b % unit_blocks == unit_blocks - 1) unit += layout::unit_bytes(format);
    const Format weights(halves, dwords);
    for (int64_t group = 0; group < steps / Format::together; ++group) {
#pragma GCC unroll 4
      for (int64_t i = 0; i < Format::together; ++i, ++at) {
        const int64_t step = group * Format::together + i;
        if constexpr (!Format::in_order) {
#pragma GCC unroll 8
          for (int64_t j = 0; j < lines; ++j)
            prefetch(dwords + layout::dword_bytes * (step * lines + j));
        }
        __m512i quants[8];
        weights.unpack(step, quants);
        const Factors first = factors_of(weights, step * runs);
        const Factors last = factors_of(weights, step * runs + runs - 1);
#pragma GCC unroll 12
        for (int r = 0; r < rows; ++r) {
          add_run<Format, 0>(quants, x[r][at], first, sums[r]);
          if constexpr (runs == 2) add_run<Format, 1>(quants, x[r][at], last, sums[r]);
        }
      }
    }
  }
  const int64_t count = tile.end - n < layout::panel_rows ? tile.end - n : layout::panel_rows;
  const auto mask = static_cast<__mmask16>((1u << count) - 1);
#pragma GCC unroll 12
  for (int r = 0; r < rows; ++r) {
    float* y = tile.y[row + r] + (n - tile.begin);
    if (tile.accumulate) sums[r] = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sums[r]);
    _mm512_mask_storeu_ps(y, mask, sums[r]);
  }
}

using PanelFunction = void (*)(const MatmulTile& tile, int64_t n, int64_t row);

template <typename Format>
void multiply(const MatmulTile& tile) {
  static constexpr PanelFunction functions[most_rows + 1] = {
      nullptr,
      multiply_panel<Format, 1>,
      multiply_panel<Format, 2>,
      multiply_panel<Format, 3>,
      multiply_panel<Format, 4>,
      multiply_panel<Format, 5>,
      multiply_panel<Format, 6>,
      multiply_panel<Format, 7>,
      multiply_panel<Format, 8>,
      multiply_panel<Format, 9>,
      multiply_panel<Format, 10>,
      multiply_panel<Format, 11>,
      multiply_panel<Format, 12>,
  };
  // In equal parts: 13 rows are 7 + 6, not 12 + 1.
  const int64_t parts = (tile.rows + most_rows - 1) / most_rows;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t row = tile.rows * part / parts;
    const int64_t rows = tile.rows * (part + 1) / parts - row;
    for (int64_t n = tile.begin; n < tile.end; n += layout::panel_rows)
      functions[rows](tile, n, row);
  }
}

}  // namespace
}  // namespace qnext::ops::avx512
