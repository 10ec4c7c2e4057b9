// Packed experts for tests: random ones on the device, and their values.
#pragma once

#include <deque>
#include <vector>

#include "ops/matmul/packed_test.h"
#include "ops/moe/packed_experts_cuda.h"

namespace qnext::ops::cuda {

// Experts of the given widths in one stack of the largest width; the last may be the shared one.
class ExpertsOnDevice {
 public:
  ExpertsOnDevice(PackedFormat format, int64_t hidden, const std::vector<int64_t>& widths,
                  unsigned seed = 100) {
    view_.format = format;
    view_.experts = static_cast<int64_t>(widths.size());
    view_.hidden = hidden;
    view_.width = *std::max_element(widths.begin(), widths.end());
    const DType type = format == PackedFormat::f8 ? DType::f8_e4m3 : DType::bf16;
    for (int64_t width : widths) {
      const auto source = [&](int64_t rows, int64_t columns) {
        return random_matrix(type, rows, columns, seed += 2);
      };
      const TestMatrix gate = source(width, hidden), up = source(width, hidden),
                       down = source(hidden, width);
      const DeviceMatrix device_gate(gate), device_up(up), device_down(down);
      PackedOnDevice& both = clear(gate_up_.emplace_back(format, view_.gate_up_rows(), hidden));
      pack(nullptr, device_gate.view(), Placement::upper, both.matrix());
      pack(nullptr, device_up.view(), Placement::lower, both.matrix());
      both.read();
      PackedOnDevice& narrow = clear(down_.emplace_back(format, hidden, view_.width));
      pack(nullptr, device_down.view(), Placement::whole, narrow.matrix());
      narrow.read();
      gate_up_values_.push_back(both.values());
      down_values_.push_back(narrow.values());
    }
    stack(gate_up_, gate_up_tiles_, gate_up_scales_);
    stack(down_, down_tiles_, down_scales_);
    view_.gate_up_tiles = gate_up_tiles_.front().get();
    view_.gate_up_scales = gate_up_scales_.front().get();
    view_.down_tiles = down_tiles_.front().get();
    view_.down_scales = down_scales_.front().get();
  }

  const PackedExperts& view() const { return view_; }
  double gate(int64_t expert, int64_t row, int64_t column) const {
    return gate_up_value(expert, row / 8 * 16 + row % 8, column);
  }
  double up(int64_t expert, int64_t row, int64_t column) const {
    return gate_up_value(expert, row / 8 * 16 + row % 8 + 8, column);
  }
  double down(int64_t expert, int64_t row, int64_t column) const {
    return down_values_[static_cast<size_t>(expert)]
                       [static_cast<size_t>(row * view_.width + column)];
  }

 private:
  double gate_up_value(int64_t expert, int64_t row, int64_t column) const {
    return gate_up_values_[static_cast<size_t>(expert)]
                          [static_cast<size_t>(row * view_.hidden + column)];
  }
  // pack() leaves strips beyond a narrow expert's rows as they were.
  static PackedOnDevice& clear(PackedOnDevice& packed) {
    const PackedMatrix& matrix = packed.matrix();
    check_cuda(
        cudaMemset(const_cast<std::byte*>(matrix.tiles), 0, static_cast<size_t>(matrix.bytes())),
        "cudaMemset");
    if (matrix.scale_count())
      check_cuda(cudaMemset(const_cast<float*>(matrix.scales), 0,
                            static_cast<size_t>(matrix.scale_count()) * sizeof(float)),
                 "cudaMemset");
    return packed;
  }
  static void stack(const std::deque<PackedOnDevice>& matrices,
                    std::deque<OnDevice<std::byte>>& tiles, std::deque<OnDevice<float>>& scales) {
    const PackedMatrix& first = matrices.front().matrix();
    const auto bytes = static_cast<size_t>(first.bytes());
    const auto count = static_cast<size_t>(first.scale_count());
    tiles.emplace_back(std::vector<std::byte>(bytes * matrices.size()));
    scales.emplace_back(std::vector<float>(count * matrices.size()));
    for (size_t i = 0; i < matrices.size(); ++i) {
      check_cuda(cudaMemcpy(tiles.front().get() + i * bytes, matrices[i].matrix().tiles, bytes,
                            cudaMemcpyDeviceToDevice),
                 "cudaMemcpy");
      check_cuda(cudaMemcpy(scales.front().get() + i * count, matrices[i].matrix().scales,
                            count * sizeof(float), cudaMemcpyDeviceToDevice),
                 "cudaMemcpy");
    }
  }

  PackedExperts view_;
  std::deque<PackedOnDevice> gate_up_, down_;
  std::vector<std::vector<double>> gate_up_values_, down_values_;
  std::deque<OnDevice<std::byte>> gate_up_tiles_, down_tiles_;
  std::deque<OnDevice<float>> gate_up_scales_, down_scales_;
};

}  // namespace qnext::ops::cuda
