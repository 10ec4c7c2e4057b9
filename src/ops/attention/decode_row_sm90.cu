// The answer form where each sequence has one row: queries, key and value come straight from the
// projections. Each block norms and rotates the queries of its kv head for itself; the warp whose
// unit holds the newest position stores its key and value and puts them into that unit, so nothing
// goes by way of global memory.
//
// Up to 2,048 positions the blocks are a cluster, and each sends its piece's result to those that
// merge it: all of the cluster, each of which merges some dimensions of one query head. One barrier
// of the cluster, long before, says that they run.
#include "base/cuda_error.h"
#include "ops/attention/decode_row_sm90.cuh"
#include "ops/launch_cuda.cuh"

namespace qnext::ops::cuda {

namespace {

template <KvFormat format, int dim>
__global__ void __launch_bounds__(AnswerLayout<format, 1, 1, dim, true>::threads,
                                  AnswerLayout<format, 1, 1, dim, true>::blocks)
    short_row_kernel(const RowAnswer a) {
  extern __shared__ std::byte shared_memory[];
  let_next_kernel_start();
  ClusterRowWarp<format, dim> warp(a, shared_memory);
  warp.fetch();
  wait_for_earlier_kernels();
  warp.run();
}

template <KvFormat format, int dim>
__global__ void __launch_bounds__(AnswerLayout<format, 1, 1, dim, false>::threads,
                                  AnswerLayout<format, 1, 1, dim, false>::blocks)
    row_kernel(const RowAnswer a) {
  extern __shared__ std::byte shared_memory[];
  let_next_kernel_start();
  RowWarp<format, dim, false> warp(a, shared_memory);
  // As in answer_block().
  const bool idle = warp.work.begin > warp.work.last;
  if (idle && warp.work.piece > 0) return;
  if (!idle) warp.fetch();
  wait_for_earlier_kernels();
  if (!idle) warp.run();
}

template <KvFormat format, int dim>
void launch_dim(cudaStream_t stream, const RowAnswer& a) {
  using Warp = RowWarp<format, dim, false>;
  using ShortWarp = ClusterRowWarp<format, dim>;
  const dim3 grid(static_cast<unsigned>(a.answer.pieces),
                  static_cast<unsigned>(a.answer.shape.kv_heads),
                  static_cast<unsigned>(a.answer.batch.sequences));
  if (a.answer.pieces <= cluster_pieces)
    launch_clusters("one row's attention", short_row_kernel<format, dim>, grid.x, grid,
                    ShortWarp::Layout::threads, ShortWarp::shared_bytes, stream, a);
  else
    launch_overlapped("one row's attention", row_kernel<format, dim>, grid, Warp::Layout::threads,
                      Warp::shared_bytes, stream, a);
}

template <KvFormat format>
void launch_format(cudaStream_t stream, const RowAnswer& a) {
  switch (a.answer.shape.head_dim) {
    case 256:
      return launch_dim<format, 256>(stream, a);
    case 128:
      return launch_dim<format, 128>(stream, a);
    default:
      return launch_dim<format, 64>(stream, a);
  }
}

}  // namespace

bool paged_row_takes(const PagedShape& shape, int64_t half) {
  const int64_t dim = shape.head_dim;
  return (dim == 64 || dim == 128 || dim == 256) && half % lane_dims == 0 &&
         shape.query_heads <= 8 * shape.kv_heads;
}

void paged_attention_row(cudaStream_t stream, const Batch& batch, const PagedShape& shape,
                         const PagedCache& cache, const PagedProjections& projections,
                         const PagedAttention& inputs, int64_t longest, void* workspace) {
  if (!paged_row_takes(shape, projections.half))
    fail_cuda("one row's attention takes heads of 64, 128 or 256 dimensions, at most 8 a kv head");
  if (batch.sequences == 0) return;
  const Answer answer = answer_of(batch, shape, cache, inputs, longest, workspace);
  if (shape.format == KvFormat::bf16)
    launch_format<KvFormat::bf16>(stream, {answer, projections});
  else
    launch_format<KvFormat::f8>(stream, {answer, projections});
  merge_answer(stream, answer, 1);
}

}  // namespace qnext::ops::cuda
