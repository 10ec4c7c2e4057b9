// What the tests of CUDA operations share: device memory, ragged batches, error norms.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "base/cuda_error.h"
#include "ops/activation/op_test.h"
#include "ops/batch_cuda.h"

namespace qnext::ops::cuda {

// Skips every test, saying why, where no GPU answers.
class CudaOps : public testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    const cudaError_t code = cudaGetDeviceCount(&devices);
    if (code != cudaSuccess || devices == 0)
      GTEST_SKIP() << "no CUDA device: " << cudaGetErrorString(code);
  }
};

// A vector's copy on the device.
template <typename T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& values) : count_(values.size()) {
    check_cuda(cudaMalloc(&data_, std::max<size_t>(1, bytes())), "cudaMalloc");
    check_cuda(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() { cudaFree(data_); }

  T* get() const { return static_cast<T*>(data_); }
  // Waits for all work queued before.
  std::vector<T> values() const {
    std::vector<T> host(count_);
    check_cuda(cudaDeviceSynchronize(), "kernel");
    check_cuda(cudaMemcpy(host.data(), data_, bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return host;
  }

 private:
  size_t bytes() const { return count_ * sizeof(T); }

  size_t count_;
  void* data_ = nullptr;
};

// A ragged batch: sequences one after the other, states kept nowhere until told.
struct HostBatch {
  std::vector<SequenceRows> sequence;
  std::vector<int32_t> sequence_of;
  std::vector<int32_t> state_out;
  std::vector<int32_t> pages;

  // Returns the first row.
  int32_t add(int32_t rows, int32_t state_in = -1, int32_t first_position = 0,
              const std::vector<int32_t>& page_table = {}) {
    const auto first_row = static_cast<int32_t>(sequence_of.size());
    sequence.push_back(
        {first_row, rows, first_position, static_cast<int32_t>(pages.size()), state_in});
    pages.insert(pages.end(), page_table.begin(), page_table.end());
    sequence_of.insert(sequence_of.end(), static_cast<size_t>(rows),
                       static_cast<int32_t>(sequence.size()) - 1);
    state_out.insert(state_out.end(), static_cast<size_t>(rows), -1);
    return first_row;
  }
};

struct DeviceBatch {
  OnDevice<SequenceRows> sequence;
  OnDevice<int32_t> sequence_of, state_out, pages;
  Batch batch;

  explicit DeviceBatch(const HostBatch& host)
      : sequence(host.sequence),
        sequence_of(host.sequence_of),
        state_out(host.state_out),
        pages(host.pages),
        batch{static_cast<int64_t>(host.sequence_of.size()),
              static_cast<int64_t>(host.sequence.size()),
              sequence.get(),
              sequence_of.get(),
              state_out.get(),
              pages.get()} {}
};

inline std::vector<float> slice(const std::vector<float>& values, int64_t begin, int64_t count) {
  return {values.begin() + begin, values.begin() + begin + count};
}

// Root mean square of the error over that of the expected values: where a worst-case bound is
// loose, because roundings of either sign cancel, this one is not.
inline double relative_rms_error(const float* actual, const std::vector<double>& expected) {
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = static_cast<double>(actual[i]) - expected[i];
    error += difference * difference;
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

}  // namespace qnext::ops::cuda
