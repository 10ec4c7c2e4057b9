// All of the chunked delta rule that does not depend on S: a block a chunk and key head.
//
// Ladder. Plain: convolution, norms and gates as kernels of their own, through memory. Here a
// block convolves its 64 rows straight into tiles, sends them off, and works on from shared memory:
// the two products K K^T and Q K^T, the inverse, and P and G for each of the key head's value
// heads. Two blocks share a multiprocessor, so one's products hide the other's loads.
//
// The inverse is computed in fp32 by forward substitution, two threads a column, in blocks of 16
// rows so that the code stays short. (Products of bf16 blocks would be
// faster and lose the digits that the inverse of a nearly singular chunk needs.)
#include "base/cuda_error.h"
#include "ops/gated_delta/chunk_matrices.cuh"
#include "ops/launch_cuda.cuh"

namespace qnext::ops::cuda {

namespace {

constexpr int threads = 256;
constexpr int warps = threads / warp_lanes;
constexpr int rows_in_flight = 32;  // loads a thread has under way: 32 KB a block
// g below this is as good as no memory at all (e^-60), and c keeps its digits: |c| <= 3840.
constexpr float lowest_gate = -60.0f;

struct Arguments {
  Batch batch;
  DeltaLayer layer;
  DeltaSizes sizes;
  DeltaRows rows;
  States conv_states;
  ChunkedWorkspace workspace;
};

// Dynamic shared memory, in bytes from its (aligned) start. What shares a place is never alive at
// once: Q makes way for P, V for the fp32 triangle, that for G.
struct Places {
  int q;        // tiles of Q; then per head P
  int k;        // tiles of K
  int v;        // tiles of V; then per head 16 KB: the triangle and its inverse; then G
  int inverse;  // per head two tiles: the inverse; the inverse, rows times `kept`
  int factors;  // per head ChunkFactors
  int scalars;  // per head HeadScalars
  int norms;    // |q_i|^-1 key_dim^-0.5, |k_i|^-1
  int ones;     // factors of the rows of q and k
  int size;

  __host__ __device__ Places(int key_dim, int group) {
    const int key_tiles = key_dim / tile_side;
    q = 0;
    k = q + (group > key_tiles ? group : key_tiles) * tile_size;
    v = k + key_tiles * tile_size;
    inverse = v + group * 2 * tile_size;
    factors = inverse + group * 2 * tile_size;
    scalars = factors + group * static_cast<int>(sizeof(ChunkFactors));
    norms = scalars + group * static_cast<int>(sizeof(HeadScalars));
    ones = norms + 2 * chunk_rows * static_cast<int>(sizeof(float));
    size = ones + chunk_rows * static_cast<int>(sizeof(float));
  }
};
constexpr int alignment = 1024;

// A warp a value head: beta, and c by a scan over pairs of rows.
__device__ void compute_gates(const Arguments& arguments, const SequenceRows& sequence,
                              const Chunk& chunk, int key_head, int of_group,
                              HeadScalars& scalars) {
  const int lane = threadIdx.x % warp_lanes;
  const int group = arguments.sizes.group;
  const int head = key_head * group + of_group;
  const float rate = -expf(arguments.layer.a_log[head]), bias = arguments.layer.dt_bias[head];
  float g[2], beta[2];
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int i = 2 * lane + j;
    g[j] = beta[j] = 0;
    if (i < chunk.begin || i >= chunk.end) continue;
    const int64_t row = sequence.first_row + chunk.first + i;
    const float* ba = arguments.rows.ba + row * arguments.rows.ba_stride + key_head * 2 * group;
    beta[j] = quick_sigmoid(ba[of_group]);
    g[j] = fmaxf(rate * quick_softplus(ba[group + of_group] + bias), lowest_gate);
  }
  float sum = g[0] + g[1];
  for (int distance = 1; distance < warp_lanes; distance *= 2) {
    const float before = __shfl_up_sync(whole_warp, sum, distance);
    if (lane >= distance) sum += before;
  }
  const float ahead = __shfl_up_sync(whole_warp, sum, 1);
  const float first = (lane > 0 ? ahead : 0.0f) + g[0];
  scalars.c[2 * lane] = first;
  scalars.c[2 * lane + 1] = first + g[1];
  scalars.beta[2 * lane] = beta[0];
  scalars.beta[2 * lane + 1] = beta[1];
}

// Where a thread's two channels, columns 2 pair and 2 pair + 1 of the key head's q, k, v, come
// from.
struct Source {
  const uint32_t* input;  // of the chunk's row 0, whether that exists or not
  int stride;
  Chunk chunk;

  __device__ Source(const Arguments& arguments, const SequenceRows& sequence, const Chunk& chunk_,
                    int key_head, int pair)
      : stride(static_cast<int>(arguments.rows.qkvz_stride / 2)), chunk(chunk_) {
    input =
        reinterpret_cast<const uint32_t*>(arguments.rows.qkvz + static_cast<int64_t>(key_head) *
                                                                    arguments.sizes.group_width) +
        static_cast<int64_t>(sequence.first_row + chunk.first) * stride + pair;
  }
  __device__ bool exists(int row) const { return row >= chunk.begin && row < chunk.end; }
  template <bool whole>
  __device__ uint32_t load(int row) const {
    return whole || exists(row) ? input[row * stride] : 0u;
  }
  __device__ void begin(uint32_t (&words)[rows_in_flight]) const {
#pragma unroll
    for (int i = 0; i < rows_in_flight; ++i) words[i] = load<false>(i);
  }
};

// A thread's two channels.
struct Channels {
  Channel left, right;

  __device__ void shift(uint32_t word) {
    const float2 x = widen_pair(word);
    left.shift(x.x);
    right.shift(x.y);
  }
  __device__ uint32_t advance(uint32_t word, float factor) {
    const float2 x = widen_pair(word);
    return bf16_pair(quick_silu(left.advance(x.x)) * factor,
                     quick_silu(right.advance(x.y)) * factor);
  }
};

// All rows of a chunk, each times its factor, from the first words on. Straight code: of a chunk
// that is not whole the missing rows are computed and dropped, and the past is put in place where
// they end.
template <bool whole>
__device__ void convolve_rows(const Source& source, Channels& channels,
                              uint32_t (&words)[rows_in_flight], int column, char* tile,
                              const float* factors) {
  const Channels first = channels;
#pragma unroll 1
  for (int begin = 0; begin < chunk_rows; begin += rows_in_flight) {
#pragma unroll
    for (int i = 0; i < rows_in_flight; ++i) {
      const int row = begin + i;
      if (!whole && row == source.chunk.begin) channels = first;
      const uint32_t result = channels.advance(words[i], factors[row]);
      if (row + rows_in_flight < chunk_rows) words[i] = source.load<whole>(row + rows_in_flight);
      *reinterpret_cast<uint32_t*>(tile + (row - i % 8) * tile_row_bytes + in_tile(i % 8, column)) =
          whole || source.exists(row) ? result : 0;
    }
  }
}

__device__ void convolve(const Arguments& arguments, const SequenceRows& sequence, int key_head,
                         int pair, const Source& source, uint32_t (&words)[rows_in_flight],
                         char* tile, const float* factors) {
  const DeltaSizes& sizes = arguments.sizes;
  const Chunk& chunk = source.chunk;
  const int column = 2 * pair;
  int channel = key_head * sizes.key_dim + column;
  if (column >= 2 * sizes.key_dim)
    channel =
        2 * sizes.key_width + key_head * sizes.group * sizes.value_dim + column - 2 * sizes.key_dim;
  else if (column >= sizes.key_dim)
    channel += sizes.key_width - sizes.key_dim;

  Channels channels;
  channels.left.load_weights(arguments.layer, sizes, channel);
  channels.right.load_weights(arguments.layer, sizes, channel + 1);
  // The inputs before the chunk's first row: the sequence's own where it has begun, else the
  // state's.
  channels.left.load_past(sizes, arguments.conv_states, sequence.state_in, channel);
  channels.right.load_past(sizes, arguments.conv_states, sequence.state_in, channel + 1);
#pragma unroll
  for (int past = most_past; past > 0; --past)
    if (chunk.first + chunk.begin >= past)
      channels.shift(source.input[(chunk.begin - past) * source.stride]);
  if (chunk.begin == 0 && chunk.end == chunk_rows)
    convolve_rows<true>(source, channels, words, column % tile_side, tile, factors);
  else
    convolve_rows<false>(source, channels, words, column % tile_side, tile, factors);
}

// Two neighbouring threads a row of Q or K: the sum of squares of what the tiles hold.
template <int key_dim>
__device__ void compute_norms(const char* q, const char* k, float* norms) {
  const int item = threadIdx.x / 2, part = threadIdx.x % 2;
  const int row = item % chunk_rows;
  const char* tiles = item < chunk_rows ? q : k;
  // Of 128 columns a tile each, of 64 half a tile.
  const char* tile = key_dim == 128 ? tiles + part * tile_size : tiles;
  constexpr int pieces = key_dim / 16;
  const int first = key_dim == 128 ? 0 : part * pieces;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < pieces; ++i) {
    // The order is the row's own, and keeps neighbours in different banks.
    const int piece = (first + i) ^ (row % 8) ^ (key_dim == 128 ? 4 * part : 0);
    const uint4 words = *reinterpret_cast<const uint4*>(tile + row * tile_row_bytes + 16 * piece);
    for (uint32_t word : {words.x, words.y, words.z, words.w}) {
      const float2 x = widen_pair(word);
      sum = fmaf(x.x, x.x, fmaf(x.y, x.y, sum));
    }
  }
  sum += __shfl_xor_sync(whole_warp, sum, 1);
  const float norm = rsqrtf(sum + l2_epsilon);
  if (part == 0) norms[item] = item < chunk_rows ? norm / sqrtf(static_cast<float>(key_dim)) : norm;
}

// Grid (key_heads, most_chunks).
template <int key_dim>
__global__ void __launch_bounds__(threads, 2) prepare_kernel(Arguments arguments) {
  constexpr int key_tiles = key_dim / tile_side;
  extern __shared__ char dynamic[];
  char* const shared = dynamic + (alignment - shared_address(dynamic) % alignment) % alignment;
  const DeltaSizes& sizes = arguments.sizes;
  const Batch& batch = arguments.batch;
  const int group = sizes.group;
  const Places places(key_dim, group);
  const int tid = threadIdx.x, warp = tid / warp_lanes;
  const int key_head = static_cast<int>(blockIdx.x);
  const int number = static_cast<int>(blockIdx.y);

  let_next_kernel_start();
  wait_for_earlier_kernels();
  int s = 0;
  for (int end = static_cast<int>(batch.sequences); end - s > 1;) {
    const int middle = (s + end) / 2;
    (first_chunk(batch, middle) <= number ? s : end) = middle;
  }
  const SequenceRows sequence = batch.sequence[s];
  const int of_sequence = number - first_chunk(batch, s);
  if (of_sequence >= chunks_of(sequence)) return;
  const Chunk chunk(sequence, of_sequence);

  const auto scalars = reinterpret_cast<HeadScalars*>(shared + places.scalars);
  const auto factors = reinterpret_cast<ChunkFactors*>(shared + places.factors);
  float* const q_norms = reinterpret_cast<float*>(shared + places.norms);
  float* const k_norms = q_norms + chunk_rows;
  float* const ones = reinterpret_cast<float*>(shared + places.ones);
  const uint32_t q = shared_address(shared + places.q), k = shared_address(shared + places.k);
  const uint32_t v = shared_address(shared + places.v);

  // The first rows are on their way while the gates are computed.
  const int pairs = key_dim + group * sizes.value_dim / 2;
  uint32_t words[rows_in_flight];
  if (tid < pairs) Source(arguments, sequence, chunk, key_head, tid).begin(words);
  if (tid < chunk_rows) ones[tid] = 1;
  if (warp < group) compute_gates(arguments, sequence, chunk, key_head, warp, scalars[warp]);
  __syncthreads();
  for (int pair = tid; pair < pairs; pair += threads) {
    const Source source(arguments, sequence, chunk, key_head, pair);
    if (pair >= threads) source.begin(words);
    const int tile = pair / (tile_side / 2), of_values = tile - 2 * key_tiles;
    const int place = of_values >= 0      ? places.v + of_values * tile_size
                      : tile >= key_tiles ? places.k + (tile - key_tiles) * tile_size
                                          : places.q + tile * tile_size;
    const float* row_factors =
        of_values >= 0 ? scalars[(2 * pair - 2 * key_dim) / sizes.value_dim].beta : ones;
    convolve(arguments, sequence, key_head, pair, source, words, shared + place, row_factors);
  }
  publish_to_async();
  __syncthreads();
  const ChunkedWorkspace& to = arguments.workspace;
  const int64_t first_head = static_cast<int64_t>(number) * sizes.value_heads + key_head * group;
  if (tid == 0) {
    std::byte* keys =
        to.keys + (static_cast<int64_t>(number) * sizes.key_heads + key_head) * to.keys_size;
    copy_out(keys, q, key_tiles * tile_size);
    copy_out(keys + key_tiles * tile_size, k, key_tiles * tile_size);
    copy_out(to.values + first_head * to.values_size, v,
             static_cast<uint32_t>(group * to.values_size));
    commit_copies_out();
  }

  compute_norms<key_dim>(shared + places.q, shared + places.k, q_norms);
  const int strip = warp % blocks;
  float sums[8][4];
  multiply_by_keys<key_dim>(warp < blocks ? k : q, k, strip, sums);
  if (tid == 0) wait_until_copied_out();
  __syncthreads();

  for (int h = 0; h < group; ++h) {
    if (warp < blocks)
      store_triangle(sums, strip, scalars[h], k_norms,
                     reinterpret_cast<float*>(shared + places.v + h * 2 * tile_size));
    else
      store_scores(sums, strip, scalars[h], q_norms, k_norms, shared + places.q + h * tile_size);
  }
  if (tid < group * chunk_rows) {
    HeadScalars& of_head = scalars[tid / chunk_rows];
    ChunkFactors& result = factors[tid / chunk_rows];
    const int i = tid % chunk_rows;
    const float c = of_head.c[i], last = of_head.c[chunk_rows - 1];
    of_head.kept[i] = k_norms[i] * quick_exp(last - c);
    result.recall[i] = of_head.beta[i] * k_norms[i] * quick_exp(c);
    result.read[i] = q_norms[i] * quick_exp(c);
    if (i == 0) result.decay = expf(last);
  }
  __syncthreads();

  for (int h = warp / blocks; h < group; h += warps / blocks) {
    char* inverse = shared + places.inverse + h * 2 * tile_size;
    invert(reinterpret_cast<float*>(shared + places.v + h * 2 * tile_size), scalars[h], inverse,
           inverse + tile_size, 1 + warp / blocks);
  }
  __syncthreads();

  constexpr int strips = key_dim / block + blocks;
  for (int item = warp; item < group * strips; item += warps) {
    const int h = item / strips, at = item % strips;
    const uint32_t inverse = shared_address(shared + places.inverse + h * 2 * tile_size);
    if (at < blocks)
      multiply_scores(shared + places.q + h * tile_size, inverse, at);
    else
      multiply_keys(k, inverse + tile_size, at - blocks, shared + places.v + h * 2 * tile_size);
  }
  publish_to_async();
  __syncthreads();
  if (tid != 0) return;
  for (int h = 0; h < group; ++h) {
    std::byte* head = to.heads + (first_head + h) * to.heads_size;
    copy_out(head, v + static_cast<uint32_t>(h * 2 * tile_size), key_tiles * tile_size);
    copy_out(head + key_tiles * tile_size, q + static_cast<uint32_t>(h * tile_size), tile_size);
    copy_out(head + (key_tiles + 1) * tile_size, shared_address(&factors[h]), sizeof(ChunkFactors));
  }
  commit_copies_out();
  wait_until_copied_out();
}

}  // namespace

void prepare_chunks(cudaStream_t stream, const Batch& batch, const DeltaLayer& layer,
                    const DeltaRows& rows, const States& conv_states,
                    const ChunkedWorkspace& workspace) {
  const DeltaSizes sizes(layer);
  const dim3 grid(static_cast<unsigned>(sizes.key_heads),
                  static_cast<unsigned>(most_chunks(batch.rows, batch.sequences)));
  const auto kernel = sizes.key_dim == 128 ? prepare_kernel<128> : prepare_kernel<64>;
  const auto shared = static_cast<size_t>(Places(sizes.key_dim, sizes.group).size + alignment);
  launch_overlapped("chunked_delta prepare", kernel, grid, dim3(threads), shared, stream,
                    Arguments{batch, layer, sizes, rows, conv_states, workspace});
}

}  // namespace qnext::ops::cuda
