// The serial part of the chunked delta rule: S from chunk to chunk, and O.
//
// Ladder. Plain: a row at a time (gated_delta_cuda.cu). Here everything is transposed, so that the
// carried state S^T [value_dim, key_dim] is at once the accumulator of G R and, narrowed to bf16 in
// registers, the A operand of the next chunk's K S and Q S; R likewise goes from accumulator to A
// operand. Nothing of the chain passes through shared memory and nobody waits at a barrier: the
// tiles of K, Q, G and P arrive by bulk copies three chunks ahead and are only ever B operands.
//
// A block takes 64 columns of value_dim (wgmma's 64 rows) of one value head, so a prompt of the 80B
// model spreads over 64 blocks. Four warps carry the chain, three store O, one starts the copies.
// Of the four products K S and G R are the chain; Q S runs while R is formed, P R while S+ is
// narrowed, O is stored while the next K S runs.
#include "base/cuda_error.h"
#include "ops/gated_delta/delta_chunks.cuh"
#include "ops/launch_cuda.cuh"

namespace qnext::ops::cuda {

namespace {

constexpr int chain_threads = 128;  // a warpgroup
constexpr int store_threads = 96;
// Eight warps and no more: two a scheduler leave a thread of the chain the 255 registers it wants.
constexpr int threads = chain_threads + store_threads + warp_lanes;
constexpr int stages = 3;  // 65 KB each at key_dim 128: as many as fit
constexpr int out_tiles = 2;
constexpr int alignment = 1024;

struct Arguments {
  Batch batch;
  DeltaLayer layer;
  DeltaSizes sizes;
  DeltaRows rows;
  States conv_states;
  DeltaStates states;
  ChunkedWorkspace workspace;
  Bf16* out;
  int64_t out_stride;
};

// One stage of shared memory, in bytes.
template <int key_dim>
struct Stage {
  static constexpr int key_tiles = key_dim / tile_side;
  static constexpr int q = 0;
  static constexpr int k = key_tiles * tile_size;
  static constexpr int g = 2 * key_tiles * tile_size;
  static constexpr int p = 3 * key_tiles * tile_size;
  static constexpr int factors = p + tile_size;
  static constexpr int v = factors + static_cast<int>(sizeof(ChunkFactors));
  static constexpr int size = v + tile_size;
};

template <int key_dim>
constexpr size_t shared_size = alignment + stages* Stage<key_dim>::size + out_tiles* tile_size;

struct Barriers {
  uint64_t full[stages];
  uint64_t empty[stages];
  uint64_t out_full[out_tiles];
  uint64_t out_empty[out_tiles];
};

// A ring's place and the parity of its round.
template <int size>
struct Turn {
  int at = 0;
  uint32_t parity = 0;

  __device__ void next() {
    if (++at < size) return;
    at = 0;
    parity ^= 1;
  }
};

// Values of d are as the products left them only behind this.
template <int count>
__device__ void settle(float (&d)[count]) {
#pragma unroll
  for (float& x : d) asm volatile("" : "+f"(x)::"memory");
}

// The accumulators' pairs as A operands: 16 columns are two blocks of eight.
template <int count>
__device__ void narrow_pairs(const float (&d)[count], uint32_t (&a)[count / 8][4]) {
#pragma unroll
  for (int step = 0; step < count / 8; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      a[step][i] = bf16_pair(d[8 * step + 2 * i], d[8 * step + 2 * i + 1]);
}

struct Place {
  int sequence;
  int head;
  int part;  // which 64 of the head's columns
};

// Element e of a thread's part of S^T, as an index into the head's S.
__device__ int state_index(int e, int part, int value_dim) {
  const int lane = threadIdx.x % warp_lanes, warp = threadIdx.x / warp_lanes;
  const int column = part * tile_side + warp * 16 + lane / 4 + e % 4 / 2 * 8;
  const int row = e / 4 * 8 + lane % 4 * 2 + e % 2;
  return row * value_dim + column;
}

template <int count>
__device__ void load_state(const Arguments& arguments, const Place& place, int32_t slot,
                           float (&s)[count]) {
  const DeltaSizes& sizes = arguments.sizes;
  const int64_t head = slot * arguments.states.stride +
                       static_cast<int64_t>(place.head) * sizes.key_dim * sizes.value_dim;
#pragma unroll
  for (int e = 0; e < count; ++e) {
    const int64_t at = head + state_index(e, place.part, sizes.value_dim);
    s[e] = slot < 0 ? 0.0f
           : arguments.states.format == StateFormat::f32
               ? static_cast<const float*>(arguments.states.base)[at]
               : widen(static_cast<const Bf16*>(arguments.states.base)[at]);
  }
}

template <int count>
__device__ void store_state(const Arguments& arguments, const Place& place, int32_t slot,
                            const float (&s)[count]) {
  const DeltaSizes& sizes = arguments.sizes;
  const int64_t head = slot * arguments.states.stride +
                       static_cast<int64_t>(place.head) * sizes.key_dim * sizes.value_dim;
#pragma unroll
  for (int e = 0; e < count; ++e) {
    const int64_t at = head + state_index(e, place.part, sizes.value_dim);
    if (arguments.states.format == StateFormat::f32)
      static_cast<float*>(arguments.states.base)[at] = s[e];
    else
      static_cast<Bf16*>(arguments.states.base)[at] = narrow(s[e]);
  }
}

// V and O tiles hold [token][column], the registers column (lane / 4) by tokens: four matrices are
// 16 tokens from `first` on by the warp's 16 columns.
__device__ uint32_t in_transposed(int first) {
  const int lane = threadIdx.x % warp_lanes, warp = threadIdx.x / warp_lanes;
  return in_tile(first + lane % 8 + lane / 16 * 8, warp * 16 + lane / 8 % 2 * 8);
}

// One warp: all copies, in order.
template <int key_dim>
__device__ void copy_chunks(const Arguments& arguments, const Place& place, int chunks,
                            uint32_t shared, Barriers& barriers) {
  using S = Stage<key_dim>;
  const DeltaSizes& sizes = arguments.sizes;
  const ChunkedWorkspace& from = arguments.workspace;
  const int64_t first = first_chunk(arguments.batch, place.sequence);
  const int key_head = place.head / sizes.group;
  Turn<stages> turn;
  for (int c = 0; c < chunks; ++c, turn.next()) {
    const uint32_t stage = shared + static_cast<uint32_t>(turn.at * S::size);
    const uint32_t full = shared_address(&barriers.full[turn.at]);
    const int64_t number = first + c, head = number * sizes.value_heads + place.head;
    wait_for_phase(shared_address(&barriers.empty[turn.at]), turn.parity ^ 1);
    arrive_expecting(full, S::size);
    copy_in(stage + S::q, from.keys + (number * sizes.key_heads + key_head) * from.keys_size, S::g,
            full);
    copy_in(stage + S::g, from.heads + head * from.heads_size, S::v - S::g, full);
    copy_in(stage + S::v, from.values + head * from.values_size + place.part * tile_size, tile_size,
            full);
  }
}

// The warpgroup that carries S.
template <int key_dim>
__device__ void carry_state(const Arguments& arguments, const Place& place, int chunks,
                            const SequenceRows& sequence, char* shared, Barriers& barriers) {
  using S = Stage<key_dim>;
  constexpr int steps = key_dim / 16;
  const int lane = threadIdx.x % warp_lanes;
  const uint32_t base = shared_address(shared);
  const uint32_t out_base = base + stages * S::size;
  float s[key_dim / 2], recalled[32], o[32];
  uint32_t state[steps][4], r[4][4], narrow_o[4][4];
  load_state(arguments, place, sequence.state_in, s);
  narrow_pairs(s, state);

  // exp(c_last) multiplies S before G R adds to it: while P R of the chunk before still runs, so
  // the factor is fetched past the stages.
  const ChunkedWorkspace& from = arguments.workspace;
  const int64_t first = first_chunk(arguments.batch, place.sequence);
  const auto decay_of = [&](int64_t c) {
    const std::byte* head =
        from.heads + ((first + c) * arguments.sizes.value_heads + place.head) * from.heads_size;
    return reinterpret_cast<const ChunkFactors*>(head + S::factors - S::g)->decay;
  };
  const float first_decay = decay_of(0);
#pragma unroll
  for (float& x : s) x *= first_decay;

  Turn<out_tiles> out_turn;
  const auto hand_over = [&] {
    wait_for_phase(shared_address(&barriers.out_empty[out_turn.at]), out_turn.parity ^ 1);
    const uint32_t tile = out_base + static_cast<uint32_t>(out_turn.at * tile_size);
#pragma unroll
    for (int n = 0; n < 4; ++n) store_transposed(tile + in_transposed(16 * n), narrow_o[n]);
    arrive(shared_address(&barriers.out_full[out_turn.at]));
    out_turn.next();
  };
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane == 0) arrive(shared_address(&barriers.empty[stage]));
  };

  // No product is pending when an iteration ends: the compiler follows them no further, and would
  // wait for each one on its own.
  Turn<stages> turn;
  for (int c = 0; c < chunks; ++c, turn.next()) {
    char* const stage = shared + turn.at * S::size;
    const uint32_t tiles = base + static_cast<uint32_t>(turn.at * S::size);
    const auto factors = reinterpret_cast<const ChunkFactors*>(stage + S::factors);
    const float next_decay = c + 1 < chunks ? decay_of(c + 1) : 1.0f;
    wait_for_phase(shared_address(&barriers.full[turn.at]), turn.parity);
    begin_products();
#pragma unroll
    for (int i = 0; i < steps; ++i)
      multiply_tile(recalled, state[i],
                    tile_descriptor(tiles + S::k + i / 4 * tile_size + i % 4 * 32), i > 0);
    commit_products();
#pragma unroll
    for (int i = 0; i < steps; ++i)
      multiply_tile(o, state[i], tile_descriptor(tiles + S::q + i / 4 * tile_size + i % 4 * 32),
                    i > 0);
    commit_products();

    if (c > 0) hand_over();
    uint32_t v[4][4];
#pragma unroll
    for (int n = 0; n < 4; ++n) load_transposed(v[n], tiles + S::v + in_transposed(16 * n));
    wait_for_products<1>();  // K S
    settle(recalled);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float2 factor =
          *reinterpret_cast<const float2*>(&factors->recall[8 * n + lane % 4 * 2]);
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const float2 value = widen_pair(v[n / 2][n % 2 * 2 + row]);
        const float* sum = recalled + 4 * n + 2 * row;
        r[n / 2][n % 2 * 2 + row] =
            bf16_pair(fmaf(-factor.x, sum[0], value.x), fmaf(-factor.y, sum[1], value.y));
      }
    }
    begin_products();
#pragma unroll
    for (int i = 0; i < 4; ++i)
      multiply_tile(s, r[i], tile_descriptor(tiles + S::g + i * 32), true);
    commit_products();

    wait_for_products<1>();  // Q S
    settle(o);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float2 factor = *reinterpret_cast<const float2*>(&factors->read[8 * n + lane % 4 * 2]);
      o[4 * n] *= factor.x;
      o[4 * n + 1] *= factor.y;
      o[4 * n + 2] *= factor.x;
      o[4 * n + 3] *= factor.y;
    }
    begin_products();
#pragma unroll
    for (int i = 0; i < 4; ++i)
      multiply_tile(o, r[i], tile_descriptor(tiles + S::p + i * 32), true);
    commit_products();
    wait_for_products<1>();  // G R
    settle(s);
    narrow_pairs(s, state);
#pragma unroll
    for (float& x : s) x *= next_decay;
    wait_for_products<0>();  // P R
    settle(o);
    narrow_pairs(o, narrow_o);
    release(turn.at);
  }
  hand_over();
  const int32_t slot = arguments.batch.state_out[sequence.first_row + sequence.rows - 1];
  if (slot >= 0) store_state(arguments, place, slot, s);
}

// The state of the convolution, of channels that no other block takes: the part's v, and with the
// key head's first part its q and k. prepare_chunks, which reads the old state, has ended.
__device__ void keep_inputs(const Arguments& arguments, const Place& place,
                            const SequenceRows& sequence) {
  const int32_t slot = arguments.batch.state_out[sequence.first_row + sequence.rows - 1];
  if (slot < 0) return;
  const DeltaSizes& sizes = arguments.sizes;
  const int key_head = place.head / sizes.group, of_group = place.head % sizes.group;
  const int64_t base = static_cast<int64_t>(key_head) * sizes.group_width;
  const auto keep = [&](int channel, int column) {
    Channel inputs;
    inputs.load_past(sizes, arguments.conv_states, sequence.state_in, channel);
    for (int t = max(0, sequence.rows - most_past); t < sequence.rows; ++t)
      inputs.shift(widen(arguments.rows.qkvz[(sequence.first_row + t) * arguments.rows.qkvz_stride +
                                             base + column]));
    inputs.store_past(sizes, arguments.conv_states, slot, channel);
  };
  const int tid = static_cast<int>(threadIdx.x) - chain_threads;
  if (tid < tile_side) {
    const int column = of_group * sizes.value_dim + place.part * tile_side + tid;
    keep(2 * sizes.key_width + key_head * sizes.group * sizes.value_dim + column,
         2 * sizes.key_dim + column);
  }
  if (of_group != 0 || place.part != 0) return;
  for (int i = tid; i < 2 * sizes.key_dim; i += store_threads)
    keep((i < sizes.key_dim ? 0 : sizes.key_width - sizes.key_dim) + key_head * sizes.key_dim + i,
         i);
}

// Three warps: O's tiles to their rows.
template <int key_dim>
__device__ void store_out(const Arguments& arguments, const Place& place, int chunks,
                          const SequenceRows& sequence, const char* shared, Barriers& barriers) {
  constexpr int pieces = tile_row_bytes / 16;
  constexpr int items = chunk_rows * pieces;
  constexpr int rounds = (items + store_threads - 1) / store_threads;
  const int tid = static_cast<int>(threadIdx.x) - chain_threads;
  Bf16* const out = arguments.out + sequence.first_row * arguments.out_stride +
                    place.head * arguments.sizes.value_dim + place.part * tile_side;
  Turn<out_tiles> turn;
  for (int c = 0; c < chunks; ++c, turn.next()) {
    const char* tile = shared + stages * Stage<key_dim>::size + turn.at * tile_size;
    wait_for_phase(shared_address(&barriers.out_full[turn.at]), turn.parity);
    const Chunk chunk(sequence, c);
    uint4 words[rounds];
#pragma unroll
    for (int i = 0; i < rounds; ++i) {
      const int item = min(i * store_threads + tid, items - 1);
      words[i] = *reinterpret_cast<const uint4*>(tile + in_tile(item / pieces, item % pieces * 8));
    }
    arrive(shared_address(&barriers.out_empty[turn.at]));
#pragma unroll
    for (int i = 0; i < rounds; ++i) {
      const int item = i * store_threads + tid, row = item / pieces;
      if (row >= chunk.begin && row < chunk.end)
        *reinterpret_cast<uint4*>(out + (chunk.first + row) * arguments.out_stride +
                                  item % pieces * 8) = words[i];
    }
  }
  keep_inputs(arguments, place, sequence);
}

// Grid (value_heads * value_dim / 64, sequences).
template <int key_dim>
__global__ void __launch_bounds__(threads, 1) scan_kernel(Arguments arguments) {
  extern __shared__ char dynamic[];
  __shared__ Barriers barriers;
  char* const shared = dynamic + (alignment - shared_address(dynamic) % alignment) % alignment;
  const int parts = arguments.sizes.value_dim / tile_side;
  const Place place{static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x) / parts,
                    static_cast<int>(blockIdx.x) % parts};
  const int tid = threadIdx.x;
  if (tid == 0) {
    for (uint64_t& barrier : barriers.full) set_up_barrier(shared_address(&barrier), 1);
    for (uint64_t& barrier : barriers.empty)
      set_up_barrier(shared_address(&barrier), chain_threads / warp_lanes);
    for (uint64_t& barrier : barriers.out_full)
      set_up_barrier(shared_address(&barrier), chain_threads);
    for (uint64_t& barrier : barriers.out_empty)
      set_up_barrier(shared_address(&barrier), store_threads);
    barriers_are_set_up();
  }
  let_next_kernel_start();
  __syncthreads();
  wait_for_earlier_kernels();
  const SequenceRows sequence = arguments.batch.sequence[place.sequence];
  const int chunks = chunks_of(sequence);
  if (chunks == 0) return;
  if (tid < chain_threads)
    carry_state<key_dim>(arguments, place, chunks, sequence, shared, barriers);
  else if (tid < chain_threads + store_threads)
    store_out<key_dim>(arguments, place, chunks, sequence, shared, barriers);
  else if (tid == chain_threads + store_threads)
    copy_chunks<key_dim>(arguments, place, chunks, shared_address(shared), barriers);
}

}  // namespace

void scan_chunks(cudaStream_t stream, const Batch& batch, const DeltaLayer& layer,
                 const DeltaRows& rows, const States& conv_states, const DeltaStates& states,
                 const ChunkedWorkspace& workspace, Bf16* out, int64_t out_stride) {
  const DeltaSizes sizes(layer);
  const Arguments arguments{batch,  layer,     sizes, rows,      conv_states,
                            states, workspace, out,   out_stride};
  const dim3 grid(static_cast<unsigned>(sizes.value_heads * (sizes.value_dim / tile_side)),
                  static_cast<unsigned>(batch.sequences));
  if (sizes.key_dim == 128)
    launch_overlapped("chunked_delta scan", scan_kernel<128>, grid, dim3(threads), shared_size<128>,
                      stream, arguments);
  else
    launch_overlapped("chunked_delta scan", scan_kernel<64>, grid, dim3(threads), shared_size<64>,
                      stream, arguments);
}

}  // namespace qnext::ops::cuda
