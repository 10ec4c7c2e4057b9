#include "backend/cuda/device_memory.h"

#include "base/cuda_error.h"
#include "base/error.h"

namespace qnext::backend::cuda {

namespace {

double gib(size_t bytes) {
  return static_cast<double>(bytes) / static_cast<double>(size_t{1} << 30);
}

}  // namespace

DeviceBuffer::DeviceBuffer(size_t bytes, const char* what) : size_(bytes) {
  if (bytes == 0) return;
  const cudaError_t code = cudaMalloc(reinterpret_cast<void**>(&data_), bytes);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // the failure is dealt with here, not at the next launch
    size_t available = 0, total = 0;
    check_cuda(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
    fail("the GPU has {:.2f} of {:.2f} GiB free, but {:.2f} GiB are needed for {}", gib(available),
         gib(total), gib(bytes), what);
  }
  check_cuda(code, "cudaMalloc");
}

void zero_now(void* data, size_t bytes) {
  check_cuda(cudaMemset(data, 0, bytes), "cudaMemset");
  check_cuda(cudaDeviceSynchronize(), "cudaMemset");
}

PinnedBuffer::PinnedBuffer(size_t bytes) : size_(bytes) {
  check_cuda(cudaMallocHost(reinterpret_cast<void**>(&data_), bytes), "cudaMallocHost");
}

Stream::Stream() {
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
}

void Stream::wait() const {
  check_cuda(cudaStreamSynchronize(stream_), "work on the GPU");
}

void Stream::copy_to_device(void* to, const void* from, size_t bytes) const {
  if (bytes == 0) return;
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_),
             "a copy to the GPU");
}

void Stream::copy_to_host(void* to, const void* from, size_t bytes) const {
  if (bytes == 0) return;
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_),
             "a copy from the GPU");
}

Event::Event() {
  check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate");
}

void Event::record(const Stream& stream) const {
  check_cuda(cudaEventRecord(event_, stream.get()), "cudaEventRecord");
}

void Event::wait() const {
  check_cuda(cudaEventSynchronize(event_), "work on the GPU");
}

}  // namespace qnext::backend::cuda
