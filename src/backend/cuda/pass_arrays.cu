#include <algorithm>

#include "backend/cuda/pass_arrays.h"
#include "ops/launch_cuda.cuh"

namespace qnext::backend::cuda {

namespace {

constexpr int threads = 256;

struct Words {
  int32_t word[PassArrays::most_passed_words];
};

// The next kernel starts behind the end of this one: there are some that read the arrays before
// they wait.
__global__ void write_kernel(const __grid_constant__ Words words, int count, int32_t* to) {
  ops::cuda::wait_for_earlier_kernels();
  for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) to[i] = words.word[i];
}

}  // namespace

void PassArrays::pass(const Stream& stream, std::span<const int32_t> words) {
  Words all;
  std::ranges::copy(words, all.word);
  ops::cuda::launch_overlapped("a batch's arrays", write_kernel, 1, threads, 0, stream.get(), all,
                               static_cast<int>(words.size()), memory_.as<int32_t>());
}

}  // namespace qnext::backend::cuda
