#include "backend/cuda/lone_row.h"
#include "ops/launch_cuda.cuh"

namespace qnext::backend::cuda {

namespace {

__global__ void advance_kernel(LoneRowArrays arrays, const int32_t* drawn,
                               ops::cuda::RowSampling* sampler, ExpertTraffic::Counts* counts) {
  ops::cuda::let_next_kernel_start();
  ops::cuda::wait_for_earlier_kernels();
  *arrays.token = *drawn;
  ops::cuda::SequenceRows sequence = *arrays.sequence;
  const int32_t written = *arrays.state_out;
  *arrays.state_out = sequence.state_in;
  sequence.state_in = written;
  ++sequence.first_position;
  *arrays.sequence = sequence;
  if (sampler) ++sampler->position;
  counts->mark();
}

}  // namespace

void advance_lone_row(const Stream& stream, const LoneRowArrays& arrays, const int32_t* drawn,
                      ops::cuda::RowSampling* sampler, ExpertTraffic::Counts* counts) {
  ops::cuda::launch_overlapped("advancing a row", advance_kernel, 1, 1, 0, stream.get(), arrays,
                               drawn, sampler, counts);
}

}  // namespace qnext::backend::cuda
