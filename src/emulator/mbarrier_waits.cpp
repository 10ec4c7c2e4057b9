#include "emulator/mbarrier_waits.h"

#include <cstring>

#include "emulator/copies.h"
#include "emulator/mbarrier.h"
#include "emulator/races.h"
#include "emulator/warp.h"

namespace qnext::emulator {
namespace {

// operands: address, count or bytes or parity, destination. offset: what is added to the address.
enum MbarrierOperand { address_operand, number_operand, result_operand };

uint32_t address_of(Warp& warp, const Instruction& instruction, int lane) {
  return warp.lanes<uint32_t>(instruction.operands[address_operand])[lane] +
         static_cast<uint32_t>(instruction.offset);
}

uint64_t& word_of(Warp& warp, const Instruction& instruction, int lane) {
  return *reinterpret_cast<uint64_t*>(warp.shared(
      address_of(warp, instruction, lane), sizeof(uint64_t), instruction, lane, Access::none));
}

void check_done(Warp& warp, const Instruction& instruction, int lane, Mistake mistake) {
  if (!mistake.empty()) warp.fault(instruction, lane, mistake);
}

// For Races, `effect`: what a change hands on.
enum class Effect { nothing, initialises, arrives };

struct Initialise {
  static constexpr Effect effect = Effect::initialises;
  static Mistake apply(uint64_t& word, uint32_t number) { return initialise(word, number); }
};
struct Invalidate {
  static constexpr Effect effect = Effect::nothing;
  static Mistake apply(uint64_t& word, uint32_t) { return invalidate(word); }
};
struct Arrive {
  static constexpr Effect effect = Effect::arrives;
  static Mistake apply(uint64_t& word, uint32_t number) { return arrive(word, number); }
};
struct Expect {
  static constexpr Effect effect = Effect::nothing;
  static Mistake apply(uint64_t& word, uint32_t number) { return expect(word, number); }
};
struct ArriveExpecting {
  static constexpr Effect effect = Effect::arrives;
  static Mistake apply(uint64_t& word, uint32_t number) {
    const Mistake mistake = expect(word, number);
    return mistake.empty() ? arrive(word, 1) : mistake;
  }
};
struct Complete {
  static constexpr Effect effect = Effect::nothing;
  static Mistake apply(uint64_t& word, uint32_t number) { return complete(word, number); }
};

// One thread after the other. The state before is what others call a token: its phase.
template <typename Change>
void change(Warp& warp, const Instruction& instruction, LaneMask active) {
  const uint32_t* numbers = warp.lanes<uint32_t>(instruction.operands[number_operand]);
  const Operand result = instruction.operands[result_operand];
  Races* races = warp.block().races;
  for_lanes(active, [&](int lane) {
    uint64_t& word = word_of(warp, instruction, lane);
    const uint64_t before = word;
    if (races != nullptr && Change::effect == Effect::initialises) races->initialise(&word);
    if (races != nullptr && Change::effect == Effect::arrives) races->arrive(warp, &word);
    check_done(warp, instruction, lane, Change::apply(word, numbers[lane]));
    if (races != nullptr) races->changed(&word, phase_parity(before));
    if (result != no_operand) warp.lanes<uint64_t>(result)[lane] = before;
  });
}

// ---- waits ----

// Is the phase of this parity over?
bool is_over(Warp& warp, const Instruction& instruction, int lane, bool parity) {
  const BarrierPlace barrier =
      find_barrier(warp, address_of(warp, instruction, lane), instruction, lane);
  // What may come late comes now at the latest, one a look.
  if (phase_parity(*barrier.word) == parity &&
      (!finish_one(barrier) || phase_parity(*barrier.word) == parity))
    return false;
  if (Races* races = warp.block().races) races->waited(warp, barrier.word);
  return true;
}

// Token: 64 bits of which the phase counts; else a parity.
template <bool token>
bool wanted_parity(Warp& warp, const Instruction& instruction, int lane) {
  const Operand operand = instruction.operands[number_operand];
  if constexpr (token)
    return phase_parity(warp.lanes<uint64_t>(operand)[lane]);
  else
    return (warp.lanes<uint32_t>(operand)[lane] & 1) != 0;
}

// All threads of the instruction look again later if one has to, so that they stay together.
template <bool token>
void look(Warp& warp, const Instruction& instruction, LaneMask active) {
  LaneMask over = 0;
  uint32_t last_address = 0;
  bool last_parity = false, last_over = false, is_first = true;
  for_lanes(active, [&](int lane) {
    const uint32_t address = address_of(warp, instruction, lane);
    const bool parity = wanted_parity<token>(warp, instruction, lane);
    if (is_first || address != last_address || parity != last_parity)
      last_over = is_over(warp, instruction, lane, parity);
    is_first = false;
    last_address = address;
    last_parity = parity;
    over |= last_over ? lane_bit(lane) : 0;
  });
  LaneMask& result = warp.predicate(instruction.operands[result_operand]);
  result = (result & ~active) | over;
  if (over != active) warp.yield(active);
}

// ---- decoders ----

void set_address(const Argument& argument, const Statement& statement, Names& names,
                 Instruction& instruction) {
  if (!statement.has("shared") && !statement.has("shared::cta") &&
      !statement.has("shared::cluster"))
    names.refuse("generic addresses of mbarriers are not known here");
  instruction.operands[address_operand] = names.source(argument.text, Type::b32);
  instruction.offset = argument.offset;
}

// mbarrier.arrive{.expect_tx} state, [address]{, number}
void decode_arrive(const Statement& statement, Names& names, Instruction& instruction) {
  const auto& arguments = statement.arguments;
  if (statement.has("noComplete") || arguments.size() < 2)
    names.refuse("this form of mbarrier.arrive is not known here");
  instruction.handler = statement.has("expect_tx") ? change<ArriveExpecting> : change<Arrive>;
  set_address(arguments[1], statement, names, instruction);
  instruction.operands[number_operand] =
      names.source(arguments.size() > 2 ? arguments[2].text : std::string_view("1"), Type::b32);
  if (arguments[0].text != "_")
    instruction.operands[result_operand] = names.destination(arguments[0], Type::b64);
}

// mbarrier.try_wait{.parity} p, [address], parity or state{, time}
void decode_wait(const Statement& statement, Names& names, Instruction& instruction) {
  const auto& arguments = statement.arguments;
  if (arguments.size() < 3) names.refuse("operands are missing");
  const bool parity = statement.has("parity");
  instruction.handler = parity ? look<false> : look<true>;
  instruction.operands[result_operand] = names.destination(arguments[0], Type::pred);
  set_address(arguments[1], statement, names, instruction);
  instruction.operands[number_operand] = names.source(arguments[2], parity ? Type::b32 : Type::b64);
}

Handler change_named(std::string_view name) {
  if (name == "init") return change<Initialise>;
  if (name == "inval") return change<Invalidate>;
  if (name == "expect_tx") return change<Expect>;
  if (name == "complete_tx") return change<Complete>;
  return nullptr;
}

}  // namespace

void decode_mbarrier(const Statement& statement, Names& names, Instruction& instruction) {
  const std::string_view what = statement.parts.size() > 1 ? statement.parts[1] : "";
  if (what == "arrive") return decode_arrive(statement, names, instruction);
  if (what == "try_wait" || what == "test_wait") return decode_wait(statement, names, instruction);
  instruction.handler = change_named(what);
  if (instruction.handler == nullptr) names.refuse("this form of mbarrier is not known here");
  const auto& arguments = statement.arguments;
  set_address(arguments.at(0), statement, names, instruction);
  instruction.operands[number_operand] =
      names.source(arguments.size() > 1 ? arguments[1].text : std::string_view("1"), Type::b32);
}

}  // namespace qnext::emulator
