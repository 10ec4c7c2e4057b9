// cp.async: copies of 4 to 16 bytes by each thread, in groups of the thread's; and what all copies
// share. Bulk copies are in bulk_copies.cpp, boxes of tensors in tensor_copies.cpp.
#include "emulator/copies.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "emulator/bulk_copies.h"
#include "emulator/immediate.h"
#include "emulator/mbarrier.h"
#include "emulator/warp.h"

namespace qnext::emulator {
namespace {

// by_barrier: it was an mbarrier that waited.
void copy(const ThreadCopies::Copy& copy, bool by_barrier) {
  if (copy.delayed) {
    Delayed delayed = copy.delayed;
    delayed.happen(by_barrier ? copy.barrier : nullptr);
    delayed.note(copy.to, copy.bytes + copy.zeros, Access::write);
    delayed.note(copy.from, copy.bytes, Access::read);
  }
  if (copy.bytes != 0) std::memcpy(copy.to, copy.from, copy.bytes);
  if (copy.zeros != 0) std::memset(copy.to + copy.bytes, 0, copy.zeros);
}

// Does those for which `due` says so.
template <typename Due>
void finish_if(std::vector<ThreadCopies::Copy>& waiting, bool by_barrier, Due&& due) {
  std::erase_if(waiting, [&](const ThreadCopies::Copy& one) {
    if (!due(one)) return false;
    copy(one, by_barrier);
    return true;
  });
}

}  // namespace

void ThreadCopies::add(const Copy& one, bool at_once) {
  // Races look at a copy when it is waited for.
  if (at_once && !one.delayed) return copy(one, false);
  waiting.push_back(one);
  waiting.back().group = groups[static_cast<size_t>(one.lane)];
  waiting.back().number = issued++;
}

void ThreadCopies::commit(LaneMask active) {
  for_lanes(active, [&](int lane) { ++groups[static_cast<size_t>(lane)]; });
}

void ThreadCopies::wait(LaneMask active, uint32_t latest) {
  finish_if(waiting, false, [&](const Copy& one) {
    return (active & lane_bit(one.lane)) != 0 &&
           one.group + latest < groups[static_cast<size_t>(one.lane)];
  });
}

void ThreadCopies::wait_by(LaneMask active, const uint64_t* barrier) {
  for (Copy& one : waiting) {
    if ((active & lane_bit(one.lane)) != 0 && one.barrier == nullptr) one.barrier = barrier;
  }
}

void ThreadCopies::finish(LaneMask active, uint64_t end) {
  finish_if(waiting, true, [&](const Copy& one) {
    return (active & lane_bit(one.lane)) != 0 && one.number < end;
  });
}

Block& block_of(Warp& warp, uint32_t address) {
  const uint32_t rank = address >> Block::rank_shift;
  return rank == 0 ? warp.block() : *warp.block().cluster->blocks.at(rank - 1);
}

BarrierPlace find_barrier(Warp& warp, uint32_t address, const Instruction& instruction, int lane) {
  auto* word = reinterpret_cast<uint64_t*>(
      warp.shared(address, sizeof(uint64_t), instruction, lane, Access::none));
  if (const Mistake mistake = check(*word); !mistake.empty())
    warp.fault(instruction, lane, mistake);
  return {word, &block_of(warp, address)};
}

void copy_behind(Warp& warp, const Instruction& instruction, int lane, BarrierPlace barrier,
                 uint32_t bytes, std::function<void()> copy) {
  std::function<void()> finish = [&warp, &instruction, lane, barrier, bytes,
                                  copy = std::move(copy)] {
    copy();
    const bool parity = phase_parity(*barrier.word);
    if (const Mistake mistake = complete(*barrier.word, bytes); !mistake.empty())
      warp.fault(instruction, lane, mistake);
    if (Races* races = barrier.owner->races) races->changed(barrier.word, parity);
  };
  if (comes_at_once(warp.block())) return finish();
  barrier.owner->pending.push_back({barrier.word, std::move(finish)});
}

bool finish_one(BarrierPlace barrier) {
  std::vector<Pending>& pending = barrier.owner->pending;
  const auto is_of = [&](const Pending& one) { return one.barrier == barrier.word; };
  const auto count = std::count_if(pending.begin(), pending.end(), is_of);
  if (count == 0) return false;
  auto left = (*barrier.owner->random)() % static_cast<unsigned long>(count);
  auto chosen = std::find_if(pending.begin(), pending.end(), is_of);
  for (; left != 0; --left) chosen = std::find_if(chosen + 1, pending.end(), is_of);
  const Pending one = std::move(*chosen);
  pending.erase(chosen);
  one.finish();
  return true;
}

namespace {

// ---- cp.async ----

// operands: address in shared memory, in global memory, bytes of it (the rest is zeros).
// detail[0]: bytes. detail[1], offset: what is added to the addresses.
void copy_small(Warp& warp, const Instruction& instruction, LaneMask active) {
  const uint32_t* to = warp.lanes<uint32_t>(instruction.operands[0]);
  const uint64_t* from = warp.lanes<uint64_t>(instruction.operands[1]);
  const uint32_t* given = warp.lanes<uint32_t>(instruction.operands[2]);
  const auto bytes = static_cast<size_t>(instruction.detail[0]);
  const bool at_once = comes_at_once(warp.block());
  const Delayed delayed(warp, instruction);
  for_lanes(active, [&](int lane) {
    ThreadCopies::Copy one;
    one.lane = lane;
    one.to = warp.shared(to[lane] + static_cast<uint32_t>(instruction.detail[1]), bytes,
                         instruction, lane, Access::none);
    one.delayed = delayed;
    one.bytes = given[lane];
    if (one.bytes > bytes) warp.fault(instruction, lane, "the source has more bytes than the copy");
    one.zeros = bytes - one.bytes;
    const uint64_t address = from[lane] + static_cast<uint64_t>(instruction.offset);
    if (address % bytes != 0) warp.fault(instruction, lane, "the source is not aligned");
    if (one.bytes != 0) one.from = warp.global(address, one.bytes, instruction, lane);
    warp.copies.add(one, at_once);
  });
}

void commit_group(Warp& warp, const Instruction&, LaneMask active) {
  warp.copies.commit(active);
}

// detail[0]: groups that may still run.
void wait_group(Warp& warp, const Instruction& instruction, LaneMask active) {
  warp.copies.wait(active, static_cast<uint32_t>(instruction.detail[0]));
}

void wait_all(Warp& warp, const Instruction&, LaneMask active) {
  warp.copies.commit(active);
  warp.copies.wait(active, 0);
}

// cp.async.mbarrier.arrive.noinc: of each thread, once its copies so far are done.
void arrive_behind(Warp& warp, const Instruction& instruction, LaneMask active) {
  const uint32_t* addresses = warp.lanes<uint32_t>(instruction.operands[0]);
  const uint64_t end = warp.copies.issued;
  while (active != 0) {
    // Threads with one barrier arrive together.
    const int first = std::countr_zero(active);
    LaneMask same = 0;
    for_lanes(active,
              [&](int lane) { same |= addresses[lane] == addresses[first] ? lane_bit(lane) : 0; });
    active &= ~same;
    const uint32_t address = addresses[first] + static_cast<uint32_t>(instruction.offset);
    const BarrierPlace barrier = find_barrier(warp, address, instruction, first);
    const auto count = static_cast<uint32_t>(std::popcount(same));
    warp.copies.wait_by(same, barrier.word);
    const Delayed delayed(warp, instruction);
    const auto finish = [&warp, &instruction, barrier, same, count, end, delayed] {
      warp.copies.finish(same, end);
      Delayed(delayed).happen(barrier.word);
      const bool parity = phase_parity(*barrier.word);
      if (const Mistake mistake = arrive(*barrier.word, count); !mistake.empty())
        warp.fault(instruction, std::countr_zero(same), mistake);
      if (Races* races = barrier.owner->races) races->changed(barrier.word, parity);
    };
    if (comes_at_once(warp.block()))
      finish();
    else
      barrier.owner->pending.push_back({barrier.word, finish});
  }
}

void decode_small_copy(const Statement& statement, Names& names, Instruction& instruction) {
  const auto& arguments = statement.arguments;
  const bool has_policy = statement.has("L2::cache_hint");
  const size_t sizes = arguments.size() - (has_policy ? 1 : 0);
  if (arguments.size() < 3 || sizes > 4) names.refuse("so many operands are not known here");
  instruction.handler = copy_small;
  instruction.operands[0] = names.source(arguments[0].text, Type::b32);
  instruction.operands[1] = names.source(arguments[1].text, Type::b64);
  instruction.detail[0] = immediate(arguments[2].text, names);
  instruction.detail[1] = static_cast<int32_t>(arguments[0].offset);
  instruction.offset = arguments[1].offset;
  const Argument& given = arguments[sizes == 4 ? 3 : 2];
  if (names.width(given.text) == 1) names.refuse("a predicate for the source is not known here");
  instruction.operands[2] = names.source(given.text, Type::b32);
  const int32_t bytes = instruction.detail[0];
  if (bytes != 16 && (statement.has("cg") || (bytes != 4 && bytes != 8)))
    names.refuse("a copy of so many bytes is not known here");
}

// cp.async. ...
void decode_copy(const Statement& statement, Names& names, Instruction& instruction) {
  const auto& parts = statement.parts;
  if (parts.size() < 3 || parts[1] != "async") return names.refuse("only cp.async is known here");
  if (parts[2] == "bulk") return decode_bulk_copy(statement, names, instruction);
  if (parts[2] == "ca" || parts[2] == "cg") return decode_small_copy(statement, names, instruction);
  if (parts[2] == "commit_group") {
    instruction.handler = commit_group;
  } else if (parts[2] == "wait_all") {
    instruction.handler = wait_all;
  } else if (parts[2] == "wait_group") {
    instruction.handler = wait_group;
    instruction.detail[0] = immediate(statement.arguments.at(0).text, names);
  } else if (parts[2] == "mbarrier" && statement.has("noinc")) {
    instruction.handler = arrive_behind;
    instruction.operands[0] = names.source(statement.arguments.at(0).text, Type::b32);
    instruction.offset = statement.arguments[0].offset;
  } else {
    names.refuse("this form of cp.async is not known here");
  }
}

// ---- createpolicy ----

void make_policy(Warp& warp, const Instruction& instruction, LaneMask active) {
  uint64_t* policy = warp.lanes<uint64_t>(instruction.operands[0]);
  for_lanes(active, [&](int lane) { policy[lane] = 0; });
}

// What stays in a cache is nothing that results depend on.
void decode_policy(const Statement& statement, Names& names, Instruction& instruction) {
  instruction.handler = make_policy;
  instruction.operands[0] = names.destination(statement.arguments.at(0), Type::b64);
}

}  // namespace

const Decoders& copy_decoders() {
  static const Decoders decoders = {{"cp", decode_copy}, {"createpolicy", decode_policy}};
  return decoders;
}

}  // namespace qnext::emulator
