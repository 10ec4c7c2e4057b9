// Which instruction set the kernels use, chosen once from cpuid.
#pragma once

#include <string_view>

namespace qnext {

// Ordered: each level includes the ones before it.
//   scalar  portable C++
//   avx2    AVX2, FMA, F16C, BMI2
//   avx512  AVX-512 F, BW, DQ, VL and VNNI
enum class Isa { scalar, avx2, avx512 };

Isa best_isa();      // what this machine can run
Isa selected_isa();  // what the kernels use: best_isa() unless limited
// For tests and for finding faults: use no more than `limit`. Call before any kernel runs.
void limit_isa(Isa limit);

std::string_view isa_name(Isa isa);
Isa isa_from_name(std::string_view name);  // throws Error on an unknown name

// A kernel's variants. Each kernel keeps one table, and `choose` picks by selected_isa(); a missing
// variant (null) falls back to the next lower one.
template <typename Function>
struct IsaTable {
  Function scalar;
  Function avx2 = nullptr;
  Function avx512 = nullptr;

  Function choose(Isa isa) const {
    if (isa >= Isa::avx512 && avx512) return avx512;
    if (isa >= Isa::avx2 && avx2) return avx2;
    return scalar;
  }
  Function choose() const { return choose(selected_isa()); }
};

}  // namespace qnext
