// Runs launches.
//
// Clusters run one after the other; where all threads of those that run wait, the next one starts
// beside them, as on a GPU with room for all. Warps take turns of random length in random order,
// and copies come between their being asked for and the first wait in vain, at random: a kernel
// whose result hangs on such an order gives different results for different seeds.
//
// A launch may be run in two parts: up to where it waits for earlier kernels (griddepcontrol.wait),
// then to its end. Between them others run: parts one of later launches, ends of earlier ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "emulator/block.h"

namespace qnext::emulator {

// All functions but the small ones throw Error: a fault of the kernel (memory out of bounds, a
// barrier that nobody can reach).
class Machine {
 public:
  Machine(std::shared_ptr<const Launch> launch, uint32_t seed);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // Starts all blocks and runs them up to their waits for earlier kernels, as far as they come. May
  // stop before, with threads that wait for others: any order is one of a GPU's.
  void run_to_waits();
  // Goes on past the waits, with each block until it has let the next kernel start, or ended.
  void run_to_triggers();
  void finish();
  // Waits for earlier kernels return from now on.
  void open_gate();

  // Have all blocks let the next kernel start, or ended?
  bool triggered() const;
  bool ended() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// To its end, with no other beside it.
void run(const Launch& launch, uint32_t seed);

// Of memory, with all blocks at once.
size_t bytes_of_all_blocks(const Launch& launch);

}  // namespace qnext::emulator
