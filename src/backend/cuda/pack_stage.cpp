#include "backend/cuda/pack_stage.h"

#include <cstring>

#include "base/cuda_error.h"
#include "base/error.h"

namespace qnext::backend::cuda {

PackStage::PackStage() {
  for (Slot& slot : slots_) {
    slot.host = PinnedBuffer(piece_bytes + scale_bytes);
    slot.device = DeviceBuffer(piece_bytes + scale_bytes, "loading weights; use a smaller model");
    check_cuda(cudaEventCreateWithFlags(&slot.free, cudaEventDisableTiming), "cudaEventCreate");
  }
}

PackStage::~PackStage() {
  for (const Slot& slot : slots_)
    if (slot.free) cudaEventDestroy(slot.free);
}

void PackStage::pack(const ops::WeightMatrix& rows, ops::cuda::Placement placement,
                     const ops::cuda::PackedMatrix& matrix, int64_t first_strip) {
  const size_t bytes = dtype_bytes(rows.dtype, static_cast<size_t>(rows.rows * rows.columns));
  const auto scale_count = static_cast<size_t>(
      rows.block_scales ? (rows.rows + 127) / 128 * ((rows.columns + 127) / 128) : 0);
  const size_t used_scales = scale_count * sizeof(float);
  QNEXT_CHECK(bytes <= piece_bytes && used_scales <= scale_bytes, "{} bytes of weights", bytes);
  Slot& slot = next();
  const std::lock_guard lock(slot.mutex);
  check_cuda(cudaEventSynchronize(slot.free), "loading weights");
  std::memcpy(slot.host.data(), rows.data, bytes);
  stream_.copy_to_device(slot.device.data(), slot.host.data(), bytes);
  ops::WeightMatrix staged = rows;
  staged.data = slot.device.data();
  if (rows.block_scales) {
    std::memcpy(slot.host.data() + piece_bytes, rows.block_scales, used_scales);
    stream_.copy_to_device(slot.device.data() + piece_bytes, slot.host.data() + piece_bytes,
                           used_scales);
    staged.block_scales = reinterpret_cast<const float*>(slot.device.data() + piece_bytes);
  }
  ops::cuda::pack(stream_.get(), staged, placement, matrix, first_strip);
  check_cuda(cudaEventRecord(slot.free, stream_.get()), "loading weights");
}

void PackStage::finish() {
  stream_.wait();
}

}  // namespace qnext::backend::cuda
