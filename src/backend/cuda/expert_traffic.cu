#include "backend/cuda/expert_traffic.h"
#include "ops/launch_cuda.cuh"

namespace qnext::backend::cuda {

namespace {

constexpr int threads = 128;

// One block a layer.
__global__ void count_kernel(uint8_t* chosen, int64_t flags, const uint64_t* expert_bytes,
                             unsigned long long* total) {
  __shared__ int chosen_here;
  if (threadIdx.x == 0) chosen_here = 0;
  ops::cuda::let_next_kernel_start();
  ops::cuda::wait_for_earlier_kernels();
  __syncthreads();
  uint8_t* own = chosen + blockIdx.x * flags;
  int count = 0;
  for (int64_t i = threadIdx.x; i < flags; i += blockDim.x) {
    count += own[i];
    own[i] = 0;
  }
  atomicAdd(&chosen_here, count);
  __syncthreads();
  if (threadIdx.x == 0 && chosen_here > 0)
    atomicAdd(total, static_cast<unsigned long long>(chosen_here) * expert_bytes[blockIdx.x]);
}

uint64_t bytes_of(const ops::cuda::PackedExperts& experts) {
  const PackedMatrix gate_up = experts.gate_up(0), down = experts.down(0);
  return static_cast<uint64_t>(gate_up.bytes() + down.bytes()) +
         static_cast<uint64_t>(gate_up.scale_count() + down.scale_count()) * sizeof(float);
}

}  // namespace

ExpertTraffic::ExpertTraffic(const PackedModel& model, const Config& config, DeviceStore& store)
    : layers_(static_cast<int64_t>(model.layers.size()) + 1),
      flags_(config.experts + 1),
      counts_(sizeof(Counts), "a counter") {
  std::vector<uint64_t> bytes;
  for (const PackedLayer& layer : model.layers) bytes.push_back(bytes_of(layer.mlp.experts));
  bytes.push_back(model.mtp ? bytes_of(model.mtp->layer.mlp.experts) : 0);
  expert_bytes_ = reinterpret_cast<const uint64_t*>(
      store.keep_bytes(bytes.data(), bytes.size() * sizeof(uint64_t)));
  zero_now(counts_.data(), counts_.size());
}

void ExpertTraffic::count(const Stream& stream, uint8_t* chosen) const {
  ops::cuda::launch_overlapped("counting experts", count_kernel, static_cast<unsigned>(layers_),
                               threads, 0, stream.get(), chosen, flags_, expert_bytes_,
                               &counts()->now);
}

void ExpertTraffic::go_back(const Stream& stream) const {
  check_cuda(cudaMemcpyAsync(&counts()->now, &counts()->older, sizeof counts()->now,
                             cudaMemcpyDeviceToDevice, stream.get()),
             "a copy on the GPU");
}

size_t ExpertTraffic::bytes(const Stream& stream) const {
  unsigned long long total = 0;
  stream.copy_to_host(&total, &counts()->now, sizeof total);
  stream.wait();
  return total;
}

}  // namespace qnext::backend::cuda
