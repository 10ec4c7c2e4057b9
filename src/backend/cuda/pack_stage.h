// The way of weights from the host into packed tiles: through page-locked buffers and a little GPU
// memory, several pieces under way at once.
#pragma once

#include <array>
#include <atomic>
#include <mutex>

#include "backend/cuda/device_memory.h"
#include "ops/matmul/packed_matrix_cuda.h"

namespace qnext::backend::cuda {

class PackStage {
 public:
  PackStage();
  ~PackStage();
  PackStage(const PackStage&) = delete;
  PackStage& operator=(const PackStage&) = delete;

  // Packs rows given in host memory, at most piece_bytes of them (with their f8 scales, if any).
  // They may change once this returns. Called from several threads.
  void pack(const ops::WeightMatrix& rows, ops::cuda::Placement placement,
            const ops::cuda::PackedMatrix& matrix, int64_t first_strip);
  // Waits until all of it is done.
  void finish();

  const Stream& stream() const { return stream_; }

  static constexpr size_t piece_bytes = size_t{8} << 20;

 private:
  // Scales of f8 take 1 / 4096 of the bytes of whole 128 x 128 blocks; narrow matrices take more.
  static constexpr size_t scale_bytes = size_t{1} << 20;
  struct Slot {
    std::mutex mutex;
    PinnedBuffer host;
    DeviceBuffer device;
    cudaEvent_t free = nullptr;  // the last use of both
  };

  Slot& next() { return slots_[turn_++ % slots_.size()]; }

  Stream stream_;
  std::array<Slot, 6> slots_;
  std::atomic<size_t> turn_ = 0;
};

}  // namespace qnext::backend::cuda
