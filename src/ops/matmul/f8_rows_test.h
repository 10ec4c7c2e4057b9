// For tests of e4m3 products: what round_rows_to_f8() makes of a row.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "ops/matmul/f8_rows_cuda.h"
#include "ops/matmul/packed_test.h"
#include "tensor/dtype.h"

namespace qnext::ops::cuda {

// What products of prompts multiply: weights, and what rows are rounded to before.
struct Operands {
  PackedFormat format;
  Activations activations = Activations::bf16;
};
inline const std::vector<Operands> prompt_operands = {{PackedFormat::bf16},
                                                      {PackedFormat::f8},
                                                      {PackedFormat::q4},
                                                      {PackedFormat::f8, Activations::f8}};
inline std::string operands_name(const Operands& operands) {
  return std::string(format_name(operands.format)) +
         (operands.activations == Activations::f8 ? "_f8_rows" : "");
}

// The tensor core adds e4m3 products 32 at a time to the sum so far, each cut 13 bits behind the
// leading bit of the largest: a step loses at most this part of the largest.
constexpr double f8_step_error = 33 * 0x1p-13;

// Rows of e4m3 on the device, poisoned.
class F8OnDevice {
 public:
  F8OnDevice(int64_t rows, int64_t columns)
      : stride_(f8_columns(columns)),
        codes_(std::vector<uint8_t>(static_cast<size_t>(rows * stride_), 0xFF)),
        units_(poisoned(static_cast<size_t>((rows + 3) / 4 * 4))) {}
  F8Rows rows() const { return {codes_.get(), stride_, units_.get()}; }
  std::vector<uint8_t> codes() const { return codes_.values(); }
  std::vector<float> units() const { return units_.values(); }

 private:
  int64_t stride_;
  OnDevice<uint8_t> codes_;
  OnDevice<float> units_;
};

// 2^this is the row's unit.
inline int f8_unit_exponent(const std::vector<double>& row) {
  double most = 0x1p-120;
  for (double value : row) most = std::max(most, std::abs(value));
  return std::max(std::ilogb(most), f8_least_exponent) - 7;
}

inline std::vector<double> rounded_to_f8(const std::vector<double>& row) {
  const int unit = f8_unit_exponent(row);
  std::vector<double> rounded;
  for (double value : row) {
    const auto scaled = static_cast<float>(std::ldexp(value, -unit));
    rounded.push_back(std::ldexp(double{f8_e4m3_to_float(float_to_f8_e4m3(scaled))}, unit));
  }
  return rounded;
}

// The largest number that a sum of e4m3 products meets: a product, or the sum after 32 more.
class LargestAddend {
 public:
  void add(double product) {
    sum_ += product;
    most_ = std::max(most_, std::abs(product));
    if (++count_ % 32 == 0) most_ = std::max(most_, std::abs(sum_));
  }
  double value() const { return std::max(most_, std::abs(sum_)); }

 private:
  double sum_ = 0, most_ = 0;
  int count_ = 0;
};

}  // namespace qnext::ops::cuda
