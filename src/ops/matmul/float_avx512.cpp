// Products with f32, f16, bf16 and f8_e4m3 weights where the file put them, AVX-512. 16 columns a
// step, one accumulator for each (row, output), columns ascending, a masked tail, then one fixed
// horizontal sum: the order never depends on what else is in the block. 6 rows x 4 outputs make 24
// chains for the two FMA pipes, and convert a weight once for six rows. One row is as fast as
// memory is, which is fastest where it is read in order: output after output, and nothing asked for
// ahead.
#include <immintrin.h>

#include "ops/matmul/kernels.h"

namespace qnext::ops::avx512 {

namespace {

constexpr int most_rows = 6;
constexpr int most_outputs = 4;
constexpr int64_t lanes = 16;
constexpr int64_t scale_run = 128;
// The four rows read next are asked for while these four are read; rows longer than a first-level
// cache can hold four of are streams that the hardware follows.
constexpr int64_t longest_prefetch = 16384;
constexpr int64_t stream_prefetch = 2048;

struct F32 {
  static constexpr int64_t bytes = 4;
  static __m512 load(const uint8_t* p, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, p); }
  static __m512 load(const uint8_t* p) { return _mm512_loadu_ps(p); }
};

struct F16 {
  static constexpr int64_t bytes = 2;
  static __m512 widen(__m256i halves) { return _mm512_cvtph_ps(halves); }
  static __m512 load(const uint8_t* p, __mmask16 mask) {
    return widen(_mm256_maskz_loadu_epi16(mask, p));
  }
  static __m512 load(const uint8_t* p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
};

struct Bf16 {
  static constexpr int64_t bytes = 2;
  static __m512 widen(__m256i halves) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
  static __m512 load(const uint8_t* p, __mmask16 mask) {
    return widen(_mm256_maskz_loadu_epi16(mask, p));
  }
  static __m512 load(const uint8_t* p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
};

// 32 columns a step. Gives e4m3 * 2^-8, exactly: sign, exponent and mantissa moved to where f16 has
// them, whose bias is larger by 8, subnormals included. NaN (all ones) becomes f16 NaN. The block
// scale takes the 2^8.
struct F8 {
  static constexpr int64_t bytes = 1;
  struct Pair {
    __m512 low, high;
  };
  static Pair widen(__m256i codes) {
    // Multiplied, not shifted: shifts and the widening share two pipes.
    const __m512i shifted = _mm512_mullo_epi16(_mm512_cvtepu8_epi16(codes), _mm512_set1_epi16(128));
    const __m512i half =
        _mm512_add_epi16(shifted, _mm512_and_si512(shifted, _mm512_set1_epi16(0x4000)));
    // Twice the code drops the sign.
    const __mmask32 nan =
        _mm256_cmpeq_epi8_mask(_mm256_add_epi8(codes, codes), _mm256_set1_epi8(-2));
    const __m512i halves = _mm512_mask_mov_epi16(half, nan, _mm512_set1_epi16(0x7E00));
    return {_mm512_cvtph_ps(_mm512_castsi512_si256(halves)),
            _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1))};
  }
};

// sums += columns [begin, end) of the block of outputs from w on.
template <typename Type, int rows, int outputs>
inline void add_columns(const uint8_t* w, int64_t row_bytes, const float* const* x, int64_t begin,
                        int64_t end, __m512 (&sums)[rows][outputs]) {
  [[maybe_unused]] const int64_t ahead =
      outputs * row_bytes <= longest_prefetch ? outputs * row_bytes : stream_prefetch;
  int64_t k = begin;
  for (; k + lanes <= end; k += lanes) {
    __m512 inputs[rows];
#pragma GCC unroll 6
    for (int m = 0; m < rows; ++m) inputs[m] = _mm512_loadu_ps(x[m] + k);
#pragma GCC unroll 4
    for (int n = 0; n < outputs; ++n) {
      const uint8_t* p = w + n * row_bytes + k * Type::bytes;
      if constexpr (outputs > 1)
        _mm_prefetch(reinterpret_cast<const char*>(p + ahead), _MM_HINT_T0);
      const __m512 weights = Type::load(p);
#pragma GCC unroll 6
      for (int m = 0; m < rows; ++m) sums[m][n] = _mm512_fmadd_ps(weights, inputs[m], sums[m][n]);
    }
  }
  if (k == end) return;
  const auto mask = static_cast<__mmask16>((1u << (end - k)) - 1);
#pragma GCC unroll 4
  for (int n = 0; n < outputs; ++n) {
    const __m512 weights = Type::load(w + n * row_bytes + k * Type::bytes, mask);
#pragma GCC unroll 6
    for (int m = 0; m < rows; ++m)
      sums[m][n] = _mm512_fmadd_ps(weights, _mm512_maskz_loadu_ps(mask, x[m] + k), sums[m][n]);
  }
}

// The same for f8_e4m3.
template <int rows, int outputs>
inline void add_f8_columns(const uint8_t* w, int64_t row_bytes, const float* const* x,
                           int64_t begin, int64_t end, __m512 (&sums)[rows][outputs]) {
  [[maybe_unused]] const int64_t ahead =
      outputs * row_bytes <= longest_prefetch ? outputs * row_bytes : stream_prefetch;
  int64_t k = begin;
  for (; k + 2 * lanes <= end; k += 2 * lanes) {
#pragma GCC unroll 4
    for (int n = 0; n < outputs; ++n) {
      const uint8_t* p = w + n * row_bytes + k;
      if constexpr (outputs > 1)
        _mm_prefetch(reinterpret_cast<const char*>(p + ahead), _MM_HINT_T0);
      const F8::Pair weights = F8::widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#pragma GCC unroll 6
      for (int m = 0; m < rows; ++m) {
        sums[m][n] = _mm512_fmadd_ps(weights.low, _mm512_loadu_ps(x[m] + k), sums[m][n]);
        sums[m][n] = _mm512_fmadd_ps(weights.high, _mm512_loadu_ps(x[m] + k + lanes), sums[m][n]);
      }
    }
  }
  if (k == end) return;
  const auto mask = static_cast<__mmask32>((1u << (end - k)) - 1);
  const auto low_mask = static_cast<__mmask16>(mask);
  const auto high_mask = static_cast<__mmask16>(mask >> 16);
#pragma GCC unroll 4
  for (int n = 0; n < outputs; ++n) {
    const F8::Pair weights = F8::widen(_mm256_maskz_loadu_epi8(mask, w + n * row_bytes + k));
#pragma GCC unroll 6
    for (int m = 0; m < rows; ++m) {
      sums[m][n] =
          _mm512_fmadd_ps(weights.low, _mm512_maskz_loadu_ps(low_mask, x[m] + k), sums[m][n]);
      sums[m][n] = _mm512_fmadd_ps(weights.high, _mm512_maskz_loadu_ps(high_mask, x[m] + k + lanes),
                                   sums[m][n]);
    }
  }
}

template <typename Type, int rows, int outputs>
void multiply_block(const MatmulTile& tile, int64_t n, int64_t row) {
  const int64_t row_bytes = tile.columns * Type::bytes;
  const uint8_t* w = static_cast<const uint8_t*>(tile.weights) + n * row_bytes;
  const float* x[rows];
  __m512 sums[rows][outputs];
#pragma GCC unroll 6
  for (int m = 0; m < rows; ++m) {
    x[m] = static_cast<const float*>(tile.x[row + m]);
#pragma GCC unroll 4
    for (int o = 0; o < outputs; ++o) sums[m][o] = _mm512_setzero_ps();
  }
  if constexpr (Type::bytes > 1) {
    add_columns<Type, rows, outputs>(w, row_bytes, x, 0, tile.columns, sums);
  } else {
    const int64_t runs = (tile.columns + scale_run - 1) / scale_run;
    for (int64_t run = 0; run < runs; ++run) {
      __m512 parts[rows][outputs];
#pragma GCC unroll 6
      for (int m = 0; m < rows; ++m)
#pragma GCC unroll 4
        for (int o = 0; o < outputs; ++o) parts[m][o] = _mm512_setzero_ps();
      const int64_t end = (run + 1) * scale_run;
      add_f8_columns<rows, outputs>(w, row_bytes, x, run * scale_run,
                                    end < tile.columns ? end : tile.columns, parts);
#pragma GCC unroll 4
      for (int o = 0; o < outputs; ++o) {
        const __m512 scale =
            _mm512_set1_ps(256.0f * tile.block_scales[(n + o) / scale_run * runs + run]);
#pragma GCC unroll 6
        for (int m = 0; m < rows; ++m) sums[m][o] = _mm512_fmadd_ps(parts[m][o], scale, sums[m][o]);
      }
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < rows; ++m)
#pragma GCC unroll 4
    for (int o = 0; o < outputs; ++o) {
      float& y = tile.y[row + m][n + o - tile.begin];
      const float sum = _mm512_reduce_add_ps(sums[m][o]);
      y = tile.accumulate ? y + sum : sum;
    }
}

using BlockFunction = void (*)(const MatmulTile& tile, int64_t n, int64_t row);

template <typename Type>
void multiply(const MatmulTile& tile) {
  static constexpr BlockFunction wide[most_rows + 1] = {
      nullptr,
      nullptr,
      multiply_block<Type, 2, most_outputs>,
      multiply_block<Type, 3, most_outputs>,
      multiply_block<Type, 4, most_outputs>,
      multiply_block<Type, 5, most_outputs>,
      multiply_block<Type, 6, most_outputs>,
  };
  static constexpr BlockFunction single[most_rows + 1] = {
      nullptr,
      multiply_block<Type, 1, 1>,
      multiply_block<Type, 2, 1>,
      multiply_block<Type, 3, 1>,
      multiply_block<Type, 4, 1>,
      multiply_block<Type, 5, 1>,
      multiply_block<Type, 6, 1>,
  };
  const int64_t parts = (tile.rows + most_rows - 1) / most_rows;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t row = tile.rows * part / parts;
    const int64_t rows = tile.rows * (part + 1) / parts - row;
    int64_t n = tile.begin;
    for (; tile.rows > 1 && n + most_outputs <= tile.end; n += most_outputs)
      wide[rows](tile, n, row);
    for (; n < tile.end; ++n) single[rows](tile, n, row);
  }
}

}  // namespace

void multiply_f32(const MatmulTile& tile) {
  multiply<F32>(tile);
}
void multiply_f16(const MatmulTile& tile) {
  multiply<F16>(tile);
}
void multiply_bf16(const MatmulTile& tile) {
  multiply<Bf16>(tile);
}
void multiply_f8_e4m3(const MatmulTile& tile) {
  multiply<F8>(tile);
}

}  // namespace qnext::ops::avx512
