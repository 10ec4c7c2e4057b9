// The 32 threads of a warp, which execute an instruction together.
#pragma once

#include <bit>
#include <cstdint>

namespace qnext::emulator {

constexpr int warp_size = 32;

// Bit i: thread i of the warp.
using LaneMask = uint32_t;
constexpr LaneMask all_lanes = ~LaneMask{0};

inline LaneMask lane_bit(int lane) {
  return LaneMask{1} << lane;
}

// act(lane) for each lane of the mask, in order. Whole warps have a loop of their own, which the
// compiler turns into vector instructions.
template <typename Act>
void for_lanes(LaneMask mask, Act&& act) {
  if (mask == all_lanes) {
    for (int lane = 0; lane < warp_size; ++lane) act(lane);
    return;
  }
  for (; mask != 0; mask &= mask - 1) act(std::countr_zero(mask));
}

}  // namespace qnext::emulator
