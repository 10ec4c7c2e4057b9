// The launches behind stream_experts(). The ladder, f8, 512 experts, 10 chosen and a shared one,
// hidden 2048, width 512, on an H200 whose memory gives 4.45 TB/s, microseconds at 1 / 64 / 256
// rows:
//   chunks of two tiles, one block an SM                                 30.9   705  1092
//   four tiles: fewer instructions around each chunk                     27.4   642  1007
//   two blocks an SM, the shared expert's units spread over all;
//   one row routed by the whole block                                    26.5   298   715
//   one row's kernels rehearse while they wait                           23.3
//   one row's last sums by all threads, its candidates ranked at once    20.9
//   an expert's groups of rows in spans of strips (4, then 16)                        600
//   pairs listed once for all blocks; each group of 8 rows goes through all strips,
//   its weights kept in L2 if another group wants them; two units a barrier; the
//   shared expert's rows while the list is made                                 294   485
// The floor is 7.8, 260 and 362. One row has had kernels of its own since (stream_row_gate_up.cuh,
// stream_row_down.cuh), measured in the whole model only: docs/performance.md.
#include <algorithm>

#include "base/cuda_error.h"
#include "ops/moe/expert_groups.cuh"
#include "ops/moe/few_down.cuh"
#include "ops/moe/few_gate_up.cuh"
#include "ops/moe/route_groups.cuh"
#include "ops/moe/stream_down.cuh"
#include "ops/moe/stream_experts_cuda.h"
#include "ops/moe/stream_gate_up.cuh"
#include "ops/moe/stream_row_down.cuh"
#include "ops/moe/stream_row_gate_up.cuh"

namespace qnext::ops::cuda {

namespace {

constexpr size_t block_memory = 227 << 10;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// The workspace's arrays.
void carve(Carver& carver, const PackedExperts& experts, int64_t rows, int64_t slots,
           ExpertsTask& task) {
  const int64_t pairs = rows * slots, groups = expert_groups_limit(experts.experts, rows, slots);
  task.act_stride = round_up(experts.width, tile_columns);
  task.act = carver.take<Bf16>(pairs * task.act_stride);
  task.parts = carver.take<float>(pairs * experts.hidden);
  task.groups.columns = carver.take<int16_t>(8 * groups);
  task.groups.expert = carver.take<short2>(groups);
  task.groups.count = carver.take<int32_t>(1);
}

template <typename Memory>
size_t memory_of(const ExpertsTask& task) {
  Carver carver(nullptr);
  const Memory memory(carver, task);
  return static_cast<size_t>(carver.bytes());
}

// False: the sizes are not those that the kernels of one row take.
template <PackedFormat format>
bool run_one(cudaStream_t stream, ExpertsTask task) {
  using GateUp = RowGateUpMemory<format>;
  using Down = RowDownMemory<format>;
  const int32_t units = task.gate_up.strips * task.slots;
  task.row_units = (units + multiprocessors() - 1) / multiprocessors();
  // Chosen ids are stored by a warp.
  if (task.slots > warp_lanes || !GateUp::takes(task) || !Down::takes(task)) return false;
  const size_t gate_up = memory_of<GateUp>(task), down = memory_of<Down>(task);
  if (gate_up > block_memory || down > block_memory) return false;
  const dim3 threads(row_expert_threads);
  keep_all_shared(row_gate_up_kernel<format>);
  keep_all_shared(row_down_kernel<format>);
  launch_overlapped("experts' gate and up", row_gate_up_kernel<format>,
                    dim3(static_cast<unsigned>(multiprocessors())), threads,
                    alone_on_multiprocessor(gate_up), stream, task);
  launch_overlapped("experts' down", row_down_kernel<format>,
                    dim3(static_cast<unsigned>(task.down.strips)), threads, down, stream, task);
  return true;
}

// False: the sizes are not those that the kernels of a few rows take.
template <PackedFormat format>
bool run_few(cudaStream_t stream, const ExpertsTask& task) {
  if (task.routing.experts > few_experts || task.routing.top_k > few_top_k ||
      task.normed_stride % 8 != 0 || task.gate_up.column_tiles % chunk_tiles != 0 ||
      task.gate_up.chunks > expert_warps || task.down.column_tiles % chunk_tiles != 0)
    return false;
  const size_t gate_up = memory_of<FewGateUpMemory<format>>(task);
  const size_t down = memory_of<FewDownMemory<format>>(task);
  if (gate_up > block_memory || down > block_memory) return false;
  keep_all_shared(few_gate_up_kernel<format>);
  keep_all_shared(few_down_kernel<format>);
  launch_overlapped("experts' gate and up", few_gate_up_kernel<format>,
                    dim3(static_cast<unsigned>(multiprocessors())), dim3(few_gate_up_threads),
                    gate_up, stream, task);
  launch_overlapped("experts' down", few_down_kernel<format>,
                    dim3(static_cast<unsigned>(task.down.strips)), dim3(few_down_threads), down,
                    stream, task);
  return true;
}

// Routing and the groups of pairs.
void route(cudaStream_t stream, const ExpertsTask& task) {
  if (routes_at_once(task)) {
    launch_overlapped("routing and groups", route_groups, dim3(1),
                      dim3(static_cast<unsigned>(task.rows * RoutingWarps::threads)), 0, stream,
                      task);
    return;
  }
  const size_t listing = listing_memory(task.experts, task.pairs());
  if (listing > block_memory) fail_cuda("stream_experts: too many experts or slots");
  route_experts(stream, task.routing, task.rows);
  launch_overlapped("groups of pairs", list_groups, dim3(1), dim3(listing_threads), listing, stream,
                    task);
}

// Above so many rows a launch for their norm is no matter.
bool can_norm(const ExpertsTask& task) {
  constexpr int32_t few = 8;
  return task.next.weight && task.rows <= few && task.hidden % 4 == 0 && task.x_stride % 4 == 0 &&
         task.hidden <= 4 * norm_threads;
}

// Whether task.next is done.
template <PackedFormat format>
bool run_many(cudaStream_t stream, const ExpertsTask& task) {
  const size_t gate_up = memory_of<GateUpMemory<format>>(task);
  const size_t down = memory_of<CommonMemory<format>>(task);
  const dim3 grid(static_cast<unsigned>(2 * multiprocessors())), threads(expert_threads);
  route(stream, task);
  launch_overlapped("experts' gate and up", gate_up_kernel<format>, grid, threads, gate_up, stream,
                    task);
  launch_overlapped("experts' down", down_parts_kernel<format>, grid, threads, down, stream, task);
  if (can_norm(task)) {
    launch_overlapped("sum over slots and norm", add_parts_and_norm_kernel,
                      dim3(static_cast<unsigned>(task.rows)), dim3(norm_threads), 0, stream, task);
    return true;
  }
  const auto blocks = static_cast<unsigned>((task.hidden + expert_threads - 1) / expert_threads);
  launch_overlapped("sum over slots", add_parts_kernel,
                    dim3(blocks, static_cast<unsigned>(task.rows)), threads, 0, stream, task);
  return false;
}

// Units are counted below 2^32 / strips, where Divisor is exact.
bool can_count(const ExpertMatrices& matrices, int64_t groups) {
  return int64_t{matrices.strips} * matrices.strips * groups < int64_t{1} << 32;
}

// As run_many().
template <PackedFormat format>
bool run(cudaStream_t stream, const ExpertsTask& task) {
  const int64_t groups = expert_groups_limit(task.experts, task.rows, task.slots);
  if (!can_count(task.gate_up, groups) || !can_count(task.down, groups))
    fail_cuda("stream_experts: hidden or width too large");
  if (task.rows == 1 && run_one<format>(stream, task)) return false;
  if constexpr (format != PackedFormat::bf16) {
    if (task.rows > 1 && task.rows <= most_few_rows && run_few<format>(stream, task)) return false;
  }
  return run_many<format>(stream, task);
}

}  // namespace

size_t stream_experts_workspace(const PackedExperts& experts, int64_t rows, int64_t slots) {
  Carver carver(nullptr);
  ExpertsTask task{};
  carve(carver, experts, rows, slots, task);
  return static_cast<size_t>(carver.bytes());
}

bool stream_experts(cudaStream_t stream, const PackedExperts& experts, const Routing& routing,
                    int64_t rows, const Bf16* normed, int64_t normed_stride, float* x,
                    int64_t x_stride, void* workspace, const NextNorm& next, ExpertTurns* turns) {
  if (rows == 0) return false;
  const int64_t slots = routing.slots(), pairs = rows * slots;
  if (rows > most_streamed_rows || pairs > INT16_MAX || experts.experts > INT16_MAX ||
      experts.experts != routing.experts + (routing.shared ? 1 : 0))
    fail_cuda("stream_experts: too many rows, slots or experts, or routing and weights differ");
  ExpertsTask task{};
  task.gate_up = ExpertMatrices(experts.gate_up(0));
  task.down = ExpertMatrices(experts.down(0));
  task.experts = static_cast<int32_t>(experts.experts);
  task.hidden = static_cast<int32_t>(experts.hidden);
  task.routing = routing;
  task.rows = static_cast<int32_t>(rows);
  task.slots = static_cast<int32_t>(slots);
  task.normed = normed;
  task.normed_stride = normed_stride;
  Carver carver(static_cast<std::byte*>(workspace));
  carve(carver, experts, rows, slots, task);
  task.x = x;
  task.x_stride = x_stride;
  task.next = next;
  task.turns = turns;
  switch (experts.format) {
    case PackedFormat::bf16:
      return run<PackedFormat::bf16>(stream, task);
    case PackedFormat::f8:
      return run<PackedFormat::f8>(stream, task);
    case PackedFormat::q4:
      return run<PackedFormat::q4>(stream, task);
  }
  return false;
}

}  // namespace qnext::ops::cuda
