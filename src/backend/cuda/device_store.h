// The weights' place on the GPU: one block for all matrices, filled through page-locked buffers
// while the next pieces are read, and a list of blocks for small vectors.
#pragma once

#include <array>
#include <mutex>
#include <vector>

#include "backend/common/weights.h"
#include "backend/cuda/device_memory.h"

namespace qnext::backend::cuda {

class DeviceStore final : public WeightStore {
 public:
  DeviceStore();
  ~DeviceStore() override;
  DeviceStore(const DeviceStore&) = delete;
  DeviceStore& operator=(const DeviceStore&) = delete;

  std::byte* reserve(size_t bytes) override;
  void write(std::byte* to, const void* from, size_t bytes) override;
  Vector keep(Vector values) override;
  // Any bytes, 256-byte aligned.
  std::byte* keep_bytes(const void* from, size_t bytes);

  // Waits for the last writes and lets the buffers go.
  void finish();

 private:
  static constexpr size_t staging_bytes = size_t{8} << 20;
  static constexpr size_t small_block = size_t{8} << 20;
  struct Staging {
    PinnedBuffer memory;
    cudaEvent_t copied = nullptr;  // the last copy out of it
  };

  Stream stream_;
  DeviceBuffer matrices_;
  std::mutex mutex_;  // of staging_ and next_
  std::array<Staging, 4> staging_;
  size_t next_ = 0;
  std::vector<DeviceBuffer> small_;
  size_t small_used_ = 0;  // of the last block
};

}  // namespace qnext::backend::cuda
