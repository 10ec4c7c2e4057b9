// Test matrices on the GPU, in the types that it takes.
#pragma once

#include <vector>

#include "ops/cuda_test.h"
#include "ops/matmul/test_matrices.h"

namespace qnext::ops::cuda {

inline const std::vector<DType> stored_types = {DType::f32, DType::f16, DType::bf16,
                                                DType::f8_e4m3};

// The matrix's bytes and scales on the device.
class DeviceMatrix {
 public:
  explicit DeviceMatrix(const TestMatrix& host)
      : bytes_(std::vector<std::byte>(host.bytes.begin() + 1, host.bytes.end())),
        scales_(host.block_scales),
        view_(host.view) {
    view_.data = bytes_.get();
    view_.block_scales = host.block_scales.empty() ? nullptr : scales_.get();
  }
  const WeightMatrix& view() const { return view_; }

 private:
  OnDevice<std::byte> bytes_;
  OnDevice<float> scales_;
  WeightMatrix view_;
};

}  // namespace qnext::ops::cuda
