// Packing at load: a warp a tile, each lane fetching the 32 weights of its own fragments.
//
// A tile's row is 64 to 256 consecutive source bytes and all of them belong to one warp, so the
// lanes' small loads meet in the L1 cache and memory sees whole lines; the packed side is written
// in 512-byte runs. Weights pass here once in a process, so there is no second step to the ladder.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <algorithm>
#include <limits>

#include "base/cuda_error.h"
#include "ops/activation/activation_device.h"
#include "ops/matmul/packed_matrix_cuda.h"
#include "ops/matmul/warp_dot.cuh"

namespace qnext::ops::cuda {

namespace {

constexpr int warps = 8;
constexpr int scale_threads = 256;
constexpr int source_block = 128;  // rows and columns that share a scale in a checkpoint
constexpr float largest_f8 = 448;
constexpr int q4_columns = 32;

// --- Where the weights come from ---------------------------------------------------------------

template <DType dtype>
struct StoredSource {
  using T = typename Stored<dtype>::type;
  const T* data;
  const float* block_scales;
  int64_t rows, columns;
  bool wide;  // pairs of values are aligned

  static constexpr bool is_f8 = dtype == DType::f8_e4m3;

  __device__ float block_scale(int64_t row, int64_t column) const {
    const int64_t blocks = (columns + source_block - 1) / source_block;
    return block_scales[row / source_block * blocks + column / source_block];
  }
  // Two values from an even column, not scaled; zeros outside.
  __device__ float2 stored(int64_t row, int64_t column) const {
    struct alignas(2 * sizeof(T)) Two {
      T values[2];
    };
    if (row >= rows || column >= columns) return {0, 0};
    const T* from = data + row * columns + column;
    if (wide) {
      const Two two = *reinterpret_cast<const Two*>(from);
      return {Stored<dtype>::widen(two.values[0]), Stored<dtype>::widen(two.values[1])};
    }
    return {Stored<dtype>::widen(from[0]),
            column + 1 < columns ? Stored<dtype>::widen(from[1]) : 0.0f};
  }
  __device__ float2 values(int64_t row, int64_t column) const {
    float2 two = stored(row, column);
    if constexpr (is_f8) {
      if (row >= rows || column >= columns) return {0, 0};
      const float scale = block_scale(row, column);
      two.x *= scale;
      two.y *= scale;
    }
    return two;
  }
};

__device__ inline uint32_t mixed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  return x ^ x >> 16;
}

// Normal values, each a function of the seed and its place alone.
struct RandomSource {
  int64_t rows, columns;
  float deviation;
  uint64_t seed;

  static constexpr bool is_f8 = false;

  __device__ float2 values(int64_t row, int64_t column) const {
    if (row >= rows || column >= columns) return {0, 0};
    const auto pair = static_cast<uint64_t>(row * ((columns + 1) / 2) + column / 2);
    const uint32_t high = mixed(static_cast<uint32_t>((pair + seed) >> 32) ^
                                static_cast<uint32_t>(seed) * 0x9E3779B9u);
    const uint32_t first = mixed(static_cast<uint32_t>(pair) ^ high);
    const uint32_t second = mixed(first + 0x9E3779B9u);
    // Box and Muller; the logarithm's argument lies in (0, 1], but near 1 the quick one may be
    // above 0.
    const float radius =
        deviation *
        sqrtf(fmaxf(0.0f, -2 * __logf((static_cast<float>(first >> 8) + 1) * 0x1p-24f)));
    float sine, cosine;
    __sincosf(static_cast<float>(second >> 8) * (6.2831853f * 0x1p-24f), &sine, &cosine);
    return {radius * cosine, column + 1 < columns ? radius * sine : 0.0f};
  }
};

// --- Where they go -----------------------------------------------------------------------------

struct Destination {
  std::byte* tiles;  // of the first strip written
  float* scales;
  int64_t strips, column_tiles, strip_scales;
  Placement placement;
};

// The 16 pairs of a lane's fragments, [step][i]; of a half placement only those of its half.
using LanePairs = float2[4][4];

template <typename Function>
__device__ void for_each_pair(const Destination& to, int64_t strip, int64_t tile, int lane,
                              Function function) {
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int step = 0; step < 4; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t column = tile * tile_columns + 16 * step + 2 * t + (i / 2) * 8;
      const bool lower = i % 2 != 0;
      if (to.placement == Placement::whole)
        function(step, i, strip * tile_rows + g + (lower ? 8 : 0), column);
      else if (lower == (to.placement == Placement::lower))
        function(step, i, strip * 8 + g, column);
    }
}

// Replaces those bits of the word that the mask names: gate and up share words.
__device__ inline void insert(uint32_t* word, uint32_t value, uint32_t mask) {
  *word = mask == 0xFFFFFFFFu ? value : (*word & ~mask) | (value & mask);
}

// Bits of the first (i even: row g) and of the second half of a tile's rows.
__device__ inline uint32_t half_mask(Placement placement, uint32_t upper, uint32_t lower) {
  return placement == Placement::whole   ? upper | lower
         : placement == Placement::upper ? upper
                                         : lower;
}

__device__ inline uint32_t bf16_bits(float value) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}
__device__ inline uint32_t f8_bits(float value) {
  return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
}

template <typename Source>
__device__ void pack_bf16(const Source& source, const Destination& to, std::byte* tile_data,
                          int64_t strip, int64_t tile, int lane) {
  for_each_pair(to, strip, tile, lane, [&](int step, int i, int64_t row, int64_t column) {
    const float2 v = source.values(row, column);
    reinterpret_cast<uint32_t*>(tile_data + 512 * step + 16 * lane)[i] =
        bf16_bits(v.x) | bf16_bits(v.y) << 16;
  });
}

template <typename Source>
__device__ void pack_f8(const Source& source, const Destination& to, std::byte* tile_data,
                        int64_t strip, int64_t tile, int lane) {
  uint32_t words[4][2] = {};
  const float* scales = to.scales + strip * to.strip_scales + tile / 2 * 2;
  for_each_pair(to, strip, tile, lane, [&](int step, int i, int64_t row, int64_t column) {
    uint32_t first, second;
    if constexpr (Source::is_f8) {
      const float2 v = source.stored(row, column);  // to e4m3 and back is exact
      first = f8_bits(v.x);
      second = f8_bits(v.y);
    } else {
      const float2 v = source.values(row, column);
      const float scale = scales[i % 2];
      first = scale > 0 ? f8_bits(v.x / scale) : 0;
      second = scale > 0 ? f8_bits(v.y / scale) : 0;
    }
    words[step][i / 2] |= i % 2 == 0 ? first << 8 | second << 24 : first | second << 16;
  });
  const uint32_t mask = half_mask(to.placement, 0xFF00FF00u, 0x00FF00FFu);
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    auto* out =
        reinterpret_cast<uint32_t*>(tile_data + 512 * (step / 2) + 16 * lane) + step % 2 * 2;
    insert(out, words[step][0], mask);
    insert(out + 1, words[step][1], mask);
  }
}

// A value of largest magnitude, the first of several: as blocks.h encodes.
struct Extreme {
  float value = 0;
  int column = 0;

  __device__ void take(float other, int other_column) {
    const float mine = fabsf(value), its = fabsf(other);
    if (its > mine || (its == mine && other_column < column)) {
      value = other;
      column = other_column;
    }
  }
};

// blocks.cpp's q4_0: the quotient is taken before d is rounded.
__device__ inline uint32_t q4_code(float value, float inverse) {
  const float steps = value * inverse;
  return min(15, static_cast<int>((isnan(steps) ? 0.0f : steps) + 8.5f));
}

template <typename Source>
__device__ void pack_q4(const Source& source, const Destination& to, std::byte* tile_data,
                        int64_t strip, int64_t tile, int lane) {
  LanePairs pairs = {};
  Extreme extreme[2][2];  // of 32 columns each, [half of the columns][half of the rows]
  for_each_pair(to, strip, tile, lane, [&](int step, int i, int64_t row, int64_t column) {
    const float2 v = source.values(row, column);
    pairs[step][i] = v;
    const int at = static_cast<int>(column % q4_columns);
    extreme[step / 2][i % 2].take(v.x, at);
    extreme[step / 2][i % 2].take(v.y, at + 1);
  });
  float inverse[2][2];
  uint32_t scales[2] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      Extreme& most = extreme[half][lower];
#pragma unroll
      for (int distance = 1; distance < 4; distance *= 2) {
        const float value = __shfl_xor_sync(whole_warp, most.value, distance);
        const int column = __shfl_xor_sync(whole_warp, most.column, distance);
        most.take(value, column);
      }
      const float d = most.value / -8.0f;
      inverse[half][lower] = isfinite(1.0f / d) ? 1.0f / d : 0.0f;
      scales[half] |= bf16_bits(__half2float(__float2half_rn(d))) << (16 * lower);
    }
  const uint32_t code_mask = half_mask(to.placement, 0x0F0F0F0Fu, 0xF0F0F0F0u);
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float factor = inverse[step / 2][i % 2];
      word |= q4_code(pairs[step][i].x, factor) << (4 * i) | q4_code(pairs[step][i].y, factor)
                                                                 << (4 * i + 16);
    }
    insert(reinterpret_cast<uint32_t*>(tile_data + 16 * lane) + step, word, code_mask);
  }
  if (lane % 4 < 2)
    insert(reinterpret_cast<uint32_t*>(tile_data + 512 + 8 * (lane / 4)) + lane % 4,
           lane % 4 == 0 ? scales[0] : scales[1],
           half_mask(to.placement, 0x0000FFFFu, 0xFFFF0000u));
}

template <PackedFormat format, typename Source>
__global__ void __launch_bounds__(warps* warp_lanes)
    pack_kernel(const Source source, const Destination to) {
  const int lane = threadIdx.x % warp_lanes;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / warp_lanes;
  if (at >= to.strips * to.column_tiles) return;
  const int64_t strip = at / to.column_tiles, tile = at % to.column_tiles;
  constexpr int64_t bytes = tile_bytes(format);
  std::byte* tile_data = to.tiles + at * bytes;
  if constexpr (format == PackedFormat::bf16)
    pack_bf16(source, to, tile_data, strip, tile, lane);
  else if constexpr (format == PackedFormat::f8)
    pack_f8(source, to, tile_data, strip, tile, lane);
  else
    pack_q4(source, to, tile_data, strip, tile, lane);
}

// A block per 128 x 128 of the matrix: finds the scale and writes it wherever it is read.
template <typename Source>
__global__ void __launch_bounds__(scale_threads)
    scale_kernel(const Source source, const Destination to) {
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * source_block;
  const int64_t column0 = static_cast<int64_t>(blockIdx.x) * source_block;
  float scale = 0;
  if constexpr (Source::is_f8) {
    if (column0 < source.columns) scale = source.block_scale(row0, column0);
  } else {
    __shared__ float of_warp[scale_threads / warp_lanes];
    float largest = 0;
    for (int i = threadIdx.x; i < source_block * source_block / 2; i += scale_threads) {
      const float2 v =
          source.values(row0 + i / (source_block / 2), column0 + i % (source_block / 2) * 2);
      largest = fmaxf(largest, fmaxf(fabsf(v.x), fabsf(v.y)));
    }
    largest = warp_maximum(largest);
    if (threadIdx.x % warp_lanes == 0) of_warp[threadIdx.x / warp_lanes] = largest;
    __syncthreads();
    for (float other : of_warp) largest = fmaxf(largest, other);
    scale = largest / largest_f8;
  }
  const int64_t half_strip = row0 / 8 + threadIdx.x;
  const bool whole = to.placement == Placement::whole;
  if (threadIdx.x >= source_block / 8 || half_strip >= to.strips * (whole ? 2 : 1)) return;
  const int64_t strip = whole ? half_strip / 2 : half_strip;
  const int64_t lower = whole ? half_strip % 2 : to.placement == Placement::lower;
  to.scales[strip * to.strip_scales + 2 * blockIdx.x + lower] = scale;
}

// --- Launches ----------------------------------------------------------------------------------

template <PackedFormat format, typename Source>
void launch(cudaStream_t stream, const Source& source, const Destination& to) {
  if constexpr (format == PackedFormat::f8) {
    const dim3 blocks(static_cast<unsigned>(to.strip_scales / 2),
                      static_cast<unsigned>((source.rows + source_block - 1) / source_block));
    scale_kernel<<<blocks, scale_threads, 0, stream>>>(source, to);
    check_launch("scales of packed weights");
  }
  const auto blocks = static_cast<unsigned>((to.strips * to.column_tiles + warps - 1) / warps);
  pack_kernel<format><<<blocks, warps * warp_lanes, 0, stream>>>(source, to);
  check_launch("packing of weights");
}

template <typename Source>
void launch(cudaStream_t stream, const Source& source, Placement placement,
            const PackedMatrix& matrix, int64_t first_strip) {
  const int64_t strip_rows = placement == Placement::whole ? tile_rows : tile_rows / 2;
  const Destination to{const_cast<std::byte*>(matrix.tiles) + first_strip * matrix.strip_bytes(),
                       const_cast<float*>(matrix.scales) + first_strip * matrix.strip_scales(),
                       (source.rows + strip_rows - 1) / strip_rows,
                       matrix.column_tiles(),
                       matrix.strip_scales(),
                       placement};
  if (to.strips == 0 || to.column_tiles == 0) return;
  switch (matrix.format) {
    case PackedFormat::bf16:
      return launch<PackedFormat::bf16>(stream, source, to);
    case PackedFormat::f8:
      return launch<PackedFormat::f8>(stream, source, to);
    case PackedFormat::q4:
      return launch<PackedFormat::q4>(stream, source, to);
  }
}

template <DType dtype>
void launch_stored(cudaStream_t stream, const WeightMatrix& source, Placement placement,
                   const PackedMatrix& matrix, int64_t first_strip) {
  using T = typename Stored<dtype>::type;
  const bool wide =
      source.columns % 2 == 0 && reinterpret_cast<uintptr_t>(source.data) % (2 * sizeof(T)) == 0;
  launch(stream,
         StoredSource<dtype>{static_cast<const T*>(source.data), source.block_scales, source.rows,
                             source.columns, wide},
         placement, matrix, first_strip);
}

}  // namespace

void pack(cudaStream_t stream, const WeightMatrix& source, Placement placement,
          const PackedMatrix& matrix, int64_t first_strip) {
  switch (source.dtype) {
    case DType::f32:
      return launch_stored<DType::f32>(stream, source, placement, matrix, first_strip);
    case DType::f16:
      return launch_stored<DType::f16>(stream, source, placement, matrix, first_strip);
    case DType::bf16:
      return launch_stored<DType::bf16>(stream, source, placement, matrix, first_strip);
    case DType::f8_e4m3:
      return launch_stored<DType::f8_e4m3>(stream, source, placement, matrix, first_strip);
    default:
      fail_cuda("the CUDA backend packs weights of F32, F16, BF16 or F8_E4M3 only");
  }
}

void fill_random(cudaStream_t stream, const PackedMatrix& matrix, float deviation, uint64_t seed) {
  launch(stream, RandomSource{matrix.rows, matrix.columns, deviation, seed}, Placement::whole,
         matrix, 0);
}

}  // namespace qnext::ops::cuda
