// Copies that run beside the threads that asked for them.
//
// Each is done at once or later, by chance: those that an mbarrier counts wait in Block::pending of
// the barrier's block, those of a thread's groups in ThreadCopies of its warp.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "emulator/block.h"
#include "emulator/lanes.h"
#include "emulator/races.h"
#include "emulator/statement.h"

namespace qnext::emulator {

class Warp;

// Copies of the threads of a warp that are not done yet, oldest first.
struct ThreadCopies {
  struct Copy {
    int lane = 0;
    uint32_t group = 0;   // of the thread's
    uint64_t number = 0;  // of the warp's
    std::byte* to = nullptr;
    const std::byte* from = nullptr;
    size_t bytes = 0;
    size_t zeros = 0;  // behind the bytes
    Delayed delayed;
    const uint64_t* barrier = nullptr;  // the first that was asked to wait for it
  };
  std::array<uint32_t, warp_size> groups{};  // that each thread has committed
  uint64_t issued = 0;
  std::vector<Copy> waiting;

  void add(const Copy& copy, bool at_once);
  void commit(LaneMask active);
  // Until at most the `latest` groups of each thread are not done.
  void wait(LaneMask active, uint32_t latest);
  // An mbarrier will wait for all copies of these threads so far, in groups or not; that `finish`
  // ends if they have numbers below `end`.
  void wait_by(LaneMask active, const uint64_t* barrier);
  void finish(LaneMask active, uint64_t end);
};

// Whether something that could come later comes at once.
inline bool comes_at_once(Block& block) {
  return ((*block.random)() >> 16 & 1) != 0;
}

// An mbarrier that an instruction of this thread names, and the block it is of.
struct BarrierPlace {
  uint64_t* word = nullptr;
  Block* owner = nullptr;
};
BarrierPlace find_barrier(Warp& warp, uint32_t address, const Instruction& instruction, int lane);
Block& block_of(Warp& warp, uint32_t address);

// At once or later: `copy`, and then the bytes are told to the barrier.
void copy_behind(Warp& warp, const Instruction& instruction, int lane, BarrierPlace barrier,
                 uint32_t bytes, std::function<void()> copy);
// One of those that the barrier waits for, by chance. False if there is none.
bool finish_one(BarrierPlace barrier);

// st.async; "st" belongs to others.
void decode_async_store(const Statement& statement, Names& names, Instruction& instruction);

// tensor_copies.cpp: cp.async.bulk.tensor
void decode_tensor_copy(const Statement& statement, Names& names, Instruction& instruction);

}  // namespace qnext::emulator
