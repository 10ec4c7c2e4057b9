#include <algorithm>

#include "backend/cuda/bandwidth.h"
#include "backend/cuda/device_memory.h"
#include "base/cuda_error.h"

namespace qnext::backend::cuda {

namespace {

constexpr size_t bytes = size_t{1} << 30;
constexpr int passes = 5;
constexpr int threads = 512;
constexpr int blocks = 132 * 8;  // a few waves on the largest chips; the loop takes any number
constexpr int unrolled = 8;      // independent 16-byte loads in flight for each thread

__global__ void read_kernel(const uint4* data, size_t count, unsigned* sink) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  unsigned sum = 0;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride * unrolled) {
    uint4 values[unrolled] = {};
#pragma unroll
    for (int j = 0; j < unrolled; ++j)
      if (i + j * stride < count) values[j] = data[i + j * stride];
#pragma unroll
    for (int j = 0; j < unrolled; ++j) sum += values[j].x ^ values[j].y ^ values[j].z ^ values[j].w;
  }
  // Never true for what is there, which the compiler cannot know: the loads must stay.
  if (sum == 0xFFFFFFFFu) *sink = sum;
}

struct TimedEvent {
  cudaEvent_t value = nullptr;
  TimedEvent() { check_cuda(cudaEventCreate(&value), "cudaEventCreate"); }
  ~TimedEvent() { cudaEventDestroy(value); }
};

}  // namespace

double measure_read_bandwidth(cudaStream_t stream) {
  const DeviceBuffer buffer(bytes, "the bandwidth measurement; free some of the GPU's memory");
  const DeviceBuffer sink(sizeof(unsigned), "the bandwidth measurement");
  check_cuda(cudaMemsetAsync(buffer.data(), 0x5A, bytes, stream), "cudaMemsetAsync");
  const TimedEvent start, stop;
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    check_cuda(cudaEventRecord(start.value, stream), "cudaEventRecord");
    read_kernel<<<blocks, threads, 0, stream>>>(buffer.as<uint4>(), bytes / sizeof(uint4),
                                                sink.as<unsigned>());
    check_launch("the bandwidth measurement");
    check_cuda(cudaEventRecord(stop.value, stream), "cudaEventRecord");
    check_cuda(cudaEventSynchronize(stop.value), "cudaEventSynchronize");
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, start.value, stop.value),
               "cudaEventElapsedTime");
    best = std::max(best, static_cast<double>(bytes) / (milliseconds * 1e-3));
  }
  return best;
}

}  // namespace qnext::backend::cuda
