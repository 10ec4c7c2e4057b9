#include "emulator/tensor_sum.h"

#include <bit>
#include <cstring>

#include "base/cpu_features.h"

namespace qnext::emulator {
namespace {

using Multiply = void (*)(const double* a, const double* b, int columns, float* d);

// Products are exact and sums in one order, so every width gives the same bits. `width` rows make a
// vector, `block` columns (8 is a multiple) are summed at once, so that additions need not wait.
#define QNEXT_ADD_PRODUCTS(name, width, block)                                    \
  template <int k_count>                                                          \
  void name(const double* a, const double* b, int columns, float* d) {            \
    using Vector [[gnu::vector_size((width) * sizeof(double))]] = double;         \
    constexpr int vectors = tensor_rows / (width);                                \
    Vector rows[k_count * vectors];                                               \
    std::memcpy(rows, a, sizeof rows);                                            \
    for (int column = 0; column < columns; column += block) {                     \
      Vector sum[block][vectors] = {};                                            \
      for (int k = 0; k < k_count; ++k) {                                         \
        _Pragma("GCC unroll 8") for (int j = 0; j < block; ++j) {                 \
          const Vector factor = b[(column + j) * k_count + k] - Vector{};         \
          _Pragma("GCC unroll 8") for (int i = 0; i < vectors; ++i) sum[j][i] +=  \
              rows[k * vectors + i] * factor;                                     \
        }                                                                         \
      }                                                                           \
      for (int j = 0; j < block; ++j) {                                           \
        double sums[tensor_rows];                                                 \
        std::memcpy(sums, sum[j], sizeof sums);                                   \
        float* to = d + (column + j) * tensor_rows;                               \
        for (int row = 0; row < tensor_rows; ++row)                               \
          to[row] = static_cast<float>(static_cast<double>(to[row]) + sums[row]); \
      }                                                                           \
    }                                                                             \
  }

QNEXT_ADD_PRODUCTS(add_products, 2, 1)

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2")
QNEXT_ADD_PRODUCTS(add_products_avx2, 4, 2)
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f")
QNEXT_ADD_PRODUCTS(add_products_avx512, 8, 4)
#pragma GCC pop_options
#endif

template <int k_count>
Multiply multiply_of_this_machine() {
  IsaTable<Multiply> table{add_products<k_count>};
#if defined(__x86_64__)
  table.avx2 = add_products_avx2<k_count>;
  table.avx512 = add_products_avx512<k_count>;
#endif
  return table.choose();
}

// act(register, lane, place in d) for all of a warp's sums.
template <typename Act>
void for_sums(Warp& warp, const Operand* registers, int columns, Act&& act) {
  for (int i = 0; i < columns / 2; ++i) {
    float* values = warp.lanes<float>(registers[i]);
    const int first = (8 * (i / 4) + i % 2) * tensor_rows + 8 * (i % 4 / 2);
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t) {
#pragma GCC unroll 8
      for (int g = 0; g < 8; ++g) act(values[4 * g + t], first + 2 * t * tensor_rows + g);
    }
  }
}

}  // namespace

bool whole_warp(Warp& warp, const Instruction& instruction, LaneMask active) {
  if (!warp.together(active, all_lanes)) return false;
  if (active != all_lanes)
    warp.fault(instruction, std::countr_zero(active), "threads of the warp have left");
  return true;
}

void add_tensor_products(const double* a, const double* b, int k, int columns, float* d) {
  static const Multiply of_16 = multiply_of_this_machine<16>();
  static const Multiply of_32 = multiply_of_this_machine<32>();
  (k == 16 ? of_16 : of_32)(a, b, columns, d);
}

void gather_sums(Warp& warp, const Operand* registers, int columns, float* d) {
  for_sums(warp, registers, columns, [&](float& value, int at) { d[at] = value; });
}

void scatter_sums(Warp& warp, const Operand* registers, int columns, const float* d) {
  for_sums(warp, registers, columns, [&](float& value, int at) { value = d[at]; });
}

}  // namespace qnext::emulator
