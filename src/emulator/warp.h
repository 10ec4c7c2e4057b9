// A warp: 32 threads with registers of their own, which execute together while they are at the same
// place and apart where a branch has parted them.
//
// Threads at one place are a group. The runnable group with the least place goes first, so that
// groups meet again where their paths do; one that waits for the others of its warp (shfl.sync), or
// for a barrier, is passed over. A slice ends when nothing can run or its instructions are used up.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "emulator/block.h"
#include "emulator/copies.h"
#include "emulator/device_memory.h"
#include "emulator/instruction.h"
#include "emulator/lanes.h"
#include "emulator/races.h"

namespace qnext::emulator {

class Warp {
 public:
  // threads: how many of the 32 exist.
  void start(Block& block, int index, int threads);

  // Executes up to `slice` instructions; how many it were.
  int run(int slice);

  bool finished() const { return live_ == 0; }
  LaneMask waiting_for(const uint64_t* counter) const;  // threads that wait_while() has stopped
  std::string where() const;                            // for a message: what its threads wait at

  // ---- for handlers ----

  // The 32 values of an operand.
  template <typename T>
  T* lanes(Operand operand) {
    return reinterpret_cast<T*>(bank_[operand >> 31] + (operand & ~constant_bank));
  }
  LaneMask& predicate(Operand operand) { return *lanes<LaneMask>(operand); }

  Block& block() const { return *block_; }
  int index() const { return index_; }     // in the block
  LaneMask live() const { return live_; }  // threads that have not left
  std::byte* local(int lane) { return local_.data() + static_cast<size_t>(lane) * local_bytes_; }

  // Memory, checked: throws a fault naming kernel, block, thread and instruction if not all of the
  // bytes are there or the address is not a multiple of `bytes` (a vector: of its whole size, up
  // to 16). `shared` takes addresses of the own block and, from mapa, of others of the cluster; it
  // tells the races of what happens now.
  std::byte* shared(uint32_t address, size_t bytes, const Instruction& instruction, int lane,
                    Access access);
  std::byte* global(uint64_t address, size_t bytes, const Instruction& instruction, int lane);
  // Any address: global, shared, local or of parameters.
  std::byte* generic(uint64_t address, size_t bytes, const Instruction& instruction, int lane);

  // Are the `bytes` at each of these addresses there and aligned, as far as can be told at once?
  // in_shared: distances in the own block's shared memory; else any other addresses.
  bool holds_all(bool in_shared, const uint64_t* addresses, size_t bytes, LaneMask active) const;

  [[noreturn]] void fault(const Instruction& instruction, int lane, std::string_view what);

  // Threads of `active` go on at `target`; others of the group behind the branch.
  void branch(uint32_t target, LaneMask active);
  // They go on behind the instruction, but not in this slice: what they asked for is not there yet.
  void yield(LaneMask active);
  // True once all `wanted` threads that live have come to this instruction and are in `active`;
  // else those here wait for them, and the handler has to return.
  bool together(LaneMask active, LaneMask wanted);
  // They go on behind the instruction once *counter is no longer `value`.
  void wait_while(const uint64_t* counter, uint64_t value, LaneMask active);
  void leave(LaneMask active);  // exit
  // Calls do not nest into themselves: a function keeps, for each thread, where it returns to.
  uint32_t place() const { return place_; }

  LaneMask carry = 0;  // of add.cc and its relatives; sub.cc: the borrow

  // Products of wgmma that are not done yet, oldest first, by committed batch.
  struct Deferred {
    std::vector<std::function<void()>> open;
    std::vector<std::vector<std::function<void()>>> committed;
  };
  Deferred products;
  ThreadCopies copies;  // cp.async
  ThreadCopies stores;  // bulk copies to global memory

  // Threads that have arrived at the cluster's barrier and not waited yet, and for each of them
  // whether the barrier's generation was odd.
  LaneMask cluster_arrived = 0;
  LaneMask cluster_parity = 0;

 private:
  struct Group {
    uint32_t place = 0;
    LaneMask lanes = 0;
    bool for_others = false;            // waits for threads of its warp
    bool yielded = false;               // until the next slice
    const uint64_t* counter = nullptr;  // waits while this is `value`
    uint64_t value = 0;
  };

  const std::byte* begin_of(const OwnMemory& own, int lane);
  bool pick();
  bool join_waiting();
  int execute(int slice);
  void detach(Group group);

  Block* block_ = nullptr;
  int index_ = 0;
  const Instruction* code_ = nullptr;
  LaneMask live_ = 0;
  uint32_t place_ = 0;  // of the running group
  LaneMask lanes_ = 0;
  uint32_t next_ = 0;          // least place, behind the running group's, of another one
  bool again_ = false;         // who runs has to be picked again
  std::vector<Group> groups_;  // the others
  std::byte* bank_[2] = {};
  std::array<Range, 64> known_;  // where accesses by generic and global addresses went, by place
  std::vector<std::byte> registers_, local_;
  size_t local_bytes_ = 0;
};

}  // namespace qnext::emulator
