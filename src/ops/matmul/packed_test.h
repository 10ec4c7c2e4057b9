// Packed matrices for tests: test matrices onto the device, and their bytes back into values, read
// as packed_matrix_cuda.h and packed_tile.cuh describe them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "ops/matmul/cuda_matrices.h"
#include "ops/matmul/packed_matrix_cuda.h"

namespace qnext::ops::cuda {

inline const std::vector<PackedFormat> packed_formats = {PackedFormat::bf16, PackedFormat::f8,
                                                         PackedFormat::q4};

inline const char* format_name(PackedFormat format) {
  return format == PackedFormat::bf16 ? "bf16" : format == PackedFormat::f8 ? "f8" : "q4";
}

// Device memory of a packed matrix and, once read() was called, its values on the host.
class PackedOnDevice {
 public:
  // Not yet packed: every byte 0xFF, every scale NaN.
  PackedOnDevice(PackedFormat format, int64_t rows, int64_t columns)
      : PackedOnDevice(PackedMatrix{format, rows, columns, nullptr, nullptr}) {}
  // Packed and read.
  PackedOnDevice(PackedFormat format, const TestMatrix& host)
      : PackedOnDevice(format, host.view.rows, host.view.columns) {
    const DeviceMatrix source(host);
    pack(nullptr, source.view(), Placement::whole, matrix_);
    read();  // waits, so the source may go
  }

  const PackedMatrix& matrix() const { return matrix_; }
  void read() {
    tile_bytes_ = tiles_.values();
    scale_values_ = scales_.values();
  }

  // What a product multiplies with.
  double value(int64_t row, int64_t column) const {
    const int64_t tile = column / tile_columns;
    const std::byte* data = tile_bytes_.data() + row / tile_rows * matrix_.strip_bytes() +
                            tile * tile_bytes(matrix_.format);
    const auto g = static_cast<int>(row % 8), lower = static_cast<int>(row % tile_rows / 8);
    const auto at = static_cast<int>(column % tile_columns);
    const int step = at / 16, i = lower + (at % 16 >= 8 ? 2 : 0), second = at % 2;
    const int lane = 4 * g + at % 8 / 2;
    if (matrix_.format == PackedFormat::bf16)
      return double{bf16_to_float(read_16(data + 512 * step + 16 * lane + 4 * i + 2 * second))};
    if (matrix_.format == PackedFormat::f8) {
      const int word = 2 * (step % 2) + i / 2;
      const int byte = lower ? 2 * second : 2 * second + 1;
      const auto code = static_cast<uint8_t>(data[512 * (step / 2) + 16 * lane + 4 * word + byte]);
      const int64_t scale =
          row / tile_rows * matrix_.strip_scales() + column / scale_columns * 2 + lower;
      return double{f8_e4m3_to_float(code)} * double{scale_values_[static_cast<size_t>(scale)]};
    }
    uint32_t word;
    std::memcpy(&word, data + 16 * lane + 4 * step, 4);
    const auto q = static_cast<int>(word >> (4 * (i + 4 * second)) & 15);
    const float d = bf16_to_float(read_16(data + 512 + 8 * g + 4 * (at / 32) + 2 * lower));
    return double{bf16_to_float(float_to_bf16(d * static_cast<float>(q - 8)))};
  }

  // Row-major, [rows, columns].
  std::vector<double> values() const {
    std::vector<double> all;
    all.reserve(static_cast<size_t>(matrix_.rows * matrix_.columns));
    for (int64_t row = 0; row < matrix_.rows; ++row)
      for (int64_t column = 0; column < matrix_.columns; ++column)
        all.push_back(value(row, column));
    return all;
  }

 private:
  explicit PackedOnDevice(PackedMatrix shape)
      : tiles_(std::vector<std::byte>(static_cast<size_t>(shape.bytes()), std::byte{0xFF})),
        scales_(poisoned(static_cast<size_t>(shape.scale_count()))),
        matrix_(shape) {
    matrix_.tiles = tiles_.get();
    matrix_.scales = scales_.get();
  }
  static uint16_t read_16(const std::byte* from) {
    uint16_t bits;
    std::memcpy(&bits, from, 2);
    return bits;
  }

  OnDevice<std::byte> tiles_;
  OnDevice<float> scales_;
  PackedMatrix matrix_;
  std::vector<std::byte> tile_bytes_;
  std::vector<float> scale_values_;
};

// Rows of bf16 as the kernels take them: stride a multiple of 64, the padding zero.
struct Bf16Rows {
  int64_t stride;
  std::vector<Bf16> bits;

  Bf16Rows(const std::vector<float>& values, int64_t columns)
      : stride((columns + tile_columns - 1) / tile_columns * tile_columns),
        bits(values.size() / static_cast<size_t>(columns) * static_cast<size_t>(stride), 0) {
    for (size_t i = 0; i < values.size(); ++i) {
      const auto row = static_cast<int64_t>(i) / columns,
                 column = static_cast<int64_t>(i) % columns;
      bits[static_cast<size_t>(row * stride + column)] = float_to_bf16(values[i]);
    }
  }
  double value(int64_t row, int64_t column) const {
    return double{bf16_to_float(bits[static_cast<size_t>(row * stride + column)])};
  }
};

}  // namespace qnext::ops::cuda
