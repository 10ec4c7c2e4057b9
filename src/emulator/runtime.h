// The emulated GPU stands in for libcudart: a program that links this library before it runs its
// kernels here. Its functions are those of <cuda_runtime_api.h>, as far as this project uses them;
// they do at once, in the order of the calls, what a GPU does in its own time.
//
// What is not known here is refused (cudaErrorNotSupported), or does not link.
#pragma once

#include <cstdint>

#include "emulator/block.h"

namespace qnext::emulator {

// Of the order in which warps take turns and copies arrive, in all launches from now on. Each
// launch of a program has an order of its own, the same in each run. 0 until set.
void set_seed(uint32_t seed);

// Whether launches from now on look for races in shared memory (races.h): one is a fault, or each
// pair of instructions is a line of stderr. none until set.
void check_races(RaceCheck check);

// A kernel's fault answers every later call, as on a GPU, whose program has to end. This forgets
// it.
void forget_fault();

}  // namespace qnext::emulator
