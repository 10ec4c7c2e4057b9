// decode_delta() for one row of one sequence, whose time is that of latencies one behind the other:
// two columns of S a thread in place of four, so that there are twice the warps, and these do
// different things beside each other. All have S (every 16th row; sums in the order of
// decode_delta_row.cuh), half of them q and k, and one each v, the gates and the output. Clusters,
// blocks and what they exchange are as in decode_delta_cuda.cu. At 64 rows that file's kernel is
// the faster one.
//
// One layer's turn in the graph of a step of the 80B: 3.7 us by that file's kernel, 2.7 to 3.0
// here.
#include "base/cuda_error.h"
#include "ops/gated_delta/decode_delta_row.cuh"
#include "ops/gated_delta/delta_cluster.cuh"
#include "ops/gated_delta/delta_tiles.cuh"

namespace qnext::ops::cuda {

namespace {

constexpr int key_warps = slice_warps;
constexpr int state_warps = 2 * slice_warps;
constexpr int threads = state_warps * warp_lanes;
constexpr int lone_value_dim = 128;  // S's rows are at constant distances
constexpr int slices = lone_value_dim / slice_columns;

// What a thread fetches of the row.
struct RowInputs {
  Bf16 x, k;  // x: q, v or z
  float b, a;
  int32_t slot;
};

template <int key_dim>
struct Shared {
  float2 keys[key_dim];  // (k, q) as they leave the silu
  float values[slice_columns];
  float2 gates;                                   // exp(g), beta
  float4 products[key_warps];                     // partial sums q.q, k.k, q.k
  float recalled[state_warps][2][slice_columns];  // partial sums of k^T S, q^T S
  float out[slice_columns];
  float gate[slice_columns];  // silu(z)
  float norm_weight[slice_columns];
  float rate, dt_bias;
  // Sums of squares of the head's slices, written by their blocks.
  float squares[slices];
  uint64_t squares_full;
};

// Who does what besides its part of S: the first key_dim threads convolve q and k, and a warp each
// makes v, the gates, and the output.
constexpr int value_warp = key_warps;
constexpr int gate_warp = key_warps + 1;
constexpr int out_warp = key_warps + 2;

// A thread's part of S: two columns of rows part, part + 16, ... A warp has the parts whose sums
// recall() of decode_delta_row.cuh adds first.
struct StatePart {
  static constexpr int pairs = slice_columns / 2;
  int part, pair;
  bool upper;

  __device__ StatePart(int warp, int lane)
      : part(warp / 2 * 4 + warp % 2 + lane / pairs * 2),
        pair(lane % pairs),
        upper(lane >= pairs) {}
};

__device__ inline float2 load_pair(const float* at) {
  return *reinterpret_cast<const float2*>(at);
}
__device__ inline float2 load_pair(const Bf16* at) {
  const ushort2 raw = *reinterpret_cast<const ushort2*>(at);
  return {widen(raw.x), widen(raw.y)};
}
// What a later load_pair() would give.
__device__ inline void round_pair(float2&, float) {}
__device__ inline void round_pair(float2& s, Bf16) {
  s = {widen(narrow(s.x)), widen(narrow(s.y))};
}
__device__ inline void store_pair(float* at, const float2& s) {
  *reinterpret_cast<float2*>(at) = s;
}
__device__ inline void store_pair(Bf16* at, const float2& s) {
  *reinterpret_cast<ushort2*>(at) = {narrow(s.x), narrow(s.y)};
}

// As recall(), but for the last sum, which is over two warps.
template <int depth>
__device__ inline void recall_pair(const float2 (&s)[depth], const float2* keys,
                                   const StatePart& mine, float (*sums)[slice_columns]) {
  float2 ks{0, 0}, qs{0, 0};
#pragma unroll
  for (int i = 0; i < depth; ++i) {
    const float2 at = keys[mine.part + i * row_parts];
    ks = {fmaf(at.x, s[i].x, ks.x), fmaf(at.x, s[i].y, ks.y)};
    qs = {fmaf(at.y, s[i].x, qs.x), fmaf(at.y, s[i].y, qs.y)};
  }
  const float2 other = mine.upper ? ks : qs;
  float2 sum = mine.upper ? qs : ks;
  sum.x += __shfl_xor_sync(whole_warp, other.x, warp_lanes / 2);
  sum.y += __shfl_xor_sync(whole_warp, other.y, warp_lanes / 2);
  *reinterpret_cast<float2*>(&sums[mine.upper ? 1 : 0][2 * mine.pair]) = sum;
}
// As recalled(). All loads first: one latency for all.
__device__ inline float recalled_pairs(const float (*of_warp)[2][slice_columns], int which,
                                       int column) {
  float part[state_warps];
#pragma unroll
  for (int i = 0; i < state_warps; ++i) part[i] = of_warp[i][which][column];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < state_warps; i += 2) sum += part[i] + part[i + 1];
  return sum;
}

template <int key_dim, typename State>
__global__ void __launch_bounds__(threads, 4) lone_row_kernel(DeltaArguments arguments) {
  constexpr int depth = key_dim / row_parts;
  __shared__ Shared<key_dim> shared;
  const DeltaLayer& layer = arguments.layer;
  const DeltaSizes& sizes = arguments.sizes;
  const DeltaRows& rows = arguments.rows;
  const Batch& batch = arguments.batch;
  const int tid = threadIdx.x, lane = tid % warp_lanes, warp = tid / warp_lanes;
  const StatePart mine(warp, lane);

  const ClusterPlace place(sizes, lone_value_dim);
  const int group = sizes.group, head = place.head;

  let_next_kernel_start();
  const uint32_t squares_full = shared_address(&shared.squares_full);
  if (tid == 0) {
    set_up_barrier(squares_full, 1);
    barriers_are_set_up();
  }
  const SequenceRows sequence = batch.sequence[0];
  if (!arguments.states_at_rest) wait_for_earlier_kernels();

  const bool has_key = tid < key_dim, has_value = warp == value_warp, has_out = warp == out_warp;
  State* const state_base = static_cast<State*>(arguments.states.base) +
                            (head * key_dim + mine.part) * lone_value_dim +
                            place.slice * slice_columns + 2 * mine.pair;
  const int step = row_parts * lone_value_dim;
  float2 s[depth];
#pragma unroll
  for (int i = 0; i < depth; ++i) s[i] = {0, 0};
  if (sequence.state_in >= 0) {
    const State* const stored = state_base + sequence.state_in * arguments.states.stride;
#pragma unroll
    for (int i = 0; i < depth; ++i) s[i] = load_pair(stored + i * step);
  }

  Channel q{}, k{};  // or v in q's place
  const int q_channel = place.key_head * key_dim + tid, k_channel = sizes.key_width + q_channel;
  const int slice_column = place.slice * slice_columns + lane;
  const int v_channel = 2 * sizes.key_width + head * lone_value_dim + slice_column;
  if (has_key || has_value) {
    const int channel = has_key ? q_channel : v_channel;
    q.load_weights(layer, sizes, channel);
    q.load_past(sizes, arguments.conv_states, sequence.state_in, channel);
  }
  if (has_key) {
    k.load_weights(layer, sizes, k_channel);
    k.load_past(sizes, arguments.conv_states, sequence.state_in, k_channel);
  }
  // Each read by the warp that writes it.
  if (has_out) shared.norm_weight[lane] = layer.norm_weight[slice_column];
  if (warp == gate_warp && lane == 0) {
    shared.rate = -quick_exp(layer.a_log[head]);
    shared.dt_bias = layer.dt_bias[head];
  }
  // This block's share of storing the key head's q and k channels.
  const int first_kept = place.rank * arguments.keys_a_block;
  const bool keeps_key = has_key && tid >= first_kept && tid < first_kept + arguments.keys_a_block;
  const float mean_factor = 1.0f / static_cast<float>(lone_value_dim);
  const float q_scale = rsqrtf(static_cast<float>(key_dim));

  // Behind this the blocks of the cluster know that the others run, and that kept inputs have been
  // read, whose slot may be the one that is written.
  sm90::arrive_at_cluster();
  sm90::wait_for_cluster();
  // In a row of qkvz: q, and k key_dim further; or v; or z. Addresses are worked out before the
  // wait, and all loads behind it are on their way at once, without a branch between them.
  const Bf16* x = rows.qkvz + sequence.first_row * rows.qkvz_stride +
                  place.key_head * sizes.group_width +
                  (has_key ? tid : 2 * key_dim + place.of_group * lone_value_dim + slice_column) +
                  (has_out ? group * lone_value_dim : 0);
  const int to_k = has_key ? key_dim : 0;
  const float* gate_inputs =
      rows.ba + sequence.first_row * rows.ba_stride + place.key_head * 2 * group + place.of_group;
  const int32_t* slots = batch.state_out + sequence.first_row;
  asm volatile("" : "+l"(x), "+l"(gate_inputs), "+l"(slots));
  if (arguments.states_at_rest) wait_for_earlier_kernels();
  if (sequence.rows == 0) return;
  const RowInputs now{__ldcg(x), __ldcg(x + to_k), __ldcg(gate_inputs), __ldcg(gate_inputs + group),
                      __ldcg(slots)};

  if (warp < key_warps) {
    float2 key{0, 0};
    if (has_key) {
      key = {quick_silu(k.advance(widen(now.k))), quick_silu(q.advance(widen(now.x)))};
      shared.keys[tid] = key;
    }
    const float4 sums = warp_sums(key.y * key.y, key.x * key.x, key.y * key.x);
    if (lane == 0) shared.products[warp] = sums;
  } else if (has_value) {
    shared.values[lane] = quick_silu(q.advance(widen(now.x)));
  } else if (has_out) {
    shared.gate[lane] = quick_silu(widen(now.x));
  } else if (warp == gate_warp && lane == 0) {
    shared.gates = {quick_exp(shared.rate * quick_softplus(now.a + shared.dt_bias)),
                    quick_sigmoid(now.b)};
  }
  __syncthreads();

  recall_pair(s, shared.keys, mine, shared.recalled[warp]);
  const float4 products = sum_products(shared.products);
  const float k_factor = rsqrtf(products.y + l2_epsilon);
  const float2 gates = shared.gates;
  const float decay = gates.x, beta = gates.y;
  __syncthreads();

  // A lane a column, in every warp.
  const float change =
      k_factor * (beta * (shared.values[lane] -
                          decay * (k_factor * recalled_pairs(shared.recalled, 0, lane))));
  if (has_out) {
    const float q_factor = rsqrtf(products.x + l2_epsilon) * q_scale;
    const float o =
        q_factor * fmaf(products.z, change, decay * recalled_pairs(shared.recalled, 1, lane));
    shared.out[lane] = o;
    share_square(shared.squares, place, warp_sum(o * o), &shared.squares_full);
  }
  // S = exp(g) S + k change
  const float2 added{__shfl_sync(whole_warp, change, 2 * mine.pair),
                     __shfl_sync(whole_warp, change, 2 * mine.pair + 1)};
  State* const stored = state_base + now.slot * arguments.states.stride;
#pragma unroll
  for (int i = 0; i < depth; ++i) {
    const float k_i = shared.keys[mine.part + i * row_parts].x;
    s[i] = {fmaf(k_i, added.x, decay * s[i].x), fmaf(k_i, added.y, decay * s[i].y)};
    round_pair(s[i], State{});
    if (now.slot >= 0) store_pair(stored + i * step, s[i]);
  }
  if (now.slot >= 0) {
    if (keeps_key) {
      q.store_past(sizes, arguments.conv_states, now.slot, q_channel);
      k.store_past(sizes, arguments.conv_states, now.slot, k_channel);
    }
    if (has_value) q.store_past(sizes, arguments.conv_states, now.slot, v_channel);
  }

  if (!has_out) return;
  if (lane == 0) arrive_expecting(squares_full, uint32_t{slices - 1} * sizeof(float));
  __syncwarp();
  sm90::wait_for_sent(squares_full, 0);
  float sum = 0;
  for (int i = 0; i < slices; ++i) sum += shared.squares[i];
  const float scale = rsqrtf(fmaf(sum, mean_factor, layer.eps));
  arguments.out[sequence.first_row * arguments.out_stride + head * lone_value_dim + slice_column] =
      narrow(shared.out[lane] * scale * shared.norm_weight[lane] * shared.gate[lane]);
}

template <int key_dim, typename State>
void launch(cudaStream_t stream, const DeltaArguments& arguments) {
  launch_delta_clusters("decode_delta of a row", lone_row_kernel<key_dim, State>, threads, stream,
                        arguments);
}

}  // namespace

bool decode_delta_lone_takes(const DeltaSizes& sizes, const Batch& batch) {
  return batch.rows == 1 && batch.sequences == 1 && sizes.value_dim == lone_value_dim;
}

void decode_delta_lone(cudaStream_t stream, const DeltaArguments& arguments) {
  const bool wide = arguments.layer.shape.key_dim == 128;
  if (arguments.states.format == StateFormat::f32)
    wide ? launch<128, float>(stream, arguments) : launch<64, float>(stream, arguments);
  else
    wide ? launch<128, Bf16>(stream, arguments) : launch<64, Bf16>(stream, arguments);
}

}  // namespace qnext::ops::cuda
