// q8_0 and q4_0 products, AVX2. A panel's 16 rows are two registers of 8 dwords. vpmaddubsw adds
// pairs of products in 16 bits: of q4_0, eight such pairs still fit (8 * 2 * 15 * 127 = 30480), so
// a block needs one widening; q8_0 takes |x| times w with x's sign (2 * 127 * 127 = 32258 fits,
// 2 * 255 * 127 would not) and widens each pair.
#include <immintrin.h>

#include "ops/matmul/kernels.h"
#include "ops/matmul/layout.h"

namespace qnext::ops::avx2 {

namespace {

// 2 x 4 sums of a block, two of weights, x and constants fill the 16 registers.
constexpr int most_rows = 4;
constexpr int64_t prefetch_distance = 4096;

inline __m256i load(const uint8_t* bytes) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes));
}
inline __m256i broadcast(const int8_t* bytes) {
  int32_t dword;
  __builtin_memcpy(&dword, bytes, 4);
  return _mm256_set1_epi32(dword);
}

// Keeps the order of additions as written: GCC would turn the chains of sums into trees that do not
// fit the registers.
inline void pin(__m256i& value) {
  asm("" : "+x"(value));
}

// dots[r][h]: sum of (w + 8) x over one block, for rows 8h .. 8h + 7 of the panel.
template <int rows>
inline void dot_q4_0(const uint8_t* quants, const int8_t* const* x, int64_t b,
                     __m256i (&dots)[rows][2]) {
  const __m256i low = _mm256_set1_epi8(15);
  __m256i pairs[rows][2];
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    __m256i w[2];
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m256i bytes = load(quants + 64 * (j % 4) + 32 * h);
      w[h] = _mm256_and_si256(j < 4 ? bytes : _mm256_srli_epi16(bytes, 4), low);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const __m256i x_quants = broadcast(x[r] + b * layout::block + 4 * j);
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        const __m256i products = _mm256_maddubs_epi16(w[h], x_quants);
        pairs[r][h] = j == 0 ? products : _mm256_add_epi16(pairs[r][h], products);
        pin(pairs[r][h]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) dots[r][h] = _mm256_madd_epi16(pairs[r][h], _mm256_set1_epi16(1));
}

// dots[r][h]: sum of w x over one block.
template <int rows>
inline void dot_q8_0(const uint8_t* quants, const int8_t* const* x, int64_t b,
                     __m256i (&dots)[rows][2]) {
  const __m256i flip = _mm256_set1_epi8(-128);
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    const __m256i w[2] = {_mm256_xor_si256(load(quants + 64 * j), flip),
                          _mm256_xor_si256(load(quants + 64 * j + 32), flip)};
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const __m256i x_quants = broadcast(x[r] + b * layout::block + 4 * j);
      const __m256i magnitudes = _mm256_abs_epi8(x_quants);
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        const __m256i products = _mm256_madd_epi16(
            _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(w[h], x_quants)), ones);
        dots[r][h] = j == 0 ? products : _mm256_add_epi32(dots[r][h], products);
        pin(dots[r][h]);
      }
    }
  }
}

inline void store(const MatmulTile& tile, int64_t row, int64_t n, const float* sums) {
  float* y = tile.y[row] + (n - tile.begin);
  const int64_t count = tile.end - n < layout::panel_rows ? tile.end - n : layout::panel_rows;
  for (int64_t i = 0; i < count; ++i) y[i] = tile.accumulate ? y[i] + sums[i] : sums[i];
}

// One panel times `rows` rows of x from `row` on.
template <int bits, int rows>
void multiply_panel(const MatmulTile& tile, int64_t n, int64_t row) {
  constexpr int lines = layout::quant_bytes(bits) / 64;
  const int64_t blocks = tile.columns / layout::block;
  const auto* panel = static_cast<const uint8_t*>(tile.weights) +
                      n / layout::panel_rows * layout::panel_bytes(bits, tile.columns);
  const int8_t* x[rows];
  __m256 sums[rows][2];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    x[r] = static_cast<const int8_t*>(tile.x[row + r]);
    sums[r][0] = sums[r][1] = _mm256_setzero_ps();
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* scale_bytes = panel + layout::scales_at(bits, b);
    const uint8_t* quants = panel + layout::quants_at(bits, b);
#pragma GCC unroll 8
    for (int line = 0; line < lines; ++line)
      _mm_prefetch(reinterpret_cast<const char*>(quants + prefetch_distance + 64 * line),
                   _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(scale_bytes + prefetch_distance), _MM_HINT_T0);

    __m256i dots[rows][2];
    if constexpr (bits == 4)
      dot_q4_0<rows>(quants, x, b, dots);
    else
      dot_q8_0<rows>(quants, x, b, dots);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const auto* x_scales = reinterpret_cast<const float*>(x[r] + tile.columns);
      const auto* x_sums = reinterpret_cast<const int32_t*>(x_scales + blocks);
      const __m256 x_scale = _mm256_set1_ps(x_scales[b]);
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        if constexpr (bits == 4)
          dots[r][h] = _mm256_add_epi32(dots[r][h], _mm256_set1_epi32(x_sums[b]));
        const __m256 scale =
            _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(scale_bytes + 16 * h)));
        sums[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r][h]), _mm256_mul_ps(scale, x_scale),
                                     sums[r][h]);
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

template <int bits>
void multiply(const MatmulTile& tile) {
  static constexpr PanelFunction functions[most_rows + 1] = {
      nullptr, multiply_panel<bits, 1>, multiply_panel<bits, 2>, multiply_panel<bits, 3>,
      multiply_panel<bits, 4>};
  // In equal parts: 5 rows are 3 + 2, not 4 + 1.
  const int64_t parts = (tile.rows + most_rows - 1) / most_rows;
  for (int64_t n = tile.begin; n < tile.end; n += layout::panel_rows)
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t row = tile.rows * part / parts;
      functions[tile.rows * (part + 1) / parts - row](tile, n, row);
    }
}

}  // namespace

void multiply_q8_0(const MatmulTile& tile) {
  multiply<8>(tile);
}
void multiply_q4_0(const MatmulTile& tile) {
  multiply<4>(tile);
}

void quantize(const float* x, int64_t blocks, int8_t* quants, float* scales, int32_t* sums) {
  const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
  for (int64_t b = 0; b < blocks; ++b, x += layout::block, quants += layout::block) {
    __m256 values[4];
    __m256i largest_lanes = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
      values[i] = _mm256_loadu_ps(x + 8 * i);
      largest_lanes = _mm256_max_epu32(largest_lanes,
                                       _mm256_and_si256(_mm256_castps_si256(values[i]), magnitude));
    }
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(largest_lanes),
                                 _mm256_extracti128_si256(largest_lanes, 1));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4E));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xB1));
    const auto bits = static_cast<uint32_t>(_mm_cvtsi128_si32(four));
    float largest;
    __builtin_memcpy(&largest, &bits, 4);
    const bool finite = bits < 0x7F800000;
    if (!finite || largest < layout::smallest_magnitude) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(quants), _mm256_setzero_si256());
      scales[b] = finite ? 0.0f : __builtin_nanf("");
      sums[b] = 0;
      continue;
    }
    const __m256 inverse = _mm256_set1_ps(127.0f / largest);
    __m256i integers[4];
    for (int i = 0; i < 4; ++i) integers[i] = _mm256_cvtps_epi32(_mm256_mul_ps(values[i], inverse));
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(integers[0], integers[1]),
                                             _mm256_packs_epi32(integers[2], integers[3]));
    // The packs work in halves of the register: put the dwords back in order.
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(quants),
        _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    const __m256i eight = _mm256_add_epi32(_mm256_add_epi32(integers[0], integers[1]),
                                           _mm256_add_epi32(integers[2], integers[3]));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
    scales[b] = largest / 127.0f;
    sums[b] = -8 * _mm_cvtsi128_si32(sum);
  }
}

}  // namespace qnext::ops::avx2
