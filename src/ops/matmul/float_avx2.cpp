// Products with f32, f16, bf16 and f8_e4m3 weights where the file put them, AVX2. 8 columns a step,
// one accumulator for each (row, output), columns ascending, a zero-padded tail, then one fixed
// horizontal sum: the order never depends on what else is in the block. 3 rows x 4 outputs fill the
// 16 registers and make 12 chains for the two FMA pipes.
#include <immintrin.h>

#include "ops/matmul/kernels.h"
#include "ops/matmul/widen_avx2.h"

namespace qnext::ops::avx2 {

namespace {

constexpr int most_rows = 3;
constexpr int most_outputs = 4;
constexpr int64_t scale_run = 128;
// The four rows read next are asked for while these four are read; rows longer than a first-level
// cache can hold four of are streams that the hardware follows.
constexpr int64_t longest_prefetch = 16384;
constexpr int64_t stream_prefetch = 2048;

inline float horizontal_sum(__m256 eight) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// sums += columns [begin, end) of the block of outputs from w on.
template <typename Type, int rows, int outputs>
inline void add_columns(const uint8_t* w, int64_t row_bytes, const float* const* x, int64_t begin,
                        int64_t end, __m256 (&sums)[rows][outputs]) {
  const int64_t ahead =
      outputs * row_bytes <= longest_prefetch ? outputs * row_bytes : stream_prefetch;
  int64_t k = begin;
  for (; k + lanes <= end; k += lanes) {
    __m256 inputs[rows];
#pragma GCC unroll 3
    for (int m = 0; m < rows; ++m) inputs[m] = _mm256_loadu_ps(x[m] + k);
#pragma GCC unroll 4
    for (int n = 0; n < outputs; ++n) {
      const uint8_t* p = w + n * row_bytes + k * Type::bytes;
      _mm_prefetch(reinterpret_cast<const char*>(p + ahead), _MM_HINT_T0);
      const __m256 weights = Type::load(p);
#pragma GCC unroll 3
      for (int m = 0; m < rows; ++m) sums[m][n] = _mm256_fmadd_ps(weights, inputs[m], sums[m][n]);
    }
  }
  if (k == end) return;
  alignas(32) float inputs[rows][lanes] = {};
#pragma GCC unroll 3
  for (int m = 0; m < rows; ++m)
    __builtin_memcpy(inputs[m], x[m] + k, static_cast<size_t>(end - k) * sizeof(float));
#pragma GCC unroll 4
  for (int n = 0; n < outputs; ++n) {
    uint8_t tail[lanes * Type::bytes] = {};
    __builtin_memcpy(tail, w + n * row_bytes + k * Type::bytes,
                     static_cast<size_t>((end - k) * Type::bytes));
    const __m256 weights = Type::load(tail);
#pragma GCC unroll 3
    for (int m = 0; m < rows; ++m)
      sums[m][n] = _mm256_fmadd_ps(weights, _mm256_load_ps(inputs[m]), sums[m][n]);
  }
}

// The same for f8_e4m3, 16 columns a step.
template <int rows, int outputs>
inline void add_f8_columns(const uint8_t* w, int64_t row_bytes, const float* const* x,
                           int64_t begin, int64_t end, __m256 (&sums)[rows][outputs]) {
  const int64_t ahead =
      outputs * row_bytes <= longest_prefetch ? outputs * row_bytes : stream_prefetch;
  int64_t k = begin;
  for (; k + 2 * lanes <= end; k += 2 * lanes) {
#pragma GCC unroll 4
    for (int n = 0; n < outputs; ++n) {
      const uint8_t* p = w + n * row_bytes + k;
      _mm_prefetch(reinterpret_cast<const char*>(p + ahead), _MM_HINT_T0);
      const F8::Pair weights = F8::load_pair(p);
#pragma GCC unroll 3
      for (int m = 0; m < rows; ++m) {
        sums[m][n] = _mm256_fmadd_ps(weights.low, _mm256_loadu_ps(x[m] + k), sums[m][n]);
        sums[m][n] = _mm256_fmadd_ps(weights.high, _mm256_loadu_ps(x[m] + k + lanes), sums[m][n]);
      }
    }
  }
  if (k == end) return;
  alignas(32) float inputs[rows][2 * lanes] = {};
#pragma GCC unroll 3
  for (int m = 0; m < rows; ++m)
    __builtin_memcpy(inputs[m], x[m] + k, static_cast<size_t>(end - k) * sizeof(float));
#pragma GCC unroll 4
  for (int n = 0; n < outputs; ++n) {
    uint8_t tail[2 * lanes] = {};
    __builtin_memcpy(tail, w + n * row_bytes + k, static_cast<size_t>(end - k));
    const F8::Pair weights = F8::load_pair(tail);
#pragma GCC unroll 3
    for (int m = 0; m < rows; ++m) {
      sums[m][n] = _mm256_fmadd_ps(weights.low, _mm256_load_ps(inputs[m]), sums[m][n]);
      sums[m][n] = _mm256_fmadd_ps(weights.high, _mm256_load_ps(inputs[m] + lanes), sums[m][n]);
    }
  }
}

template <typename Type, int rows, int outputs>
void multiply_block(const MatmulTile& tile, int64_t n, int64_t row) {
  const int64_t row_bytes = tile.columns * Type::bytes;
  const uint8_t* w = static_cast<const uint8_t*>(tile.weights) + n * row_bytes;
  const float* x[rows];
  __m256 sums[rows][outputs];
#pragma GCC unroll 3
  for (int m = 0; m < rows; ++m) {
    x[m] = static_cast<const float*>(tile.x[row + m]);
#pragma GCC unroll 4
    for (int o = 0; o < outputs; ++o) sums[m][o] = _mm256_setzero_ps();
  }
  if constexpr (Type::bytes > 1) {
    add_columns<Type, rows, outputs>(w, row_bytes, x, 0, tile.columns, sums);
  } else {
    const int64_t runs = (tile.columns + scale_run - 1) / scale_run;
    for (int64_t run = 0; run < runs; ++run) {
      __m256 parts[rows][outputs];
#pragma GCC unroll 3
      for (int m = 0; m < rows; ++m)
#pragma GCC unroll 4
        for (int o = 0; o < outputs; ++o) parts[m][o] = _mm256_setzero_ps();
      const int64_t end = (run + 1) * scale_run;
      add_f8_columns<rows, outputs>(w, row_bytes, x, run * scale_run,
                                    end < tile.columns ? end : tile.columns, parts);
#pragma GCC unroll 4
      for (int o = 0; o < outputs; ++o) {
        const __m256 scale =
            _mm256_set1_ps(256.0f * tile.block_scales[(n + o) / scale_run * runs + run]);
#pragma GCC unroll 3
        for (int m = 0; m < rows; ++m) sums[m][o] = _mm256_fmadd_ps(parts[m][o], scale, sums[m][o]);
      }
    }
  }
#pragma GCC unroll 3
  for (int m = 0; m < rows; ++m)
#pragma GCC unroll 4
    for (int o = 0; o < outputs; ++o) {
      float& y = tile.y[row + m][n + o - tile.begin];
      const float sum = horizontal_sum(sums[m][o]);
      y = tile.accumulate ? y + sum : sum;
    }
}

using BlockFunction = void (*)(const MatmulTile& tile, int64_t n, int64_t row);

template <typename Type>
void multiply(const MatmulTile& tile) {
  static constexpr BlockFunction wide[most_rows + 1] = {
      nullptr,
      multiply_block<Type, 1, most_outputs>,
      multiply_block<Type, 2, most_outputs>,
      multiply_block<Type, 3, most_outputs>,
  };
  static constexpr BlockFunction single[most_rows + 1] = {
      nullptr,
      multiply_block<Type, 1, 1>,
      multiply_block<Type, 2, 1>,
      multiply_block<Type, 3, 1>,
  };
  const int64_t parts = (tile.rows + most_rows - 1) / most_rows;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t row = tile.rows * part / parts;
    const int64_t rows = tile.rows * (part + 1) / parts - row;
    int64_t n = tile.begin;
    for (; n + most_outputs <= tile.end; n += most_outputs) wide[rows](tile, n, row);
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

}  // namespace qnext::ops::avx2
