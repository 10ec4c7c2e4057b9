// What the threads of a block share, and the blocks of a cluster one another's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "emulator/instruction.h"

namespace qnext::emulator {

class Races;
class Warp;
struct Block;

struct Size3 {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t{x} * y * z; }
};

enum class RaceCheck { none, fails, lists };

struct Launch {
  const Kernel* kernel = nullptr;
  Size3 grid, block, cluster;
  size_t dynamic_shared_bytes = 0;
  RaceCheck race_check = RaceCheck::none;
  std::vector<std::byte> parameters;  // as the kernel lays them out
};

// Where a thread that waits in bar.red finds the result: the register and what it asked for.
struct Voter {
  enum class Wants { any, all, count };
  Wants wants = Wants::any;
  uint32_t* result = nullptr;  // a predicate's mask, or the 32 values
  LaneMask lanes = 0;
};

// For Races: what those that have come to a barrier know, and who will know it.
struct Meeting {
  std::vector<uint32_t> known;
  std::vector<const Warp*> waiting;
};

// bar.sync: `generation` changes when all have come.
struct NamedBarrier {
  uint64_t generation = 0;
  uint32_t arrived = 0;   // threads
  uint32_t expected = 0;  // 0: all that have not left
  uint32_t votes = 0;     // of bar.red, of those that have arrived
  std::vector<Voter> voters;
  Meeting meeting;
};

struct Cluster {
  std::vector<Block*> blocks;  // by rank
  // barrier.cluster: threads that have arrived.
  uint64_t generation = 0;
  uint32_t arrived = 0;
  Meeting meeting;
  std::vector<uint32_t> known;  // for Races: to those that the last generation was of
};

// A copy that is on its way: done no later than somebody waits in vain for its barrier.
struct Pending {
  uint64_t* barrier = nullptr;
  std::function<void()> finish;  // moves the bytes and tells the barrier
};

struct Block {
  const Launch* launch = nullptr;
  const std::byte* parameters = nullptr;  // the launch's, 64-byte aligned
  Cluster* cluster = nullptr;
  Size3 index;                           // blockIdx
  uint32_t rank = 0;                     // in the cluster
  std::vector<std::byte> shared_memory;  // 1,024 bytes more than used, for alignment
  std::byte* shared = nullptr;           // aligned to 1,024
  size_t shared_bytes = 0;
  uint32_t threads = 0;       // of the block
  uint32_t live_threads = 0;  // that have not left
  std::array<NamedBarrier, 16> barriers;
  std::vector<Pending> pending;
  std::vector<Warp*> warps;
  // Not 0 once all earlier kernels have ended: griddepcontrol.wait.
  const uint64_t* earlier_ended = nullptr;
  bool lets_next_start = false;  // griddepcontrol.launch_dependents
  // Not 0 where threads go on behind that.
  const uint64_t* goes_on = nullptr;
  Races* races = nullptr;              // of its cluster; null: not looked for
  std::minstd_rand* random = nullptr;  // when a copy comes: the order of things that have none

  // Addresses of shared memory as mapa gives them: the block's rank + 1 in the top byte.
  static constexpr uint32_t rank_shift = 24;
};

}  // namespace qnext::emulator
