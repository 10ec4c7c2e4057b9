// Private to the fast forms of Gated DeltaNet: blocks of one cluster and what they tell each other
// through distributed shared memory.
#pragma once

#include "ops/gated_delta/decode_delta_row.cuh"
#include "ops/launch_cuda.cuh"
#include "ops/sm90/bulk_copy.cuh"
#include "ops/sm90/cluster.cuh"

namespace qnext::ops::cuda {

// What a block has: 32 columns of one value head. The blocks of a cluster have all value heads of a
// key head. Grid: (blocks a cluster, key heads, sequences).
struct ClusterPlace {
  int slices;  // blocks a value head
  int rank, key_head, of_group, slice;
  int head;  // the value head

  __device__ ClusterPlace(const DeltaSizes& sizes, int value_dim)
      : slices(value_dim / slice_columns),
        rank(static_cast<int>(blockIdx.x)),
        key_head(static_cast<int>(blockIdx.y)),
        of_group(rank / slices),
        slice(rank % slices),
        head(key_head * sizes.group + of_group) {}
};

// A kernel of `threads` threads a block on that grid.
inline void launch_delta_clusters(const char* name, void (*kernel)(DeltaArguments),
                                  unsigned threads, cudaStream_t stream,
                                  const DeltaArguments& arguments) {
  const DeltaSizes& sizes = arguments.sizes;
  const auto cluster = static_cast<unsigned>(sizes.group * (sizes.value_dim / slice_columns));
  launch_clusters(name, kernel, cluster,
                  dim3(cluster, static_cast<unsigned>(sizes.key_heads),
                       static_cast<unsigned>(arguments.batch.sequences)),
                  threads, 0, stream, arguments);
}

// A warp writes this block's sum of squares of a row into `squares` of all blocks of its head, a
// lane a block. Into its own plainly: its other lanes see it behind a __syncwarp(), and the barrier
// expects a message less than the head has slices.
__device__ inline void share_square(float* squares, const ClusterPlace& place, float square,
                                    const uint64_t* barrier) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int block = place.of_group * place.slices + lane;
  if (lane == place.slice)
    squares[lane] = square;
  else if (lane < place.slices)
    sm90::send(sm90::address_in_block(sm90::shared_address(&squares[place.slice]), block), square,
               sm90::address_in_block(sm90::shared_address(barrier), block));
}

}  // namespace qnext::ops::cuda
