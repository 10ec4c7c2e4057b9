// The weights of stream_matmul_sm90.cu on their way to its warps: which strips a warp has, and the
// copies that bring them.
#pragma once

#include "ops/matmul/stream_matmul.cuh"

namespace qnext::ops::cuda::few_rows {

constexpr int part_tiles = part_runs * run_tiles;

// Where things lie in shared memory; the rings are first.
struct Layout {
  int x;       // [rows][x_stride]
  int handed;  // float4 [warps][warp_lanes]: totals, from the warp before
  int norm;    // float [norm_floats], where rows are normed
  int full;    // Barrier [warps][slots]: the weights are there
  int ready;   // Barrier [warps]: so is the total
  int taken;   // Barrier [warps]: and has been read
  int bytes;
};

struct Job {
  StreamInput input;
  int64_t columns;
  int rows;
  StreamedWeight product[most_stream_products];
  int products;
  int strips;  // of all products
  int column_tiles;
  int runs, parts;     // of a strip
  int splits, groups;  // warps a strip, strips at a time
  int slots, slot_bytes;
  int blocks;    // of the launch, at most
  int x_stride;  // bytes of a row in shared memory
  Layout at;
};

template <typename T>
__device__ T* shared_at(int offset) {
  extern __shared__ __align__(128) std::byte memory[];
  return reinterpret_cast<T*>(memory + offset);
}

// Tiles that one copy brings: two runs, or one where that is 4 KB already.
__host__ __device__ constexpr int copy_tiles(PackedFormat format) {
  return format == PackedFormat::bf16 ? run_tiles : 2 * run_tiles;
}

// A warp's strips, one after the other.
struct Strips {
  int strip;  // of all products
  int product = 0;

  __device__ Strips(const Job& job, int group)
      : strip(static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) * group) {
    find_product(job);
  }
  __device__ bool done(const Job& job) const { return strip >= job.strips; }
  __device__ void next(const Job& job) {
    strip += static_cast<int>(gridDim.x) * job.groups;
    find_product(job);
  }
  __device__ const StreamedWeight& weight(const Job& job) const { return job.product[product]; }
  // Its number among those of the product.
  __device__ int own(const Job& job) const { return strip - weight(job).first_strip; }

 private:
  __device__ void find_product(const Job& job) {
    while (product + 1 < job.products && strip >= job.product[product + 1].first_strip) ++product;
  }
};

// What one warp does of each of its strips: parts first .. end - 1.
struct Share {
  int split;
  int first, end;

  __device__ Share(const Job& job, int warp)
      : split(warp % job.splits),
        first(split * job.parts / job.splits),
        end((split + 1) * job.parts / job.splits) {}
  __device__ int first_tile() const { return first * part_tiles; }
  __device__ int end_tile(const Job& job) const { return min(end * part_tiles, job.column_tiles); }
};

// The copies of a warp's weights, in the order in which it reads them.
struct Feed {
  Strips strips;
  int tile;

  __device__ Feed(const Job& job, int group, const Share& share)
      : strips(job, group), tile(share.first_tile()) {}
  // Queues the next one, if there is one: by one lane.
  __device__ void next(const Job& job, const Share& share, std::byte* slot, sm90::Barrier* full) {
    if (strips.done(job)) return;
    const StreamedWeight& weight = strips.weight(job);
    const auto bytes_of_tile = static_cast<int>(tile_bytes(weight.format));
    const int end = share.end_tile(job);
    const int tiles = min(copy_tiles(weight.format), end - tile);
    const auto bytes = static_cast<uint32_t>(tiles * bytes_of_tile);
    sm90::arrive_expecting(full, bytes);
    sm90::bulk_copy_once(
        slot, weight.tiles + int64_t{strips.own(job) * job.column_tiles + tile} * bytes_of_tile,
        bytes, full);
    tile += tiles;
    if (tile < end) return;
    tile = share.first_tile();
    strips.next(job);
  }
};

// The f8 scales of a warp's parts, a part ahead of their use: lane l has that of half l % 2 of run
// l / 2.
struct Scales {
  Strips strips;
  int part;
  float ahead = 0;

  __device__ Scales(const Job& job, int group, const Share& share)
      : strips(job, group), part(share.first) {}
  __device__ void load(const Job& job, int lane) {
    if (strips.done(job)) return;
    const StreamedWeight& weight = strips.weight(job);
    const int first_run = part * part_runs;
    if (weight.format == PackedFormat::f8 && lane < 2 * min(part_runs, job.runs - first_run))
      ahead = weight.scales[2 * (strips.own(job) * job.runs + first_run) + lane];
  }
  // The scales of the part that is next.
  __device__ float next(const Job& job, const Share& share, int lane) {
    const float now = ahead;
    if (++part == share.end) {
      part = share.first;
      strips.next(job);
    }
    load(job, lane);
    return now;
  }
};

}  // namespace qnext::ops::cuda::few_rows
