// Rows of many sequences: memory's speed is the measure, 128 KB a value head, S read and written.
//
// One block an SM walks over key heads of sequences, a value head at a time. Three things go on at
// once: the copy engine brings S into a ring of shared memory; four warps ask for it and prepare
// rows (convolutions, gates, where things go), which takes as long as the memory's latency; sixteen
// warps take S into registers, make the row's step (decode_delta_row.cuh: the same sums in the same
// order as in decode_delta_cuda.cu) and store S from there. With a head in one block, the norm
// needs no word from other blocks.
//
// 256 sequences of the 80B model, microseconds a layer within the model: clusters 335; rows
// prepared apart 351; their inputs fetched a head ahead 326. (One block whose warps first prepare a
// row and then make its step: 374 where that took 352.)
#include <algorithm>

#include "base/cuda_error.h"
#include "ops/gated_delta/decode_delta_row.cuh"
#include "ops/gated_delta/delta_tiles.cuh"
#include "ops/launch_cuda.cuh"
#include "ops/sm90/bulk_copy.cuh"

namespace qnext::ops::cuda {

namespace {

using sm90::Place;

constexpr int head_dim = 128;  // of keys and of values
constexpr int slices = head_dim / slice_columns;
constexpr int depth = head_dim / row_parts;
constexpr int head_values = head_dim * head_dim;
constexpr int working_warps = slices * slice_warps;
constexpr int preparing_warps = head_dim / warp_lanes;
constexpr int threads = (working_warps + preparing_warps) * warp_lanes;
constexpr int ring_bytes = 192 << 10;
constexpr int prepared_rows = 4;

// The hardware's barriers: 1 to 4 for the warps of a slice, and for those that make the output.
constexpr int all_out = slices + 1;
constexpr int out_warp = slice_warps - 1;  // of a slice's: makes the output

// A row of a value head as the step needs it.
struct PreparedRow {
  float2 keys[head_dim];  // (k, q) as they leave the silu
  float values[head_dim];
  float z[head_dim];
  float4 products[preparing_warps];  // partial sums q.q, k.k, q.k
  float2 gates;                      // exp(g), beta
  int32_t row;                       // of the batch
  int32_t head;                      // or -1: there are no more rows
  int32_t slot;                      // that receives S, or -1
  bool first;                        // of its head: S comes from the ring
  bool fresh;                        // or is zero, though it has a place in the ring
};

template <typename State>
struct Shared {
  static constexpr int slots = ring_bytes / (head_values * int{sizeof(State)});

  alignas(128) State ring[slots][head_values];
  alignas(16) PreparedRow row[prepared_rows];
  // Of this row and, while some still read it, of the one before.
  float squares[2][slices];
  float recalled[2][slices][slice_warps][2][slice_columns];
  uint64_t full[slots], empty[slots];
  uint64_t ready[prepared_rows], used[prepared_rows];
};

// The key heads of sequences, in that order, that a block takes.
struct Items {
  int32_t first, end;

  __device__ explicit Items(const DeltaArguments& arguments) {
    const int64_t all = arguments.batch.sequences * arguments.sizes.key_heads;
    first = static_cast<int32_t>(all * blockIdx.x / gridDim.x);
    end = static_cast<int32_t>(all * (blockIdx.x + 1) / gridDim.x);
  }
};

// The copies of S of all value heads of the block's items, by one lane.
template <typename State>
class Feed {
 public:
  __device__ Feed(const DeltaArguments& arguments, const Items& items)
      : arguments_(arguments), item_(items.first), end_(items.end) {}

  // Queues the next one, if there is one, as soon as its slot is free.
  __device__ void next(Shared<State>& shared) {
    const DeltaSizes& sizes = arguments_.sizes;
    SequenceRows sequence{};
    for (; item_ < end_; ++item_) {
      sequence = arguments_.batch.sequence[item_ / sizes.key_heads];
      if (sequence.rows > 0) break;
    }
    if (item_ >= end_) return;
    const uint32_t full = shared_address(&shared.full[place_.at]);
    wait_for_phase(shared_address(&shared.empty[place_.at]), place_.parity ^ 1);
    if (sequence.state_in < 0) {
      arrive(full);
    } else {
      const int head = item_ % sizes.key_heads * sizes.group + of_group_;
      arrive_expecting(full, sizeof(shared.ring[0]));
      copy_in(shared_address(shared.ring[place_.at]),
              static_cast<const State*>(arguments_.states.base) +
                  sequence.state_in * arguments_.states.stride + int64_t{head} * head_values,
              sizeof(shared.ring[0]), full);
    }
    place_.advance(Shared<State>::slots);
    if (++of_group_ < sizes.group) return;
    of_group_ = 0;
    ++item_;
  }

 private:
  const DeltaArguments& arguments_;
  int32_t item_, end_;
  int of_group_ = 0;
  Place place_;
};

// A thread's channel of q and k and column of v and z, row after row, into shared memory.
template <typename State>
class Preparer {
 public:
  __device__ Preparer(const DeltaArguments& arguments, const Items& items, Shared<State>& shared)
      : arguments_(arguments),
        shared_(shared),
        sizes_(arguments.sizes),
        column_(static_cast<int>(threadIdx.x) - working_warps * warp_lanes),
        item_(items.first),
        end_(items.end),
        feed_(arguments, items) {}

  // Before anything else: S, as far as there is room.
  __device__ void begin() {
    if (column_ > 0) return;
    for (int i = 0; i < Shared<State>::slots; ++i) feed_.next(shared_);
  }
  __device__ void run() {
    Head now, next;
    load(now);
#pragma unroll 1
    for (int32_t heads = 0; now.rows > 0; ++heads) {
      load(next);
      // Its own S, if that is not on its way since the beginning.
      if (heads >= Shared<State>::slots && column_ == 0) feed_.next(shared_);
      __syncwarp();
      prepare(now);
      now = next;
    }
    PreparedRow& end = next_row();
    if (column_ == 0) end.head = -1;
    publish();
  }

 private:
  struct Row {
    float q, k, v, z, b, a;
    int32_t slot;
  };
  // A value head of a sequence, with what of it takes long to come: fetched while the head before
  // it is prepared.
  struct Head {
    int32_t rows;  // 0: there are no more
    int32_t first_row;
    int32_t state_in;
    int key_head, of_group;
    Channel q, k, v;  // their past
    Row row;          // the first
  };

  // The next head.
  __device__ void load(Head& head) {
    head.rows = 0;
    for (; item_ < end_; ++item_) {
      const SequenceRows sequence = arguments_.batch.sequence[item_ / sizes_.key_heads];
      if (sequence.rows == 0) continue;
      head.rows = sequence.rows;
      head.first_row = sequence.first_row;
      head.state_in = sequence.state_in;
      head.key_head = item_ % sizes_.key_heads;
      head.of_group = of_group_;
      const States& states = arguments_.conv_states;
      head.q.load_past(sizes_, states, head.state_in, q_channel(head));
      head.k.load_past(sizes_, states, head.state_in, sizes_.key_width + q_channel(head));
      head.v.load_past(sizes_, states, head.state_in, v_channel(head));
      head.row = row(head, head.first_row);
      if (++of_group_ == sizes_.group) {
        of_group_ = 0;
        ++item_;
      }
      return;
    }
  }
  __device__ Row row(const Head& head, int32_t t) const {
    const DeltaRows& rows = arguments_.rows;
    const Bf16* x = rows.qkvz + t * rows.qkvz_stride + head.key_head * sizes_.group_width + column_;
    const Bf16* x_value = x + (2 + head.of_group) * head_dim;
    const float* x_gates =
        rows.ba + t * rows.ba_stride + head.key_head * 2 * sizes_.group + head.of_group;
    return {widen(x[0]),
            widen(x[head_dim]),
            widen(x_value[0]),
            widen(x_value[sizes_.group * head_dim]),
            x_gates[0],
            x_gates[sizes_.group],
            arguments_.batch.state_out[t]};
  }
  __device__ int q_channel(const Head& head) const {
    return head.key_head * head_dim + column_;
  }
  __device__ int value_head(const Head& head) const {
    return head.key_head * sizes_.group + head.of_group;
  }
  __device__ int v_channel(const Head& head) const {
    return 2 * sizes_.key_width + value_head(head) * head_dim + column_;
  }

  __device__ void prepare(Head& head) {
    const DeltaLayer& layer = arguments_.layer;
    const int q_at = q_channel(head), k_at = sizes_.key_width + q_at, v_at = v_channel(head);
    head.q.load_weights(layer, sizes_, q_at);
    head.k.load_weights(layer, sizes_, k_at);
    head.v.load_weights(layer, sizes_, v_at);
    const float rate = -quick_exp(layer.a_log[value_head(head)]);
    const float dt_bias = layer.dt_bias[value_head(head)];
    for (int32_t t = 0; t < head.rows; ++t) {
      const Row now = t == 0 ? head.row : row(head, head.first_row + t);
      const float2 key{quick_silu(head.k.advance(now.k)), quick_silu(head.q.advance(now.q))};
      const float value = quick_silu(head.v.advance(now.v));
      const float4 products = warp_sums(key.y * key.y, key.x * key.x, key.y * key.x);
      PreparedRow& to = next_row();
      to.keys[column_] = key;
      to.values[column_] = value;
      to.z[column_] = now.z;
      if (column_ % warp_lanes == 0) to.products[column_ / warp_lanes] = products;
      if (column_ == 0) {
        to.gates = {quick_exp(rate * quick_softplus(now.a + dt_bias)), quick_sigmoid(now.b)};
        to.row = head.first_row + t;
        to.head = value_head(head);
        to.slot = now.slot;
        to.first = t == 0;
        to.fresh = head.state_in < 0;
      }
      publish();
      if (now.slot < 0) continue;
      // The other value heads want the keys' past as it was.
      if (head.of_group + 1 == sizes_.group) {
        head.q.store_past(sizes_, arguments_.conv_states, now.slot, q_at);
        head.k.store_past(sizes_, arguments_.conv_states, now.slot, k_at);
      }
      head.v.store_past(sizes_, arguments_.conv_states, now.slot, v_at);
    }
  }
  __device__ PreparedRow& next_row() {
    wait_for_phase(shared_address(&shared_.used[place_.at]), place_.parity ^ 1);
    return shared_.row[place_.at];
  }
  __device__ void publish() {
    __syncwarp();
    if (column_ % warp_lanes == 0) arrive(shared_address(&shared_.ready[place_.at]));
    place_.advance(prepared_rows);
  }

  const DeltaArguments& arguments_;
  Shared<State>& shared_;
  const DeltaSizes& sizes_;
  int column_;
  int32_t item_, end_;
  int of_group_ = 0;
  Feed<State> feed_;
  Place place_;
};

// A thread's part of S, row after row.
template <typename State>
class Worker {
 public:
  __device__ Worker(const DeltaArguments& arguments, Shared<State>& shared)
      : arguments_(arguments), shared_(shared) {
    const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
    lane_ = static_cast<int>(threadIdx.x) % warp_lanes;
    slice_ = warp / slice_warps;
    of_slice_ = warp % slice_warps;
    part_ = of_slice_ * (warp_lanes / quads) + lane_ / quads;
    column_ = slice_ * slice_columns + lane_;
    offset_ = part_ * head_dim + slice_ * slice_columns + 4 * (lane_ % quads);
    if (of_slice_ == out_warp) norm_weight_ = arguments.layer.norm_weight[column_];
  }

  __device__ void run() {
    State* const states = static_cast<State*>(arguments_.states.base) + offset_;
    float4 s[depth];
#pragma unroll 1
    for (;;) {
      const PreparedRow& row = shared_.row[row_.at];
      wait_for_phase(shared_address(&shared_.ready[row_.at]), row_.parity);
      const int32_t head = row.head, slot = row.slot;
      if (head < 0) return;
      if (row.first) load(s, row.fresh);
      advance(s, row);
      if (slot >= 0) {
        State* const to = states + slot * arguments_.states.stride + head * head_values;
#pragma unroll
        for (int i = 0; i < depth; ++i) store_state(to + i * row_parts * head_dim, s[i]);
      }
      __syncwarp();
      if (lane_ == 0) arrive(shared_address(&shared_.used[row_.at]));
      row_.advance(prepared_rows);
    }
  }

 private:
  // S from the ring.
  __device__ void load(float4 (&s)[depth], bool fresh) {
    wait_for_phase(shared_address(&shared_.full[ring_.at]), ring_.parity);
    const State* from = shared_.ring[ring_.at] + offset_;
#pragma unroll
    for (int i = 0; i < depth; ++i)
      s[i] = fresh ? float4{0, 0, 0, 0} : load_state(from + i * row_parts * head_dim);
    __syncwarp();
    if (lane_ == 0) arrive(shared_address(&shared_.empty[ring_.at]));
    ring_.advance(Shared<State>::slots);
  }

  // A row's output, and S after it.
  __device__ void advance(float4 (&s)[depth], const PreparedRow& row) {
    const auto of_warp = shared_.recalled[half_][slice_];
    recall(s, row.keys, part_, of_warp[of_slice_]);
    const float4 products = sum_products(row.products);
    const float k_factor = rsqrtf(products.y + l2_epsilon);
    const float decay = row.gates.x, beta = row.gates.y;
    meet(1 + slice_, slice_threads);
    const float change =
        k_factor *
        (beta * (row.values[column_] - decay * (k_factor * recalled(of_warp, 0, lane_))));
    take_in(s, row.keys, part_, decay, change, State{});
    if (of_slice_ == out_warp) {
      const float q_factor = rsqrtf(products.x + l2_epsilon) * rsqrtf(static_cast<float>(head_dim));
      const float o = q_factor * fmaf(products.z, change, decay * recalled(of_warp, 1, lane_));
      const float square = warp_sum(o * o);
      if (lane_ == 0) shared_.squares[half_][slice_] = square;
      meet(all_out, slices * warp_lanes);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < slices; ++i) sum += shared_.squares[half_][i];
      const float scale =
          rsqrtf(fmaf(sum, 1.0f / static_cast<float>(head_dim), arguments_.layer.eps));
      arguments_.out[row.row * arguments_.out_stride + row.head * head_dim + column_] =
          narrow(o * scale * norm_weight_ * quick_silu(row.z[column_]));
    }
    half_ ^= 1;
  }

  const DeltaArguments& arguments_;
  Shared<State>& shared_;
  int lane_, slice_, of_slice_, part_;
  int column_;  // of a head
  int offset_;  // in a head, of this thread's columns of its first row
  float norm_weight_ = 0;
  Place ring_, row_;
  int half_ = 0;
};

template <typename State>
__global__ void __launch_bounds__(threads, 1)
    decode_many_kernel(const __grid_constant__ DeltaArguments arguments) {
  extern __shared__ __align__(128) std::byte bytes[];
  auto& shared = *reinterpret_cast<Shared<State>*>(bytes);
  if (threadIdx.x == 0) {
    for (uint64_t& barrier : shared.full) set_up_barrier(shared_address(&barrier), 1);
    for (uint64_t& barrier : shared.empty) set_up_barrier(shared_address(&barrier), working_warps);
    for (uint64_t& barrier : shared.ready)
      set_up_barrier(shared_address(&barrier), preparing_warps);
    for (uint64_t& barrier : shared.used) set_up_barrier(shared_address(&barrier), working_warps);
    barriers_are_set_up();
    publish_to_async();
  }
  __syncthreads();
  let_next_kernel_start();
  if (!arguments.states_at_rest) wait_for_earlier_kernels();
  if (threadIdx.x >= working_warps * warp_lanes) {
    const Items items(arguments);
    Preparer<State> preparer(arguments, items, shared);
    preparer.begin();
    if (arguments.states_at_rest) wait_for_earlier_kernels();
    preparer.run();
  } else {
    if (arguments.states_at_rest) wait_for_earlier_kernels();
    Worker<State>(arguments, shared).run();
  }
}

template <typename State>
void launch(cudaStream_t stream, const DeltaArguments& arguments, unsigned blocks) {
  launch_overlapped("decode_delta of many sequences", decode_many_kernel<State>, blocks, threads,
                    sizeof(Shared<State>), stream, arguments);
}

}  // namespace

// For 64 sequences of the 80B model the clusters are as fast, for fewer faster.
bool decode_delta_many_takes(const DeltaSizes& sizes, const Batch& batch) {
  return sizes.key_dim == head_dim && sizes.value_dim == head_dim && batch.sequences > 64;
}

void decode_delta_many(cudaStream_t stream, const DeltaArguments& arguments) {
  const int64_t items = arguments.batch.sequences * arguments.sizes.key_heads;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(items, multiprocessors()));
  if (arguments.states.format == StateFormat::f32)
    launch<float>(stream, arguments, blocks);
  else
    launch<Bf16>(stream, arguments, blocks);
}

}  // namespace qnext::ops::cuda
