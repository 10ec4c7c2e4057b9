// The emulated GPU stands in for libcudart: a program that links this library before it runs its
// kernels here. Its functions are those of <cuda_runtime_api.h>, as far as this project uses them;
// they do at once, in the order of the calls, what a GPU does in its own time, but for launches
// that may overlap.
//
// What is not known here is refused (cudaErrorNotSupported), or does not link.
#pragma once

#include <cstdint>

#include "emulator/block.h"

namespace qnext::emulator {

// Of the order in which warps take turns, copies arrive and launches overlap, in all launches from
// now on. Each launch of a program has an order of its own, the same in each run. 0 until set.
void set_seed(uint32_t seed);

// Launches so far, by how they began.
struct LaunchCounts {
  uint64_t overlapped = 0;  // while earlier ones were open: stopped at their waits, or behind them
  uint64_t in_order = 0;    // behind all others
  uint64_t too_large = 0;   // of those: had, or left, nothing to overlap for want of memory
  uint64_t most_open = 0;   // at a time, by any launch so far
};
LaunchCounts launch_counts();

// Whether launches from now on look for races in shared memory (races.h): one is a fault, or each
// pair of instructions is a line of stderr. none until set.
void check_races(RaceCheck check);

// A kernel's fault answers every later call, as on a GPU, whose program has to end. This forgets
// it.
void forget_fault();

}  // namespace qnext::emulator
