// Finds accesses to shared memory that nothing orders, whatever order they happened to come in.
//
// Happens-before by vector clocks (Flanagan and Freund: FastTrack, PLDI 2009). Each warp of a
// cluster has a clock, and each mbarrier has one for the copies that it counts. Whoever hands on
// what it knows (an arrival) counts its own clock up; whoever waits takes over what was handed on.
// An access has to know of all earlier ones of the same byte that it does not commute with.
//
// What happens later than it is asked for (a copy, a product of wgmma) knows what its warp knew
// when it asked, and is known to those who know of the wait for it.
//
// Not seen: races between the lanes of a warp, which count as one; missing proxy fences; and scopes
// (an arrival of .cta scope orders blocks here). mbarriers themselves are not checked.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "emulator/block.h"

namespace qnext::emulator {

enum class Access : uint8_t { none, read, write, atomic };

// Of a cluster that runs.
class Races {
 public:
  // [actor]: the last of its ticks that is known; those behind the end: none.
  using Clock = std::vector<uint32_t>;

  void start(const Cluster& cluster);  // forgets another one

  // An access by a warp. Bytes that are not in shared memory are nothing to it. A race is an Error,
  // or a line of stderr.
  void note(const Warp& warp, const Instruction& instruction, const std::byte* at, size_t bytes,
            Access access);

  // What the warp knows goes to others; what it does from now on is not in it.
  void give(const Warp& warp, Clock& to);
  void take(const Warp& warp, const Clock& from);

  void initialise(const uint64_t* barrier);
  void arrive(const Warp& warp, const uint64_t* barrier);
  // The barrier's word has changed: is a phase over?
  void changed(const uint64_t* barrier, bool parity_before);
  void waited(const Warp& warp, const uint64_t* barrier);

 private:
  friend class Delayed;

  // Who accesses, and what it knows.
  struct Actor {
    uint16_t number = 0;
    uint32_t tick = 0;
    const Clock* known = nullptr;
    const Instruction* instruction = nullptr;
  };
  struct Note {
    uint32_t tick = 0;   // 0: none
    uint32_t place = 0;  // of the instruction
    uint16_t actor = 0;
    Access access = Access::none;
  };
  // 16 bytes, or 4, or one, as they are accessed.
  struct Cell {
    Note write;          // the last
    Note read;           // or atomic; since then, of those of which none knows of the other
    uint32_t more = 0;   // such reads: lists_[more - 1]
    uint32_t parts = 0;  // parts_[parts - 1] has each quarter's, and this has nothing
  };
  struct BlockCells {
    const Block* block = nullptr;
    std::vector<Cell> cells;
  };
  struct Barrier {
    uint16_t actor = 0;
    uint32_t tick = 0;
    Clock pending, done;  // of the phase that is not over, of the one before
  };

  uint16_t actor_of(const Warp& warp) const;
  uint32_t tick(uint16_t warp);  // counts its clock up
  Barrier& barrier_at(const uint64_t* word);
  BlockCells* cells_at(const std::byte* at);
  void access(BlockCells& of, size_t offset, size_t bytes, const Actor& actor, Access access);
  void access(Cell& cell, size_t cell_bytes, const BlockCells& of, size_t offset, size_t end,
              const Actor& actor, Access access);
  void access_all(Cell& cell, const BlockCells& of, size_t offset, const Actor& actor,
                  Access access);
  void add_read(Cell& cell, const Actor& actor, const Note& note);
  void split(Cell& cell);
  void clear_reads(Cell& cell);
  std::vector<Note>& list_of(Cell& cell);
  std::string name_of(uint16_t actor) const;
  void report(const BlockCells& of, size_t offset, const Note& now, const Note& before) const;

  std::vector<BlockCells> blocks_;  // by rank
  size_t warps_a_block_ = 0;
  std::vector<Clock> clocks_;  // of the warps, which are the first actors
  std::unordered_map<const uint64_t*, Barrier> barriers_;
  std::vector<const uint64_t*> barrier_words_;  // by actor, behind the warps
  bool has_atomics_ = false;
  std::vector<std::vector<Note>> lists_;
  std::deque<std::array<Cell, 4>> parts_;
  std::vector<uint32_t> free_lists_, free_parts_;
};

// What a warp has asked for now and what happens later.
class Delayed {
 public:
  Delayed() = default;  // races are not looked for
  Delayed(const Warp& warp, const Instruction& instruction);

  // It happens now, in the name of the mbarrier; or, without one, of the warp that waits for it.
  void happen(const uint64_t* barrier = nullptr);
  void note(const std::byte* at, size_t bytes, Access access) const {
    if (races_ != nullptr) note_it(at, bytes, access);
  }
  explicit operator bool() const { return races_ != nullptr; }

 private:
  void note_it(const std::byte* at, size_t bytes, Access access) const;

  Races* races_ = nullptr;
  const Instruction* instruction_ = nullptr;
  uint16_t warp_ = 0, actor_ = 0;
  uint32_t tick_ = 0;
  std::shared_ptr<const Races::Clock> known_;
};

}  // namespace qnext::emulator
