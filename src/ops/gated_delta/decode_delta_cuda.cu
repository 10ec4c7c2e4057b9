// Ladder. Plain: ungroup, convolution, gates, recurrence and norm as launches of their own
// (gated_delta_cuda.cu), seven launches and fp32 round trips. Here: one launch.
//
// A cluster of blocks takes one key head of one sequence: a block holds 32 columns of one value
// head's S in registers, so that a single sequence of the 80B model (32 heads of 128 x 128) spreads
// 2 MiB over 128 blocks. q and k are convolved by every block of the cluster again: 2 x 128
// channels cost less than fetching them from a neighbour. Both sums over S of a row,
// k^T S and q^T S, are taken of the old S at once, for
//   q^T S+ = exp(g) q^T S + (q . k) change,
// and the blocks of a head exchange one partial sum of squares a row through distributed shared
// memory, eight rows a barrier.
#include "base/cuda_error.h"
#include "ops/gated_delta/decode_delta_row.cuh"
#include "ops/gated_delta/delta_cluster.cuh"
#include "ops/gated_delta/delta_tiles.cuh"

namespace qnext::ops::cuda {

namespace {

constexpr int threads = slice_threads;
constexpr int warps = slice_warps;
constexpr int most_slices = 16;  // blocks a cluster; above 8 needs an attribute
constexpr int rows_a_barrier = 8;

// What a thread fetches of a row, ahead of its use.
struct RowInputs {
  float q, k, v, z, a, b;
  int32_t slot;
};

template <int key_dim>
struct Shared {
  float2 keys[2][key_dim];  // (k, q) as they leave the silu
  float values[2][slice_columns];
  float2 gates[2];                          // exp(g), beta
  float4 products[2][warps];                // partial sums q.q, k.k, q.k
  float recalled[warps][2][slice_columns];  // partial sums of k^T S, q^T S
  float out[rows_a_barrier][slice_columns];
  float gate[rows_a_barrier][slice_columns];
  // Sums of squares of the head's slices, written by their blocks.
  float squares[2][rows_a_barrier][most_slices];
  uint64_t squares_full[2];
};

// Who does what besides its part of S: the first key_dim threads convolve q and k, and a warp each
// makes the output, the gates, and v.
constexpr int out_warp = 0;
constexpr int gate_warp = 2;
constexpr int value_warp = 3;

// fixed_value_dim: value_dim where it is the usual one, so that S's rows are at constant distances;
// else 0.
template <int key_dim, int fixed_value_dim, typename State>
__global__ void __launch_bounds__(threads, 4) decode_kernel(DeltaArguments arguments) {
  constexpr int depth = key_dim / row_parts;
  __shared__ Shared<key_dim> shared;
  const DeltaLayer& layer = arguments.layer;
  const DeltaSizes& sizes = arguments.sizes;
  const DeltaRows& rows = arguments.rows;
  const Batch& batch = arguments.batch;
  const int tid = threadIdx.x, lane = tid % warp_lanes, warp = tid / warp_lanes;
  const int quad = lane % quads, part = warp * (warp_lanes / quads) + lane / quads;

  const int value_dim = fixed_value_dim > 0 ? fixed_value_dim : sizes.value_dim;
  const ClusterPlace place(sizes, value_dim);
  const int group = sizes.group, slices = place.slices, head = place.head;

  let_next_kernel_start();
  if (tid == 0) {
    for (uint64_t& barrier : shared.squares_full) set_up_barrier(shared_address(&barrier), 1);
    barriers_are_set_up();
  }
  const SequenceRows sequence = batch.sequence[blockIdx.z];
  if (!arguments.states_at_rest) wait_for_earlier_kernels();

  State* const state_base = static_cast<State*>(arguments.states.base) +
                            (head * key_dim + part) * value_dim + place.slice * slice_columns +
                            4 * quad;
  const int step = row_parts * value_dim;
  float4 s[depth];
#pragma unroll
  for (int i = 0; i < depth; ++i) s[i] = {0, 0, 0, 0};
  if (sequence.state_in >= 0) {
    const State* const stored = state_base + sequence.state_in * arguments.states.stride;
#pragma unroll
    for (int i = 0; i < depth; ++i) s[i] = load_state(stored + i * step);
  }

  const bool has_key = tid < key_dim, has_value = warp == value_warp, has_out = warp == out_warp;
  Channel q{}, k{}, v{};
  const int q_channel = place.key_head * key_dim + tid, k_channel = sizes.key_width + q_channel;
  const int slice_column = place.slice * slice_columns + lane;
  const int v_channel = 2 * sizes.key_width + head * value_dim + slice_column;
  if (has_key) {
    q.load_weights(layer, sizes, q_channel);
    k.load_weights(layer, sizes, k_channel);
    q.load_past(sizes, arguments.conv_states, sequence.state_in, q_channel);
    k.load_past(sizes, arguments.conv_states, sequence.state_in, k_channel);
  }
  if (has_value) {
    v.load_weights(layer, sizes, v_channel);
    v.load_past(sizes, arguments.conv_states, sequence.state_in, v_channel);
  }
  const float norm_weight = has_out ? layer.norm_weight[slice_column] : 0.0f;
  float rate = 0, dt_bias = 0;
  if (warp == gate_warp) {
    rate = -quick_exp(layer.a_log[head]);
    dt_bias = layer.dt_bias[head];
  }
  // This block's share of storing the key head's q and k channels.
  const int first_kept = place.rank * arguments.keys_a_block;
  const bool keeps_key = has_key && tid >= first_kept && tid < first_kept + arguments.keys_a_block;
  const float mean_factor = 1.0f / static_cast<float>(value_dim);
  const float q_scale = rsqrtf(static_cast<float>(key_dim));

  if (arguments.states_at_rest) wait_for_earlier_kernels();

  // In a row of qkvz: q; k is key_dim further. v and z of the slice.
  const Bf16* x_key =
      rows.qkvz + sequence.first_row * rows.qkvz_stride + place.key_head * sizes.group_width + tid;
  const Bf16* x_value = x_key - tid + 2 * key_dim + place.of_group * value_dim + slice_column;
  const float* x_gates =
      rows.ba + sequence.first_row * rows.ba_stride + place.key_head * 2 * group + place.of_group;
  const int32_t* slots = batch.state_out + sequence.first_row;
  const auto fetch = [&] {
    RowInputs inputs{};
    if (has_key) {
      inputs.q = widen(x_key[0]);
      inputs.k = widen(x_key[key_dim]);
    }
    if (has_value) inputs.v = widen(x_value[0]);
    if (has_out) inputs.z = widen(x_value[group * value_dim]);
    if (warp == gate_warp) {
      inputs.b = x_gates[0];
      inputs.a = x_gates[group];
    }
    inputs.slot = slots[0];
    x_key += rows.qkvz_stride;
    x_value += rows.qkvz_stride;
    x_gates += rows.ba_stride;
    ++slots;
    return inputs;
  };

  // From row t's inputs to its output in shared.out and S after it.
  const auto advance = [&](int32_t t, const RowInputs& now) {
    const int half = t % 2, turn = t % rows_a_barrier;
    float2 key{0, 0};
    if (has_key) {
      key = {quick_silu(k.advance(now.k)), quick_silu(q.advance(now.q))};
      shared.keys[half][tid] = key;
    }
    if (has_value) shared.values[half][lane] = quick_silu(v.advance(now.v));
    if (has_out) shared.gate[turn][lane] = now.z;
    if (warp == gate_warp && lane == 0)
      shared.gates[half] = {quick_exp(rate * quick_softplus(now.a + dt_bias)),
                            quick_sigmoid(now.b)};
    const float4 sums = warp_sums(key.y * key.y, key.x * key.x, key.y * key.x);
    if (lane == 0) shared.products[half][warp] = sums;
    __syncthreads();
    // One barrier of the cluster, behind everyone's use of the first row's past inputs: the blocks
    // that wait know that the others run, and that kept inputs may be replaced in their slot.
    if (t == 0) sm90::arrive_at_cluster_relaxed();

    recall(s, shared.keys[half], part, shared.recalled[warp]);
    const float4 products = sum_products(shared.products[half]);
    const float k_factor = rsqrtf(products.y + l2_epsilon);
    const float2 gates = shared.gates[half];
    const float decay = gates.x, beta = gates.y;
    __syncthreads();
    if (t == 0) sm90::wait_for_cluster();

    // A lane a column, in every warp.
    const float change =
        k_factor * (beta * (shared.values[half][lane] -
                            decay * (k_factor * recalled(shared.recalled, 0, lane))));
    if (has_out) {
      const float q_factor = rsqrtf(products.x + l2_epsilon) * q_scale;
      const float o =
          q_factor * fmaf(products.z, change, decay * recalled(shared.recalled, 1, lane));
      shared.out[turn][lane] = o;
      const int of_two = t / rows_a_barrier % 2;
      share_square(shared.squares[of_two][turn], place, warp_sum(o * o),
                   &shared.squares_full[of_two]);
    }
    take_in(s, shared.keys[half], part, decay, change, State{});
    if (now.slot < 0) return;
    State* const stored = state_base + now.slot * arguments.states.stride;
#pragma unroll
    for (int i = 0; i < depth; ++i) store_state(stored + i * step, s[i]);
    if (keeps_key) {
      q.store_past(sizes, arguments.conv_states, now.slot, q_channel);
      k.store_past(sizes, arguments.conv_states, now.slot, k_channel);
    }
    if (has_value) v.store_past(sizes, arguments.conv_states, now.slot, v_channel);
  };

  if (sequence.rows == 0) return;
  RowInputs next = fetch();
  for (int32_t first = 0; first < sequence.rows; first += rows_a_barrier) {
    const int32_t end = min(first + rows_a_barrier, sequence.rows);
    for (int32_t t = first; t < end; ++t) {
      const RowInputs now = next;
      if (t + 1 < sequence.rows) next = fetch();
      advance(t, now);
    }
    if (!has_out) continue;
    // Two barriers by turns: a block is at most one group of rows ahead of its neighbours.
    const int group_of_rows = first / rows_a_barrier;
    const uint32_t full = shared_address(&shared.squares_full[group_of_rows % 2]);
    if (lane == 0)
      arrive_expecting(full, static_cast<uint32_t>((end - first) * (slices - 1)) * sizeof(float));
    __syncwarp();
    sm90::wait_for_sent(full, static_cast<uint32_t>(group_of_rows / 2 % 2));
    Bf16* out = arguments.out + (sequence.first_row + first) * arguments.out_stride +
                head * value_dim + slice_column;
    for (int32_t t = first; t < end; ++t, out += arguments.out_stride) {
      const int turn = t % rows_a_barrier;
      float sum = 0;
      for (int i = 0; i < slices; ++i) sum += shared.squares[group_of_rows % 2][turn][i];
      const float scale = rsqrtf(fmaf(sum, mean_factor, layer.eps));
      *out = narrow(shared.out[turn][lane] * scale * norm_weight *
                    quick_silu(shared.gate[turn][lane]));
    }
  }
}

template <int key_dim, typename State>
void launch(cudaStream_t stream, const DeltaArguments& arguments) {
  const auto kernel = arguments.sizes.value_dim == 128 ? decode_kernel<key_dim, 128, State>
                                                       : decode_kernel<key_dim, 0, State>;
  launch_delta_clusters("decode_delta", kernel, threads, stream, arguments);
}

}  // namespace

bool decode_delta_takes(const DeltaLayer& layer) {
  const GatedDeltaShape& shape = layer.shape;
  return (shape.key_dim == 64 || shape.key_dim == 128) && shape.key_heads > 0 &&
         shape.value_heads % shape.key_heads == 0 && shape.value_dim > 0 &&
         shape.value_dim % slice_columns == 0 &&
         layer.group() * (shape.value_dim / slice_columns) <= most_slices &&
         layer.conv_width >= 1 && layer.conv_width <= most_past + 1;
}

void decode_delta(cudaStream_t stream, const Batch& batch, const DeltaLayer& layer,
                  const DeltaRows& rows, const States& conv_states, const DeltaStates& states,
                  bool states_at_rest, Bf16* out, int64_t out_stride) {
  if (!decode_delta_takes(layer))
    fail_cuda(
        "decode_delta takes key heads 64 or 128 wide, value heads of a multiple of 32 with at most "
        "512 values a key head, and convolutions up to 4 wide");
  if (batch.rows == 0 || batch.sequences == 0) return;
  const DeltaSizes sizes(layer);
  const int cluster = sizes.group * (sizes.value_dim / slice_columns);
  const DeltaArguments arguments{
      batch,  layer,          sizes, rows,       conv_states,
      states, states_at_rest, out,   out_stride, (sizes.key_dim + cluster - 1) / cluster};
  if (decode_delta_lone_takes(arguments.sizes, batch)) return decode_delta_lone(stream, arguments);
  if (decode_delta_many_takes(arguments.sizes, batch)) return decode_delta_many(stream, arguments);
  const bool wide = layer.shape.key_dim == 128;
  if (states.format == StateFormat::f32)
    wide ? launch<128, float>(stream, arguments) : launch<64, float>(stream, arguments);
  else
    wide ? launch<128, Bf16>(stream, arguments) : launch<64, Bf16>(stream, arguments);
}

}  // namespace qnext::ops::cuda
