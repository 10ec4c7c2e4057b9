#include <algorithm>

#include "backend/cuda/few_words.h"
#include "ops/launch_cuda.cuh"

namespace qnext::backend::cuda {

namespace {

constexpr int threads = 256;

struct Words {
  int32_t word[most_few_words];
};

// The next kernel starts behind the end of these two: there are some that read a pass's arrays
// before they wait.
__global__ void write_kernel(const __grid_constant__ Words words, size_t count, int32_t* to,
                             LookedUp looked_up) {
  ops::cuda::wait_for_earlier_kernels();
  for (size_t i = threadIdx.x; i < count; i += threads) {
    const int32_t word = words.word[i];
    const bool is_place = i - looked_up.first < looked_up.count;
    to[i] = is_place ? looked_up.table[word] : word;
  }
}

__global__ void look_up_kernel(int32_t* words, LookedUp looked_up) {
  ops::cuda::wait_for_earlier_kernels();
  int32_t* const place = words + looked_up.first;
  for (size_t i = threadIdx.x; i < looked_up.count; i += threads)
    place[i] = looked_up.table[place[i]];
}

}  // namespace

void write_few_words(const Stream& stream, std::span<const int32_t> words, int32_t* to,
                     const LookedUp& looked_up) {
  Words all;
  std::ranges::copy(words, all.word);
  ops::cuda::launch_overlapped("few words", write_kernel, 1, threads, 0, stream.get(), all,
                               words.size(), to, looked_up);
}

void look_up(const Stream& stream, int32_t* words, const LookedUp& looked_up) {
  ops::cuda::launch_overlapped("words looked up", look_up_kernel, 1, threads, 0, stream.get(),
                               words, looked_up);
}

}  // namespace qnext::backend::cuda
