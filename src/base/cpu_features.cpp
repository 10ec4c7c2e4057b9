#include "base/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <atomic>

#include "base/error.h"

namespace qnext {

namespace {
std::atomic<Isa> limit{Isa::avx512};

#if defined(__x86_64__)
// From cpuid itself: clang 14 does not know the name "f16c". AVX2 implies that the system saves the
// registers it needs.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}
#endif
}  // namespace

Isa best_isa() {
#if defined(__x86_64__)
  static const Isa best = [] {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      has_f16c() && __builtin_cpu_supports("bmi2");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512vnni");
    return avx2 && avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::scalar;
  }();
  return best;
#else
  return Isa::scalar;
#endif
}

Isa selected_isa() {
  return std::min(best_isa(), limit.load(std::memory_order_relaxed));
}
void limit_isa(Isa value) {
  limit.store(value, std::memory_order_relaxed);
}

std::string_view isa_name(Isa isa) {
  return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "scalar";
}

Isa isa_from_name(std::string_view name) {
  for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512})
    if (isa_name(isa) == name) return isa;
  fail("unknown instruction set '{}': use scalar, avx2 or avx512", name);
}

}  // namespace qnext
