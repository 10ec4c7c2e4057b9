// The sum that tensor cores form, which mma and wgmma share: the same operands give the same bits.
//
// Products are exact and summed in double precision, in the order of k, over the k of one
// instruction (16, of e4m3 32); one rounding adds that sum to the fp32 sum so far. Hardware keeps
// fewer bits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "emulator/lanes.h"
#include "emulator/narrow_floats.h"
#include "emulator/warp.h"

namespace qnext::emulator {

constexpr int tensor_rows = 16;  // of a warp

// Formats of operands: values of one register, k of one instruction.
struct TensorBf16 {
  using Bits = uint16_t;
  static constexpr int k = 16;
  static double widen(Bits bits) { return static_cast<double>(float_from_bf16(bits)); }
};
struct TensorF16 {
  using Bits = uint16_t;
  static constexpr int k = 16;
  static double widen(Bits bits) { return static_cast<double>(float_from_f16(bits)); }
};
inline const std::array<double, 256> e4m3_values = [] {
  std::array<double, 256> table{};
  for (size_t i = 0; i < table.size(); ++i)
    table[i] = static_cast<double>(float_from_f16(f16_of_e4m3[i]));
  return table;
}();
struct TensorE4m3 {
  using Bits = uint8_t;
  static constexpr int k = 32;
  static double widen(Bits bits) { return e4m3_values[bits]; }
};

template <typename Format>
constexpr int values_of_register = static_cast<int>(4 / sizeof(typename Format::Bits));

// The values of a register, in the order of k.
template <typename Format>
std::array<double, values_of_register<Format>> widen_register(uint32_t bits) {
  std::array<double, values_of_register<Format>> values;
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = Format::widen(
        static_cast<typename Format::Bits>(bits >> (i * 8 * sizeof(typename Format::Bits))));
  return values;
}

// a[k][row] of a warp's 16 rows from its four registers: lane 4 g + t has in the first the values
// from k = (values a register) t on of row g, in the second those of row g + 8, in the last two the
// same of the upper half of k.
template <typename Format>
void widen_fragment(Warp& warp, const Operand* registers, double* a) {
  constexpr int values = values_of_register<Format>;
  for (int i = 0; i < 4; ++i) {
    const uint32_t* lanes = warp.lanes<uint32_t>(registers[i]);
    for (int lane = 0; lane < warp_size; ++lane) {
      const int row = lane / 4 + 8 * (i % 2);
      const int k = values * (lane % 4) + Format::k / 2 * (i / 2);
      const auto widened = widen_register<Format>(lanes[lane]);
      for (int j = 0; j < values; ++j)
        a[(k + j) * tensor_rows + row] = widened[static_cast<size_t>(j)];
    }
  }
}

// Values of missing threads would be anything, so a warp has to be whole. False: it waits for them.
bool whole_warp(Warp& warp, const Instruction& instruction, LaneMask active);

// d[column][row] += the sum over k of a[k][row] b[column][k].
void add_tensor_products(const double* a, const double* b, int k, int columns, float* d);

// A warp's sums d[column][row] and its registers, in groups of four for 8 columns: lane 4 g + t has
// in the first two columns 2 t and 2 t + 1 of row g, in the others the same of row g + 8.
void gather_sums(Warp& warp, const Operand* registers, int columns, float* d);
void scatter_sums(Warp& warp, const Operand* registers, int columns, const float* d);

}  // namespace qnext::emulator
