#include "emulator/warp.h"

#include <algorithm>

#include "base/error.h"
#include "emulator/alignment.h"
#include "emulator/barriers.h"
#include "emulator/device_memory.h"

namespace qnext::emulator {
namespace {

// By masks: std::has_single_bit is a call without popcnt, and a division is slower still.
bool is_misaligned(uint64_t address, size_t bytes) {
  if (bytes == 0 || (bytes & (bytes - 1)) != 0) return false;
  return (address & (std::min<size_t>(bytes, 16) - 1)) != 0;
}

}  // namespace

void Warp::start(Block& block, int index, int threads) {
  const Kernel& kernel = *block.launch->kernel;
  block_ = &block;
  index_ = index;
  live_ = threads == warp_size ? all_lanes : lane_bit(threads) - 1;
  code_ = kernel.code.data();
  place_ = 0;
  lanes_ = 0;
  groups_.assign(1, Group{0, live_});
  // Lines of 64 bytes, so that a register is in as few of them as can be.
  if (registers_.size() < kernel.register_bytes + 64) registers_.resize(kernel.register_bytes + 64);
  bank_[0] = first_aligned(registers_.data(), 64);
  bank_[1] = const_cast<std::byte*>(kernel.constants.data());
  local_bytes_ = kernel.local_bytes;
  local_.assign(local_bytes_ * warp_size, std::byte{0xFF});
  for (const OwnMemory& own : kernel.own_memory) {
    for (int lane = 0; lane < warp_size; ++lane)
      lanes<uint64_t>(own.address)[lane] = reinterpret_cast<uint64_t>(begin_of(own, lane));
  }
  products = {};
  copies = {};
  stores = {};
  cluster_arrived = 0;
  cluster_parity = 0;
  known_.fill({});
}

const std::byte* Warp::begin_of(const OwnMemory& own, int lane) {
  switch (own.where) {
    case OwnMemory::Where::registers:
      return bank_[0] + own.offset + static_cast<size_t>(lane) * own.bytes;
    case OwnMemory::Where::launch:
      return block_->parameters + own.offset;
    default:
      return local(lane) + own.offset;
  }
}

// ---- threads and their places ----

int Warp::run(int slice) {
  for (Group& group : groups_) group.yielded = false;
  int left = slice;
  while (left > 0 && pick()) {
    left = execute(left);
    if (lanes_ != 0) groups_.push_back({place_, lanes_});
    lanes_ = 0;
  }
  return slice - left;
}

int Warp::execute(int slice) {
  again_ = false;
  while (true) {
    const Instruction& instruction = code_[place_];
    LaneMask active = lanes_;
    if (instruction.guard != no_operand)
      active &= predicate(instruction.guard) ^ instruction.guard_flip;
    if (active != 0) instruction.handler(*this, instruction, active);
    --slice;
    if (lanes_ == 0) return slice;
    ++place_;
    if (again_ || place_ >= next_ || slice <= 0) return slice;
  }
}

// Makes the runnable group with the least place the running one, with all that are at its place.
bool Warp::pick() {
  const auto ready = [](const Group& group) {
    return !group.yielded && (group.counter == nullptr || *group.counter != group.value);
  };
  // A group that waits for threads of its warp is only taken up by others that come to its place.
  const Group* least = nullptr;
  for (const Group& group : groups_) {
    if (ready(group) && !group.for_others && (least == nullptr || group.place < least->place))
      least = &group;
  }
  if (least == nullptr && !join_waiting()) return false;
  if (least == nullptr) return pick();
  place_ = least->place;
  lanes_ = 0;
  next_ = ~uint32_t{0};
  for (const Group& group : groups_) {
    if (!ready(group)) continue;
    if (group.place == place_) lanes_ |= group.lanes;
    if (group.place > place_) next_ = std::min(next_, group.place);
  }
  std::erase_if(groups_, [&](const Group& group) { return ready(group) && group.place == place_; });
  return true;
}

// Groups that wait for each other at the same place, none of them able to run: together they may.
bool Warp::join_waiting() {
  for (Group& group : groups_) {
    if (!group.for_others) continue;
    for (const Group& other : groups_) {
      if (&other == &group || !other.for_others || other.place != group.place) continue;
      group.for_others = false;
      return true;
    }
  }
  return false;
}

void Warp::detach(Group group) {
  lanes_ &= ~group.lanes;
  groups_.push_back(group);
}

void Warp::branch(uint32_t target, LaneMask active) {
  if (active == lanes_) {
    again_ = target <= place_ && !groups_.empty();
    place_ = target - 1;  // one is added behind every instruction
    return;
  }
  detach({target, active});
  again_ = true;
}

void Warp::yield(LaneMask active) {
  Group group{place_ + 1, active};
  group.yielded = true;
  detach(group);
}

void Warp::wait_while(const uint64_t* counter, uint64_t value, LaneMask active) {
  Group group{place_ + 1, active};
  group.counter = counter;
  group.value = value;
  detach(group);
}

LaneMask Warp::waiting_for(const uint64_t* counter) const {
  LaneMask waiting = 0;
  for (const Group& group : groups_) waiting |= group.counter == counter ? group.lanes : 0;
  return waiting;
}

bool Warp::together(LaneMask active, LaneMask wanted) {
  const LaneMask needed = wanted & live_;
  if ((active & needed) == needed) return true;
  Group group{place_, active};
  group.for_others = true;
  detach(group);
  again_ = true;
  return false;
}

void Warp::leave(LaneMask active) {
  live_ &= ~active;
  lanes_ &= ~active;
  const auto count = static_cast<uint32_t>(std::popcount(active));
  block_->live_threads -= count;
  threads_left(*block_, count);
  for (Group& group : groups_) group.for_others = false;  // they look again whom they wait for
  again_ = true;
}

// ---- memory ----

std::byte* Warp::shared(uint32_t address, size_t bytes, const Instruction& instruction, int lane,
                        Access access) {
  const uint32_t rank = address >> Block::rank_shift;
  const uint32_t offset = address & ((uint32_t{1} << Block::rank_shift) - 1);
  Block* owner = block_;
  if (rank != 0) {
    if (rank > block_->cluster->blocks.size())
      fault(instruction, lane, "the address is of no block of the cluster");
    owner = block_->cluster->blocks[rank - 1];
  }
  if (offset > owner->shared_bytes || bytes > owner->shared_bytes - offset)
    fault(instruction, lane,
          fmt::format("{} bytes at {} of shared memory, which has {}", bytes, offset,
                      owner->shared_bytes));
  if (is_misaligned(offset, bytes))
    fault(instruction, lane, fmt::format("address {} of shared memory is not aligned", offset));
  std::byte* at = owner->shared + offset;
  if (block_->races != nullptr && access != Access::none)
    block_->races->note(*this, instruction, at, bytes, access);
  return at;
}

std::byte* Warp::global(uint64_t address, size_t bytes, const Instruction& instruction, int lane) {
  Range& known = known_[place_ % known_.size()];
  if (!known.holds(address, bytes)) {
    const auto found = device_memory().find(address, bytes);
    if (!found) {
      fault(
          instruction, lane,
          fmt::format("{} bytes at {:#x}: {}", bytes, address, device_memory().describe(address)));
    }
    known = *found;
  }
  if (is_misaligned(address, bytes))
    fault(instruction, lane, fmt::format("address {:#x} is not aligned", address));
  return reinterpret_cast<std::byte*>(address);
}

std::byte* Warp::generic(uint64_t address, size_t bytes, const Instruction& instruction, int lane) {
  const auto inside = [&](const std::byte* begin, size_t size) {
    const Range range{const_cast<std::byte*>(begin), size};
    if (!range.holds(address, bytes)) return false;
    known_[place_ % known_.size()] = range;
    return true;
  };
  const Kernel& kernel = *block_->launch->kernel;
  bool found = inside(block_->parameters, kernel.parameter_bytes) ||
               inside(local_.data(), local_.size()) || inside(bank_[0], kernel.register_bytes);
  for (const Block* block : block_->cluster->blocks)
    found = found || inside(block->shared, block->shared_bytes);
  if (found && !is_misaligned(address, bytes)) return reinterpret_cast<std::byte*>(address);
  return global(address, bytes, instruction, lane);
}

bool Warp::holds_all(bool in_shared, const uint64_t* addresses, size_t bytes,
                     LaneMask active) const {
  const Range own{nullptr, block_->shared_bytes};
  const Range& range = in_shared ? own : known_[place_ % known_.size()];
  if (bytes > range.bytes) return false;
  const auto begin = reinterpret_cast<uint64_t>(range.begin);
  const uint64_t last = range.bytes - bytes;
  uint64_t joined = 0;
  bool outside = false;
  for_lanes(active, [&](int lane) {
    joined |= addresses[lane];
    outside |= addresses[lane] - begin > last;
  });
  return !outside && !is_misaligned(joined, bytes);
}

void Warp::fault(const Instruction& instruction, int lane, std::string_view what) {
  const Kernel& kernel = *block_->launch->kernel;
  const auto place = static_cast<size_t>(&instruction - kernel.code.data());
  const Size3& at = block_->index;
  fail("kernel {}, block ({}, {}, {}), thread {}: {} in line {} of its PTX: {}", kernel.name, at.x,
       at.y, at.z, index_ * warp_size + lane, what, instruction.line, kernel.lines[place]);
}

std::string Warp::where() const {
  const Kernel& kernel = *block_->launch->kernel;
  std::string text;
  for (const Group& group : groups_) {
    const uint32_t place =
        group.counter != nullptr || group.yielded ? group.place - 1 : group.place;
    text += fmt::format("{}threads {:#010x} at \"{}\"", text.empty() ? "" : ", ", group.lanes,
                        kernel.lines[place]);
  }
  return text;
}

}  // namespace qnext::emulator
