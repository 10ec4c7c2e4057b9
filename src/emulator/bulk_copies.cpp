#include "emulator/bulk_copies.h"

#include <cstring>

#include "emulator/copies.h"
#include "emulator/immediate.h"
#include "emulator/warp.h"

namespace qnext::emulator {
namespace {

void check_multiple(Warp& warp, const Instruction& instruction, int lane, uint64_t global,
                    uint64_t shared, uint64_t bytes) {
  if ((global | shared | bytes) % 16 != 0)
    warp.fault(instruction, lane, "addresses and bytes of a bulk copy are multiples of 16");
}

// operands: address in shared memory, in global memory, bytes, barrier. detail[0 to 1], offset:
// what is added to the addresses of shared memory, of the barrier, of global memory.
void copy_in(Warp& warp, const Instruction& instruction, LaneMask active) {
  const uint32_t* to = warp.lanes<uint32_t>(instruction.operands[0]);
  const uint64_t* from = warp.lanes<uint64_t>(instruction.operands[1]);
  const uint32_t* count = warp.lanes<uint32_t>(instruction.operands[2]);
  const uint32_t* barriers = warp.lanes<uint32_t>(instruction.operands[3]);
  for_lanes(active, [&](int lane) {
    const uint32_t shared = to[lane] + static_cast<uint32_t>(instruction.detail[0]);
    const uint64_t global = from[lane] + static_cast<uint64_t>(instruction.offset);
    const uint32_t bytes = count[lane];
    if (bytes == 0) return;
    check_multiple(warp, instruction, lane, global, shared, bytes);
    const BarrierPlace barrier = find_barrier(
        warp, barriers[lane] + static_cast<uint32_t>(instruction.detail[1]), instruction, lane);
    std::byte* target = warp.shared(shared, bytes, instruction, lane, Access::none);
    const std::byte* source = warp.global(global, bytes, instruction, lane);
    if (&block_of(warp, shared) != barrier.owner)
      warp.fault(instruction, lane, "the barrier is in another block than the bytes");
    Delayed delayed(warp, instruction);
    copy_behind(warp, instruction, lane, barrier, bytes,
                [target, source, bytes, barrier, delayed]() mutable {
                  delayed.happen(barrier.word);
                  delayed.note(target, bytes, Access::write);
                  std::memcpy(target, source, bytes);
                });
  });
}

// operands: address in global memory, in shared memory, bytes. detail[0], offset: what is added to
// that of shared memory, of global memory.
void copy_out(Warp& warp, const Instruction& instruction, LaneMask active) {
  const uint64_t* to = warp.lanes<uint64_t>(instruction.operands[0]);
  const uint32_t* from = warp.lanes<uint32_t>(instruction.operands[1]);
  const uint32_t* count = warp.lanes<uint32_t>(instruction.operands[2]);
  for_lanes(active, [&](int lane) {
    const uint64_t global = to[lane] + static_cast<uint64_t>(instruction.offset);
    const uint32_t shared = from[lane] + static_cast<uint32_t>(instruction.detail[0]);
    const uint32_t bytes = count[lane];
    if (bytes == 0) return;
    check_multiple(warp, instruction, lane, global, shared, bytes);
    ThreadCopies::Copy one;
    one.lane = lane;
    one.to = warp.global(global, bytes, instruction, lane);
    one.from = warp.shared(shared, bytes, instruction, lane, Access::none);
    one.delayed = Delayed(warp, instruction);
    one.bytes = bytes;
    warp.stores.add(one, comes_at_once(warp.block()));
  });
}

void commit_group(Warp& warp, const Instruction&, LaneMask active) {
  warp.stores.commit(active);
}

// Bytes that have been read have been written, too. detail[0]: groups that may still run.
void wait_group(Warp& warp, const Instruction& instruction, LaneMask active) {
  warp.stores.wait(active, static_cast<uint32_t>(instruction.detail[0]));
}

// operands: address in global memory, bytes.
void prefetch(Warp& warp, const Instruction& instruction, LaneMask active) {
  const uint64_t* from = warp.lanes<uint64_t>(instruction.operands[0]);
  const uint32_t* count = warp.lanes<uint32_t>(instruction.operands[1]);
  for_lanes(active, [&](int lane) {
    const uint64_t global = from[lane] + static_cast<uint64_t>(instruction.offset);
    check_multiple(warp, instruction, lane, global, 0, count[lane]);
    if (count[lane] != 0) warp.global(global, count[lane], instruction, lane);
  });
}

void decode_copy_in(const Statement& statement, Names& names, Instruction& instruction) {
  const auto& arguments = statement.arguments;
  const size_t wanted = statement.has("L2::cache_hint") ? 5 : 4;
  if (arguments.size() != wanted) names.refuse("so many operands are not known here");
  instruction.handler = copy_in;
  instruction.operands[0] = names.source(arguments[0].text, Type::b32);
  instruction.operands[1] = names.source(arguments[1].text, Type::b64);
  instruction.operands[2] = names.source(arguments[2].text, Type::b32);
  instruction.operands[3] = names.source(arguments[3].text, Type::b32);
  instruction.detail[0] = static_cast<int32_t>(arguments[0].offset);
  instruction.offset = arguments[1].offset;
  instruction.detail[1] = static_cast<int32_t>(arguments[3].offset);
}

void decode_copy_out(const Statement& statement, Names& names, Instruction& instruction) {
  const auto& arguments = statement.arguments;
  const size_t wanted = statement.has("L2::cache_hint") ? 4 : 3;
  if (arguments.size() != wanted) names.refuse("so many operands are not known here");
  instruction.handler = copy_out;
  instruction.operands[0] = names.source(arguments[0].text, Type::b64);
  instruction.operands[1] = names.source(arguments[1].text, Type::b32);
  instruction.operands[2] = names.source(arguments[2].text, Type::b32);
  instruction.offset = arguments[0].offset;
  instruction.detail[0] = static_cast<int32_t>(arguments[1].offset);
}

void decode_prefetch(const Statement& statement, Names& names, Instruction& instruction) {
  instruction.handler = prefetch;
  instruction.operands[0] = names.source(statement.arguments.at(0).text, Type::b64);
  instruction.operands[1] = names.source(statement.arguments.at(1).text, Type::b32);
  instruction.offset = statement.arguments[0].offset;
}

void decode_wait(const Statement& statement, Names& names, Instruction& instruction) {
  instruction.handler = wait_group;
  instruction.detail[0] = immediate(statement.arguments.at(0).text, names);
}

}  // namespace

void decode_bulk_copy(const Statement& statement, Names& names, Instruction& instruction) {
  const std::string_view what = statement.parts.size() > 3 ? statement.parts[3] : "";
  if (statement.has("multicast::cluster")) names.refuse("copies to many blocks are not known here");
  if (what == "tensor") return decode_tensor_copy(statement, names, instruction);
  if (what == "prefetch" && !statement.has("tensor"))
    return decode_prefetch(statement, names, instruction);
  if (what == "commit_group") {
    instruction.handler = commit_group;
    return;
  }
  if (what == "wait_group") return decode_wait(statement, names, instruction);
  if (what == "global" && statement.has("shared::cta") && statement.has("bulk_group"))
    return decode_copy_out(statement, names, instruction);
  if ((what == "shared::cluster" || what == "shared::cta") && statement.has("global") &&
      statement.has("mbarrier::complete_tx::bytes"))
    return decode_copy_in(statement, names, instruction);
  names.refuse("this form of cp.async.bulk is not known here");
}

}  // namespace qnext::emulator
