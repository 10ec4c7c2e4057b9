// Counting the bytes of the experts that passes read, on the device: which ones is known only
// there.
#pragma once

#include <cstdint>

#include "backend/cuda/device_memory.h"
#include "backend/cuda/device_store.h"
#include "backend/cuda/packed_weights.h"
#include "model/config.h"

namespace qnext::backend::cuda {

class ExpertTraffic {
 public:
  ExpertTraffic(const PackedModel& model, const Config& config, DeviceStore& store);

  // Flags [layers + 1, experts + 1] that routing sets between the two; the MTP head's layer last.
  void begin(const Stream& stream, uint8_t* chosen) const;
  void end(const Stream& stream, const uint8_t* chosen) const;

  // Of all passes so far; waits for them.
  size_t bytes(const Stream& stream) const;

 private:
  int64_t layers_ = 0;                      // the MTP head's too
  int64_t flags_ = 0;                       // of a layer
  const uint64_t* expert_bytes_ = nullptr;  // [layers_], on the device
  DeviceBuffer total_;
};

}  // namespace qnext::backend::cuda
