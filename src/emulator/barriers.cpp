// bar and barrier: threads of a block and of a cluster that wait for each other. mbarriers are in
// mbarrier_waits.cpp; waits for earlier kernels, and fences, which order nothing that is out of
// order here, at the end.
#include "emulator/barriers.h"

#include <bit>

#include "emulator/mbarrier_waits.h"
#include "emulator/races.h"
#include "emulator/statement.h"
#include "emulator/warp.h"

namespace qnext::emulator {
namespace {

// ---- named barriers ----

uint32_t result_of(const Voter& voter, const NamedBarrier& barrier) {
  if (voter.wants == Voter::Wants::count) return barrier.votes;
  const bool holds =
      voter.wants == Voter::Wants::any ? barrier.votes != 0 : barrier.votes == barrier.arrived;
  return holds ? 1 : 0;
}

// Those that wait know what all know that have come.
void tell(Races* races, const Meeting& meeting) {
  if (races == nullptr) return;
  for (const Warp* warp : meeting.waiting) races->take(*warp, meeting.known);
}

// All have come: those that wait go on.
void open(NamedBarrier& barrier, const Block& block) {
  tell(block.races, barrier.meeting);
  for (const Voter& voter : barrier.voters) {
    const uint32_t result = result_of(voter, barrier);
    if (voter.wants == Voter::Wants::count)
      for_lanes(voter.lanes, [&](int lane) { voter.result[lane] = result; });
    else
      *voter.result = (*voter.result & ~voter.lanes) | (result != 0 ? voter.lanes : 0);
  }
  const uint64_t generation = barrier.generation + 1;
  barrier = {};
  barrier.generation = generation;
}

bool is_full(const NamedBarrier& barrier, const Block& block) {
  const uint32_t expected = barrier.expected != 0 ? barrier.expected : block.live_threads;
  return barrier.arrived != 0 && barrier.arrived >= expected;
}

// operands[0 to 1]: barrier, count of threads if there is one. detail[0]: whether whole warps come.
enum BarrierOperand { barrier_number, barrier_count, barrier_result, barrier_vote };
enum BarrierDetail { barrier_aligned, barrier_flip, barrier_wants };

// nullptr: the threads wait for others of their warp first.
NamedBarrier* come(Warp& warp, const Instruction& instruction, LaneMask active) {
  const bool aligned = instruction.detail[barrier_aligned] != 0;
  if (aligned && !warp.together(active, all_lanes)) return nullptr;
  const int first = std::countr_zero(active);
  const uint32_t number = warp.lanes<uint32_t>(instruction.operands[barrier_number])[first];
  Block& block = warp.block();
  if (number >= block.barriers.size())
    warp.fault(instruction, first, "barriers have numbers up to 15");
  NamedBarrier& barrier = block.barriers[number];
  const bool counts = instruction.operands[barrier_count] != no_operand;
  const uint32_t expected =
      counts ? warp.lanes<uint32_t>(instruction.operands[barrier_count])[first] : 0;
  if (counts && (expected == 0 || expected % warp_size != 0))
    warp.fault(instruction, first, "a barrier's threads are a multiple of 32");
  if (barrier.arrived != 0 && barrier.expected != expected)
    warp.fault(instruction, first, "others wait at this barrier for another count of threads");
  barrier.expected = expected;
  // A barrier with a count counts warps, whole or not.
  barrier.arrived +=
      aligned && counts ? uint32_t{warp_size} : static_cast<uint32_t>(std::popcount(active));
  if (barrier.arrived > (counts ? expected : block.live_threads))
    warp.fault(instruction, first, "more threads than the barrier waits for");
  if (block.races != nullptr) block.races->give(warp, barrier.meeting.known);
  return &barrier;
}

void open_or_wait(Warp& warp, NamedBarrier& barrier, LaneMask active) {
  if (warp.block().races != nullptr) barrier.meeting.waiting.push_back(&warp);
  if (is_full(barrier, warp.block()))
    open(barrier, warp.block());
  else
    warp.wait_while(&barrier.generation, barrier.generation, active);
}

void sync(Warp& warp, const Instruction& instruction, LaneMask active) {
  if (NamedBarrier* barrier = come(warp, instruction, active)) open_or_wait(warp, *barrier, active);
}

void arrive(Warp& warp, const Instruction& instruction, LaneMask active) {
  NamedBarrier* barrier = come(warp, instruction, active);
  if (barrier != nullptr && is_full(*barrier, warp.block())) open(*barrier, warp.block());
}

void reduce(Warp& warp, const Instruction& instruction, LaneMask active) {
  NamedBarrier* barrier = come(warp, instruction, active);
  if (barrier == nullptr) return;
  const LaneMask votes = warp.predicate(instruction.operands[barrier_vote]) ^
                         static_cast<LaneMask>(instruction.detail[barrier_flip]);
  barrier->votes += static_cast<uint32_t>(std::popcount(votes & active));
  barrier->voters.push_back({static_cast<Voter::Wants>(instruction.detail[barrier_wants]),
                             warp.lanes<uint32_t>(instruction.operands[barrier_result]), active});
  open_or_wait(warp, *barrier, active);
}

// operands[0]: threads of the warp.
void sync_warp(Warp& warp, const Instruction& instruction, LaneMask active) {
  const uint32_t* wanted = warp.lanes<uint32_t>(instruction.operands[0]);
  warp.together(active, wanted[std::countr_zero(active)]);
}

// ---- the barrier of a cluster ----

void open_if_full(Cluster& cluster) {
  uint32_t live = 0;
  for (const Block* block : cluster.blocks) live += block->live_threads;
  if (cluster.arrived == 0 || cluster.arrived < live) return;
  cluster.arrived = 0;
  ++cluster.generation;
  tell(cluster.blocks[0]->races, cluster.meeting);
  cluster.known = std::move(cluster.meeting.known);
  cluster.meeting = {};
}

// detail[0 to 1]: whether whole warps come, whether others shall see what they did before.
void arrive_at_cluster(Warp& warp, const Instruction& instruction, LaneMask active) {
  if (instruction.detail[0] != 0 && !warp.together(active, all_lanes)) return;
  if ((warp.cluster_arrived & active) != 0)
    warp.fault(instruction, std::countr_zero(warp.cluster_arrived & active),
               "the thread arrives again without having waited");
  Cluster& cluster = *warp.block().cluster;
  warp.cluster_arrived |= active;
  warp.cluster_parity =
      (warp.cluster_parity & ~active) | ((cluster.generation & 1) != 0 ? active : 0);
  cluster.arrived += static_cast<uint32_t>(std::popcount(active));
  if (Races* races = warp.block().races; races != nullptr && instruction.detail[1] != 0)
    races->give(warp, cluster.meeting.known);
  open_if_full(cluster);
}

void wait_for_cluster(Warp& warp, const Instruction& instruction, LaneMask active) {
  if (instruction.detail[0] != 0 && !warp.together(active, all_lanes)) return;
  if ((active & ~warp.cluster_arrived) != 0)
    warp.fault(instruction, std::countr_zero(active & ~warp.cluster_arrived),
               "the thread waits without having arrived");
  Cluster& cluster = *warp.block().cluster;
  warp.cluster_arrived &= ~active;
  // Its generation has been the same since, or is the next: it needs these threads for one more.
  const LaneMask same =
      active & ((cluster.generation & 1) != 0 ? warp.cluster_parity : ~warp.cluster_parity);
  if (same != 0) warp.wait_while(&cluster.generation, cluster.generation, same);
  Races* races = warp.block().races;
  if (races == nullptr) return;
  if (same != 0)
    cluster.meeting.waiting.push_back(&warp);
  else
    races->take(warp, cluster.known);
}

// ---- decoders ----

void decode_cluster(const Statement& statement, Names& names, Instruction& instruction) {
  if (statement.has("arrive"))
    instruction.handler = arrive_at_cluster;
  else if (statement.has("wait"))
    instruction.handler = wait_for_cluster;
  else
    names.refuse("this form of barrier.cluster is not known here");
  instruction.detail[0] = statement.has("aligned") ? 1 : 0;
  instruction.detail[1] = statement.has("relaxed") ? 0 : 1;
}

// bar.red.or.pred p, a{, b}, {!}q
void decode_reduction(const Statement& statement, Names& names, Instruction& instruction) {
  const auto& arguments = statement.arguments;
  const bool counts = statement.has("popc");
  if (arguments.size() < 3) names.refuse("operands are missing");
  instruction.handler = reduce;
  instruction.operands[barrier_result] =
      names.destination(arguments[0], counts ? Type::u32 : Type::pred);
  instruction.operands[barrier_number] = names.source(arguments[1], Type::b32);
  if (arguments.size() > 3)
    instruction.operands[barrier_count] = names.source(arguments[2], Type::b32);
  instruction.operands[barrier_vote] =
      source_predicate(arguments.back().text, names, instruction.detail[barrier_flip]);
  if (!counts && !statement.has("or") && !statement.has("and"))
    names.refuse("this reduction is not known here");
  instruction.detail[barrier_wants] =
      static_cast<int32_t>(counts                ? Voter::Wants::count
                           : statement.has("or") ? Voter::Wants::any
                                                 : Voter::Wants::all);
}

// bar (its warps come as a whole) and barrier
void decode_barrier(const Statement& statement, Names& names, Instruction& instruction) {
  if (statement.has("cluster")) return decode_cluster(statement, names, instruction);
  if (statement.has("warp")) {
    instruction.handler = sync_warp;
    instruction.operands[0] = names.source(statement.arguments.at(0), Type::b32);
    return;
  }
  instruction.detail[barrier_aligned] =
      statement.parts[0] == "bar" || statement.has("aligned") ? 1 : 0;
  if (statement.has("red")) return decode_reduction(statement, names, instruction);
  if (!statement.has("sync") && !statement.has("arrive"))
    names.refuse("this form of a barrier is not known here");
  instruction.handler = statement.has("sync") ? sync : arrive;
  instruction.operands[barrier_number] = names.source(statement.arguments.at(0), Type::b32);
  if (statement.arguments.size() > 1)
    instruction.operands[barrier_count] = names.source(statement.arguments[1], Type::b32);
  else if (statement.has("arrive"))
    names.refuse("an arrival has a count of threads");
}

void do_nothing(Warp&, const Instruction&, LaneMask) {}

// Memory is written in the order of instructions.
void decode_nothing(const Statement&, Names&, Instruction& instruction) {
  instruction.handler = do_nothing;
}

void wait_for_earlier(Warp& warp, const Instruction&, LaneMask active) {
  const uint64_t* ended = warp.block().earlier_ended;
  if (*ended == 0) warp.wait_while(ended, 0, active);
}

// The first thread of a block speaks for it: the earliest that it can be.
void let_next_start(Warp& warp, const Instruction&, LaneMask active) {
  Block& block = warp.block();
  block.lets_next_start = true;
  if (*block.goes_on == 0) warp.wait_while(block.goes_on, 0, active);
}

void decode_grid_control(const Statement& statement, Names& names, Instruction& instruction) {
  if (statement.has("wait"))
    instruction.handler = wait_for_earlier;
  else if (statement.has("launch_dependents"))
    instruction.handler = let_next_start;
  else
    names.refuse("this form of griddepcontrol is not known here");
}

void sleep(Warp& warp, const Instruction&, LaneMask active) {
  warp.yield(active);
}

void decode_sleep(const Statement&, Names&, Instruction& instruction) {
  instruction.handler = sleep;
}

}  // namespace

void threads_left(Block& block, uint32_t count) {
  if (count == 0) return;
  for (NamedBarrier& barrier : block.barriers) {
    if (barrier.expected == 0 && is_full(barrier, block)) open(barrier, block);
  }
  open_if_full(*block.cluster);
}

const Decoders& barrier_decoders() {
  static const Decoders decoders = {
      {"bar", decode_barrier},       {"barrier", decode_barrier},
      {"mbarrier", decode_mbarrier}, {"fence", decode_nothing},
      {"membar", decode_nothing},    {"griddepcontrol", decode_grid_control},
      {"nanosleep", decode_sleep}};
  return decoders;
}

}  // namespace qnext::emulator
