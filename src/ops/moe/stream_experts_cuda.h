// The sparse mixture of experts of few rows (answer form): memory's speed is the measure.
//
//   act[row, slot] = bf16(silu(gate_e n) * (up_e n)),   n = normed row, e = expert of the slot
//   x[row] += sum over slots s of weight_s * down_e act[row, s]      (s ascending, fmaf from 0)
//
// One row: two launches. Each block routes the row for itself; the second kernel starts while the
// first still runs and fetches its weights meanwhile. Two to four rows in f8 and at 4 bits, where
// chunks of 256 columns are whole: two launches as well, with every row a column of every chosen
// expert's products. More rows: routing, a list of who chose whom (up to eight rows: both in one),
// the same two stages visiting each chosen expert once for every 8 of its rows, and the sum over
// slots (up to eight rows: and the norm that follows).
// Each weight of a chosen expert is read from memory once, and once more, from L2 if it is still
// there, for every further 8 rows. All give the same bits: a row's sums have one order, a constant
// of the shape.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "ops/moe/packed_experts_cuda.h"
#include "ops/moe/route_cuda.h"

namespace qnext::ops::cuda {

constexpr int64_t most_streamed_rows = 256;

// Bytes of workspace (256-byte aligned) that stream_experts() needs.
size_t stream_experts_workspace(const PackedExperts& experts, int64_t rows, int64_t slots);

// The norm of x that comes behind the experts (row_norms_cuda.h).
struct NextNorm {
  const float* weight = nullptr;  // [hidden]; null: none is wanted
  float eps = 0;
  Bf16* y = nullptr;  // [rows, stride]; may be where stream_experts() finds `normed`
  int64_t stride = 0;
};

// Which of the last units are taken; zeros before and behind the launches.
struct ExpertTurns {
  int32_t taken, done;
};

// normed bf16 [rows, normed_stride], zeros from column `hidden` to the next multiple of 64; x fp32
// [rows, x_stride]; 1 <= rows <= 256. experts.experts is routing.experts, plus one if there is a
// shared expert. Writes routing.ids, .weights and .chosen as route_experts() does. All launches
// overlapped. Needs a GPU of compute capability 9.0.
//
// Beyond the rule of launch_cuda.cuh, before a kernel here waits: it may read what the kernels
// before its predecessor wrote (logits, ids), because its predecessor let it start only after
// waiting itself. With many rows, the shared expert's rows are multiplied, and results written into
// the workspace, while the list is made: all kernels before the routing have ended by then.
//
// turns: in device memory, for no other call meanwhile, or null. With them a few rows' blocks that
// start late leave work to others.
//
// True: `next` is done too, its bits those of rms_norm_rows(). That is where up to eight rows take
// the kernels of many rows and have at most 2048 columns, and rows of x are 16-byte aligned.
bool stream_experts(cudaStream_t stream, const PackedExperts& experts, const Routing& routing,
                    int64_t rows, const Bf16* normed, int64_t normed_stride, float* x,
                    int64_t x_stride, void* workspace, const NextNorm& next = {},
                    ExpertTurns* turns = nullptr);

}  // namespace qnext::ops::cuda
