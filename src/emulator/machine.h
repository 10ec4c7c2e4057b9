// Runs a launch to its end.
//
// Clusters run one after the other; where all threads of those that run wait, the next one starts
// beside them, as on a GPU with room for all. Warps take turns of random length in random order,
// and copies come between their being asked for and the first wait in vain, at random: a kernel
// whose result hangs on such an order gives different results for different seeds.
#pragma once

#include <cstdint>

#include "emulator/block.h"

namespace qnext::emulator {

// Throws Error: a fault of the kernel (memory out of bounds, a barrier that nobody can reach).
void run(const Launch& launch, uint32_t seed);

}  // namespace qnext::emulator
