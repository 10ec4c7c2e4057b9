#include "emulator/races.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <set>
#include <string_view>
#include <tuple>

#include "base/error.h"
#include "emulator/instruction.h"
#include "emulator/mbarrier.h"
#include "emulator/warp.h"

namespace qnext::emulator {
namespace {

constexpr size_t widest_cell = 16;

void join(Races::Clock& to, const Races::Clock& from) {
  if (to.size() < from.size()) to.resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) to[i] = std::max(to[i], from[i]);
}

void join(Races::Clock& to, uint16_t actor, uint32_t tick) {
  if (to.size() <= actor) to.resize(size_t{actor} + 1);
  to[actor] = std::max(to[actor], tick);
}

std::string_view name_of(Access access) {
  switch (access) {
    case Access::read:
      return "read";
    case Access::atomic:
      return "atomic access";
    default:
      return "write";
  }
}

}  // namespace

void Races::start(const Cluster& cluster) {
  warps_a_block_ = cluster.blocks[0]->warps.size();
  barriers_.clear();
  barrier_words_.clear();
  has_atomics_ = false;
  for (std::vector<Note>& list : lists_) list.clear();
  free_lists_.resize(lists_.size());
  std::iota(free_lists_.begin(), free_lists_.end(), 1);
  free_parts_.resize(parts_.size());
  std::iota(free_parts_.begin(), free_parts_.end(), 1);
  blocks_.resize(cluster.blocks.size());
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block* block = cluster.blocks[i];
    blocks_[i].block = block;
    blocks_[i].cells.assign((block->shared_bytes + widest_cell - 1) / widest_cell, {});
  }
  const size_t warps = blocks_.size() * warps_a_block_;
  clocks_.assign(warps, Clock(warps));
  for (size_t i = 0; i < warps; ++i) clocks_[i][i] = 1;
}

// ---- who knows of what ----

uint16_t Races::actor_of(const Warp& warp) const {
  return static_cast<uint16_t>(warp.block().rank * warps_a_block_ +
                               static_cast<size_t>(warp.index()));
}

uint32_t Races::tick(uint16_t warp) {
  return ++clocks_[warp][warp];
}

void Races::give(const Warp& warp, Clock& to) {
  const uint16_t actor = actor_of(warp);
  join(to, clocks_[actor]);
  tick(actor);
}

void Races::take(const Warp& warp, const Clock& from) {
  join(clocks_[actor_of(warp)], from);
}

Races::Barrier& Races::barrier_at(const uint64_t* word) {
  const auto [found, is_new] = barriers_.try_emplace(word);
  if (is_new) {
    found->second.actor = static_cast<uint16_t>(clocks_.size() + barrier_words_.size());
    barrier_words_.push_back(word);
  }
  return found->second;
}

void Races::initialise(const uint64_t* word) {
  Barrier& barrier = barrier_at(word);
  barrier.pending.clear();
  barrier.done.clear();
}

void Races::arrive(const Warp& warp, const uint64_t* word) {
  give(warp, barrier_at(word).pending);
}

void Races::changed(const uint64_t* word, bool parity_before) {
  if (phase_parity(*word) == parity_before) return;
  Barrier& barrier = barrier_at(word);
  barrier.done = barrier.pending;
}

void Races::waited(const Warp& warp, const uint64_t* word) {
  take(warp, barrier_at(word).done);
}

Delayed::Delayed(const Warp& warp, const Instruction& instruction)
    : races_(warp.block().races), instruction_(&instruction) {
  if (races_ == nullptr) return;
  warp_ = actor_ = races_->actor_of(warp);
  known_ = std::make_shared<const Races::Clock>(races_->clocks_[warp_]);
  races_->tick(warp_);
}

void Delayed::happen(const uint64_t* word) {
  if (races_ == nullptr) return;
  if (word == nullptr) {
    tick_ = races_->tick(warp_);
    return;
  }
  Races::Barrier& barrier = races_->barrier_at(word);
  actor_ = barrier.actor;
  tick_ = ++barrier.tick;
  join(barrier.pending, *known_);
  join(barrier.pending, actor_, tick_);
}

// ---- bytes and their accesses ----

Races::BlockCells* Races::cells_at(const std::byte* at) {
  for (BlockCells& of : blocks_) {
    if (at >= of.block->shared && at < of.block->shared + of.block->shared_bytes) return &of;
  }
  return nullptr;
}

void Races::note(const Warp& warp, const Instruction& instruction, const std::byte* at,
                 size_t bytes, Access kind) {
  BlockCells* of = cells_at(at);
  if (of == nullptr) return;
  const uint16_t number = actor_of(warp);
  const Clock& known = clocks_[number];
  access(*of, static_cast<size_t>(at - of->block->shared), bytes,
         {number, known[number], &known, &instruction}, kind);
}

void Delayed::note_it(const std::byte* at, size_t bytes, Access access) const {
  Races::BlockCells* of = races_->cells_at(at);
  if (of == nullptr) return;
  races_->access(*of, static_cast<size_t>(at - of->block->shared), bytes,
                 {actor_, tick_, known_.get(), instruction_}, access);
}

void Races::access(BlockCells& of, size_t offset, size_t bytes, const Actor& actor, Access kind) {
  const size_t end = offset + bytes;
  has_atomics_ |= kind == Access::atomic;
  while (offset < end) {
    const size_t next = std::min(end, (offset / widest_cell + 1) * widest_cell);
    access(of.cells[offset / widest_cell], widest_cell, of, offset, next, actor, kind);
    offset = next;
  }
}

// Of bytes of the cell, which begins at a multiple of its own.
void Races::access(Cell& cell, size_t cell_bytes, const BlockCells& of, size_t offset, size_t end,
                   const Actor& actor, Access kind) {
  const bool is_all = end - offset == cell_bytes;
  if (is_all && cell.parts == 0) return access_all(cell, of, offset, actor, kind);
  if (cell.parts == 0) split(cell);
  const size_t part_bytes = cell_bytes / 4;
  for (size_t at = offset; at < end;) {
    const size_t next = std::min(end, (at / part_bytes + 1) * part_bytes);
    access(parts_[cell.parts - 1][at / part_bytes % 4], part_bytes, of, at, next, actor, kind);
    at = next;
  }
  if (!is_all || kind != Access::write) return;
  // All of it has the same history again.
  std::array<Cell, 4>& parts = parts_[cell.parts - 1];
  if (std::any_of(parts.begin(), parts.end(), [](const Cell& part) { return part.parts != 0; }))
    return;
  cell.write = parts[0].write;
  free_parts_.push_back(cell.parts);
  cell.parts = 0;
}

void Races::split(Cell& cell) {
  if (free_parts_.empty()) {
    parts_.emplace_back();
    free_parts_.push_back(static_cast<uint32_t>(parts_.size()));
  }
  cell.parts = free_parts_.back();
  free_parts_.pop_back();
  for (Cell& part : parts_[cell.parts - 1]) {
    part = {cell.write, cell.read, 0, 0};
    if (cell.more == 0) continue;
    for (const Note& note : std::vector<Note>(lists_[cell.more - 1])) list_of(part).push_back(note);
  }
  clear_reads(cell);
}

void Races::clear_reads(Cell& cell) {
  cell.read = {};
  if (cell.more == 0) return;
  lists_[cell.more - 1].clear();
  free_lists_.push_back(cell.more);
  cell.more = 0;
}

std::vector<Races::Note>& Races::list_of(Cell& cell) {
  if (cell.more == 0 && free_lists_.empty()) {
    lists_.emplace_back();
    free_lists_.push_back(static_cast<uint32_t>(lists_.size()));
  }
  if (cell.more == 0) {
    cell.more = free_lists_.back();
    free_lists_.pop_back();
  }
  return lists_[cell.more - 1];
}

void Races::access_all(Cell& cell, const BlockCells& of, size_t offset, const Actor& actor,
                       Access kind) {
  const auto is_again = [&](const Note& note) {
    return note.actor == actor.number && note.tick == actor.tick && note.access == kind;
  };
  if (is_again(kind == Access::write && cell.read.tick == 0 ? cell.write : cell.read)) return;
  const Kernel& kernel = *of.block->launch->kernel;
  const Note now{actor.tick, static_cast<uint32_t>(actor.instruction - kernel.code.data()),
                 actor.number, kind};
  const auto check = [&](const Note& note) {
    if (note.tick == 0 || (note.access == kind && kind != Access::write)) return;
    if (note.actor < actor.known->size() && (*actor.known)[note.actor] >= note.tick) return;
    report(of, offset, now, note);
  };
  check(cell.write);
  if (kind != Access::read || has_atomics_) {
    check(cell.read);
    if (cell.more != 0) {
      for (const Note& note : lists_[cell.more - 1]) check(note);
    }
  }
  if (kind != Access::write) return add_read(cell, actor, now);
  cell.write = now;
  clear_reads(cell);
}

// In place of the actor's own, or of one that those who know of this one know of, too.
void Races::add_read(Cell& cell, const Actor& actor, const Note& now) {
  const auto is_own = [&](const Note& note) {
    return note.actor == now.actor && note.access == now.access;
  };
  const auto is_known = [&](const Note& note) {
    return note.access == now.access && note.actor < actor.known->size() &&
           (*actor.known)[note.actor] >= note.tick;
  };
  if (cell.read.tick == 0 || is_own(cell.read)) {
    cell.read = now;
    return;
  }
  std::vector<Note>* list = cell.more == 0 ? nullptr : &lists_[cell.more - 1];
  if (list != nullptr) {
    const auto own = std::find_if(list->begin(), list->end(), is_own);
    if (own != list->end()) {
      *own = now;
      return;
    }
  }
  if (is_known(cell.read)) {
    cell.read = now;
    return;
  }
  if (list == nullptr) list = &list_of(cell);
  const auto known = std::find_if(list->begin(), list->end(), is_known);
  if (known != list->end())
    *known = now;
  else
    list->push_back(now);
}

// ---- messages ----

std::string Races::name_of(uint16_t actor) const {
  if (actor < clocks_.size())
    return fmt::format("warp {} of the cluster's block {}", actor % warps_a_block_,
                       actor / warps_a_block_);
  const auto* word = reinterpret_cast<const std::byte*>(barrier_words_[actor - clocks_.size()]);
  for (const BlockCells& of : blocks_) {
    if (word >= of.block->shared && word < of.block->shared + of.block->shared_bytes)
      return fmt::format("what the mbarrier at {} of the cluster's block {} counts",
                         word - of.block->shared, of.block->rank);
  }
  return "what an mbarrier counts";
}

void Races::report(const BlockCells& of, size_t offset, const Note& now, const Note& before) const {
  const Kernel& kernel = *of.block->launch->kernel;
  const auto describe = [&](const Note& note) {
    return fmt::format("{} by {} in line {} of its PTX ({})", emulator::name_of(note.access),
                       name_of(note.actor), kernel.code[note.place].line, kernel.lines[note.place]);
  };
  const Size3& at = of.block->index;
  const std::string text = fmt::format(
      "kernel {}, block ({}, {}, {}): a race for byte {} of its shared memory: {} and {}",
      kernel.name, at.x, at.y, at.z, offset, describe(before), describe(now));
  if (of.block->launch->race_check == RaceCheck::fails) fail("{}", text);
  static std::set<std::tuple<std::string, uint32_t, uint32_t>> listed;
  if (listed.emplace(kernel.name, before.place, now.place).second)
    fmt::print(stderr, "emulated GPU: {}\n", text);
}

}  // namespace qnext::emulator
