// Counting the bytes of the experts that passes read, on the device: which ones is known only
// there.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/device_memory.h"
#include "backend/cuda/device_store.h"
#include "backend/cuda/packed_weights.h"
#include "model/config.h"

namespace qnext::backend::cuda {

class ExpertTraffic {
 public:
  ExpertTraffic(const PackedModel& model, const Config& config, DeviceStore& store);

  // Behind a pass: flags [layers + 1, experts + 1] that its routing set, the MTP head's layer last.
  // They are cleared for the next one.
  void count(const Stream& stream, uint8_t* chosen) const;

  // Of all passes so far; waits for them.
  size_t bytes(const Stream& stream) const;

  // On the device: the bytes so far, and what they were at the ends of the newest two passes that
  // marked theirs.
  struct Counts {
    unsigned long long now, newest, older;

    __host__ __device__ void mark() {
      older = newest;
      newest = now;
    }
  };
  Counts* counts() const { return counts_.as<Counts>(); }
  // The newest pass that marked its end was for nothing: back to the one before it.
  void go_back(const Stream& stream) const;

 private:
  int64_t layers_ = 0;                      // the MTP head's too
  int64_t flags_ = 0;                       // of a layer
  const uint64_t* expert_bytes_ = nullptr;  // [layers_], on the device
  DeviceBuffer counts_;
};

}  // namespace qnext::backend::cuda
