// q8_0 and q4_0 products, AVX-512 with VNNI. A panel's 16 rows are the 16 lanes: vpdpbusd
// multiplies one dword of each row with one dword of x, broadcast by the load itself. Unpacking a
// block of weights is paid once for up to 12 rows of x: 12 float accumulators, 8 registers of
// weights, mask, scale and temporaries fill the 32 registers. The chain of eight vpdpbusd of one
// row overlaps with the next rows' out of order.
#include <immintrin.h>

#include "ops/matmul/kernels.h"
#include "ops/matmul/layout.h"

namespace qnext::ops::avx512 {

namespace {

constexpr int most_rows = 12;
// Far enough ahead to cover a memory access while one core streams, about 100 ns at 20 bytes/ns;
// panels follow each other in memory, so this runs on into the next one.
constexpr int64_t prefetch_distance = 4096;

template <int bits>
inline void unpack(const uint8_t* quants, __m512i weights[8]) {
  if constexpr (bits == 8) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) weights[j] = _mm512_load_si512(quants + 64 * j);
  } else {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i pair = _mm512_load_si512(quants + 64 * j);
      weights[j] = _mm512_and_si512(pair, low);
      weights[j + 4] = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low);
    }
  }
}

// One panel times `rows` rows of x from `row` on.
template <int bits, int rows>
void multiply_panel(const MatmulTile& tile, int64_t n, int64_t row) {
  constexpr int lines = layout::quant_bytes(bits) / 64;
  const int64_t blocks = tile.columns / layout::block;
  const auto* unit = static_cast<const uint8_t*>(tile.weights) +
                     n / layout::panel_rows * layout::panel_bytes(bits, tile.columns);
  const int8_t* x[rows];
  __m512 sums[rows];
#pragma GCC unroll 12
  for (int r = 0; r < rows; ++r) {
    x[r] = static_cast<const int8_t*>(tile.x[row + r]);
    sums[r] = _mm512_setzero_ps();
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* scale_bytes = unit + b % 2 * layout::scale_bytes;
    const uint8_t* quants = unit + 2 * layout::scale_bytes + b % 2 * layout::quant_bytes(bits);
#pragma GCC unroll 8
    for (int line = 0; line < lines; ++line)
      _mm_prefetch(reinterpret_cast<const char*>(quants + prefetch_distance + 64 * line),
                   _MM_HINT_T0);
    if (b % 2 == 0)
      _mm_prefetch(reinterpret_cast<const char*>(unit + prefetch_distance), _MM_HINT_T0);
    else
      unit += layout::unit_bytes(bits);
    __m512i weights[8];
    unpack<bits>(quants, weights);
    const __m512 scales =
        _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(scale_bytes)));
#pragma GCC unroll 12
    for (int r = 0; r < rows; ++r) {
      const auto* x_quants = reinterpret_cast<const int32_t*>(x[r]) + b * 8;
      const auto* x_scales = reinterpret_cast<const float*>(x[r] + tile.columns);
      const auto* x_sums = reinterpret_cast<const int32_t*>(x_scales + blocks);
      __m512i dot = _mm512_set1_epi32(x_sums[b]);
      if constexpr (bits == 8) dot = _mm512_slli_epi32(dot, 4);
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j)
        dot = _mm512_dpbusd_epi32(dot, weights[j], _mm512_set1_epi32(x_quants[j]));
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot),
                                _mm512_mul_ps(scales, _mm512_set1_ps(x_scales[b])), sums[r]);
    }
  }
  const int64_t count = tile.end - n < 16 ? tile.end - n : 16;
  const auto mask = static_cast<__mmask16>((1u << count) - 1);
#pragma GCC unroll 12
  for (int r = 0; r < rows; ++r) {
    float* y = tile.y[row + r] + (n - tile.begin);
    if (tile.accumulate) sums[r] = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sums[r]);
    _mm512_mask_storeu_ps(y, mask, sums[r]);
  }
}

using PanelFunction = void (*)(const MatmulTile& tile, int64_t n, int64_t row);

template <int bits>
void multiply(const MatmulTile& tile) {
  static constexpr PanelFunction functions[most_rows + 1] = {
      nullptr,
      multiply_panel<bits, 1>,
      multiply_panel<bits, 2>,
      multiply_panel<bits, 3>,
      multiply_panel<bits, 4>,
      multiply_panel<bits, 5>,
      multiply_panel<bits, 6>,
      multiply_panel<bits, 7>,
      multiply_panel<bits, 8>,
      multiply_panel<bits, 9>,
      multiply_panel<bits, 10>,
      multiply_panel<bits, 11>,
      multiply_panel<bits, 12>,
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

void multiply_q8_0(const MatmulTile& tile) {
  multiply<8>(tile);
}
void multiply_q4_0(const MatmulTile& tile) {
  multiply<4>(tile);
}

void quantize(const float* x, int64_t blocks, int8_t* quants, float* scales, int32_t* sums) {
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  for (int64_t b = 0; b < blocks; ++b, x += layout::block, quants += layout::block) {
    const __m512 low = _mm512_loadu_ps(x);
    const __m512 high = _mm512_loadu_ps(x + 16);
    const uint32_t bits = _mm512_reduce_max_epu32(
        _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(low), magnitude),
                         _mm512_and_si512(_mm512_castps_si512(high), magnitude)));
    float largest;
    __builtin_memcpy(&largest, &bits, 4);
    const bool finite = bits < 0x7F800000;
    if (!finite || largest < layout::smallest_magnitude) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(quants), _mm256_setzero_si256());
      scales[b] = finite ? 0.0f : __builtin_nanf("");
      sums[b] = 0;
      continue;
    }
    const __m512 inverse = _mm512_set1_ps(127.0f / largest);
    const __m512i low_quants = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
    const __m512i high_quants = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(quants), _mm512_cvtepi32_epi8(low_quants));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(quants + 16), _mm512_cvtepi32_epi8(high_quants));
    scales[b] = largest / 127.0f;
    sums[b] = -8 * _mm512_reduce_add_epi32(_mm512_add_epi32(low_quants, high_quants));
  }
}

}  // namespace qnext::ops::avx512
