// Instructions by which the threads of a warp see one another's values: shfl, vote, match, redux,
// activemask and elect.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "emulator/elementwise.h"

namespace qnext::emulator {
namespace {

// The threads that the active ones wait for. Threads may come with different masks, whose
// instructions are executed together once all of them are there.
LaneMask members_of(Warp& warp, const Instruction& instruction, Operand masks, LaneMask active) {
  const uint32_t* const members = warp.lanes<uint32_t>(masks);
  LaneMask all = 0;
  for_lanes(active, [&](int lane) {
    if ((members[lane] & lane_bit(lane)) == 0)
      warp.fault(instruction, lane, "the thread is not in its own mask of members");
    all |= members[lane];
  });
  return all;
}

// act(group) for the active threads of each mask.
template <typename Act>
void for_groups(Warp& warp, Operand masks, LaneMask active, Act&& act) {
  const uint32_t* const members = warp.lanes<uint32_t>(masks);
  for (LaneMask left = active; left != 0;) {
    const LaneMask group = left & members[std::countr_zero(left)];
    act(group);
    left &= ~group;
  }
}

void set_predicate(Warp& warp, Operand operand, LaneMask value, LaneMask active) {
  if (operand == no_operand) return;
  LaneMask& result = warp.predicate(operand);
  result = (result & ~active) | (value & active);
}

// operands: the destination and its predicate, or a predicate alone.
void decode_destination(const Argument& argument, Type type, Names& names,
                        Instruction& instruction) {
  if (argument.kind == Argument::Kind::pair) {
    instruction.operands[0] = names.destination(argument.elements.at(0), type);
    instruction.operands[1] = names.destination(argument.elements.at(1), Type::pred);
  } else {
    instruction.operands[0] = names.destination(argument, type);
  }
}

void need_arguments(const Statement& statement, Names& names, size_t count) {
  if (statement.arguments.size() != count) names.refuse("this form is not known here");
}

// To operands[0], which may be a source: all values are worked out before.
template <typename T>
void write(Warp& warp, const Instruction& instruction, const std::array<T, warp_size>& values,
           LaneMask active) {
  T* const result = warp.lanes<T>(instruction.operands[0]);
  for_lanes(active, [&](int lane) { result[lane] = values[static_cast<size_t>(lane)]; });
}

// ---- shfl ----

enum class Shuffle { up, down, butterfly, index };

struct Partner {
  uint32_t lane = 0;
  bool within = false;  // its segment
};

// c: the clamp in bits 0 to 4, the mask of segments in bits 8 to 12.
template <Shuffle mode>
Partner partner_of(uint32_t lane, uint32_t b, uint32_t c) {
  const uint32_t clamp = c & 31u, segment = c >> 8 & 31u, places = b & 31u;
  const uint32_t first = lane & segment, last = first | (clamp & ~segment);
  if constexpr (mode == Shuffle::up) {
    // Here the clamp is the least lane.
    const bool within = static_cast<int32_t>(lane - places) >= static_cast<int32_t>(last);
    return {within ? lane - places : lane, within};
  } else {
    const uint32_t other = mode == Shuffle::down        ? lane + places
                           : mode == Shuffle::butterfly ? lane ^ places
                                                        : first | (places & ~segment);
    return {other <= last ? other : lane, other <= last};
  }
}

// operands: d, p, a, b, c, members. From a thread that takes no part come all ones.
template <Shuffle mode>
void shuffle(Warp& warp, const Instruction& instruction, LaneMask active) {
  const Operand masks = instruction.operands[5];
  if (!warp.together(active, members_of(warp, instruction, masks, active))) return;
  std::array<uint32_t, warp_size> a;
  std::copy_n(warp.lanes<uint32_t>(instruction.operands[2]), warp_size, a.begin());
  const uint32_t* const b = warp.lanes<uint32_t>(instruction.operands[3]);
  const uint32_t* const c = warp.lanes<uint32_t>(instruction.operands[4]);
  LaneMask within = 0;
  // Destinations may be sources: of all of them the old values count.
  std::array<uint32_t, warp_size> values;
  for_lanes(active, [&](int lane) {
    const auto at = static_cast<size_t>(lane);
    const Partner partner = partner_of<mode>(static_cast<uint32_t>(lane), b[at], c[at]);
    values[at] = (active >> partner.lane & 1u) != 0 ? a[partner.lane] : ~0u;
    if (partner.within) within |= lane_bit(lane);
  });
  write(warp, instruction, values, active);
  set_predicate(warp, instruction.operands[1], within, active);
}

void decode_shuffle(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {"sync", "up", "down", "bfly", "idx"});
  need_arguments(statement, names, 5);
  if (!statement.has("sync") || statement.type() != Type::b32)
    names.refuse("this form is not known here");
  decode_destination(statement.arguments[0], Type::b32, names, instruction);
  for (size_t i = 1; i < 5; ++i)
    instruction.operands[i + 1] = names.source(statement.arguments[i], Type::b32);
  Handler handler = nullptr;
  if (statement.has("up")) handler = shuffle<Shuffle::up>;
  if (statement.has("down")) handler = shuffle<Shuffle::down>;
  if (statement.has("bfly")) handler = shuffle<Shuffle::butterfly>;
  if (statement.has("idx")) handler = shuffle<Shuffle::index>;
  set_handler(names, instruction, handler);
}

// ---- vote ----

enum class Vote { any, all, same };

// operands: p, a, members; detail[0]: -1 for !a.
LaneMask votes_of(Warp& warp, const Instruction& instruction) {
  return warp.predicate(instruction.operands[1]) ^ static_cast<LaneMask>(instruction.detail[0]);
}

template <Vote kind>
void vote(Warp& warp, const Instruction& instruction, LaneMask active) {
  const Operand masks = instruction.operands[2];
  if (!warp.together(active, members_of(warp, instruction, masks, active))) return;
  const LaneMask votes = votes_of(warp, instruction);
  for_groups(warp, masks, active, [&](LaneMask group) {
    const bool any = (votes & group) != 0, all = (~votes & group) == 0;
    const bool holds = kind == Vote::any ? any : kind == Vote::all ? all : all || !any;
    set_predicate(warp, instruction.operands[0], holds ? group : 0, group);
  });
}

void ballot(Warp& warp, const Instruction& instruction, LaneMask active) {
  const Operand masks = instruction.operands[2];
  if (!warp.together(active, members_of(warp, instruction, masks, active))) return;
  const LaneMask votes = votes_of(warp, instruction);
  // The destination may be the mask of members.
  std::array<uint32_t, warp_size> values{};
  for_groups(warp, masks, active, [&](LaneMask group) {
    for_lanes(group, [&](int lane) { values[static_cast<size_t>(lane)] = votes & group; });
  });
  write(warp, instruction, values, active);
}

void decode_vote(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {"sync", "any", "all", "uni", "ballot"});
  need_arguments(statement, names, 3);
  if (!statement.has("sync")) names.refuse("this form is not known here");
  instruction.operands[0] = names.destination(statement.arguments[0], statement.type());
  instruction.operands[1] =
      source_predicate(statement.arguments[1].text, names, instruction.detail[0]);
  instruction.operands[2] = names.source(statement.arguments[2], Type::b32);
  Handler handler = nullptr;
  if (statement.type() == Type::b32) {
    if (statement.has("ballot")) handler = ballot;
  } else if (statement.type() == Type::pred) {
    if (statement.has("any")) handler = vote<Vote::any>;
    if (statement.has("all")) handler = vote<Vote::all>;
    if (statement.has("uni")) handler = vote<Vote::same>;
  }
  set_handler(names, instruction, handler);
}

// ---- match ----

// operands: d, p, a, members.
template <typename T, bool all>
void match(Warp& warp, const Instruction& instruction, LaneMask active) {
  const Operand masks = instruction.operands[3];
  if (!warp.together(active, members_of(warp, instruction, masks, active))) return;
  const T* const a = warp.lanes<T>(instruction.operands[2]);
  std::array<uint32_t, warp_size> values{};
  LaneMask alike = 0;
  for_groups(warp, masks, active, [&](LaneMask group) {
    for_lanes(group, [&](int lane) {
      LaneMask equal = 0;
      for_lanes(group, [&](int other) { equal |= a[lane] == a[other] ? lane_bit(other) : 0u; });
      if (equal == group) alike |= lane_bit(lane);
      values[static_cast<size_t>(lane)] = all && equal != group ? 0 : equal;
    });
  });
  write(warp, instruction, values, active);
  set_predicate(warp, instruction.operands[1], alike, active);
}

void decode_match(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {"sync", "any", "all"});
  need_arguments(statement, names, 3);
  const Type type = statement.type();
  const bool all = statement.has("all");
  if (!all && statement.arguments[0].kind == Argument::Kind::pair)
    names.refuse("this form is not known here");
  decode_destination(statement.arguments[0], Type::b32, names, instruction);
  instruction.operands[2] = names.source(statement.arguments[1], type);
  instruction.operands[3] = names.source(statement.arguments[2], Type::b32);
  Handler handler = nullptr;
  if (type == Type::b32) handler = all ? match<uint32_t, true> : match<uint32_t, false>;
  if (type == Type::b64) handler = all ? match<uint64_t, true> : match<uint64_t, false>;
  set_handler(names, instruction, handler);
}

// ---- redux ----

// operands: d, a, members.
template <typename T, auto function>
void reduce(Warp& warp, const Instruction& instruction, LaneMask active) {
  const Operand masks = instruction.operands[2];
  if (!warp.together(active, members_of(warp, instruction, masks, active))) return;
  const T* const a = warp.lanes<T>(instruction.operands[1]);
  std::array<T, warp_size> values{};
  for_groups(warp, masks, active, [&](LaneMask group) {
    const int first = std::countr_zero(group);
    T value = a[first];
    for_lanes(group & ~lane_bit(first), [&](int lane) { value = function(value, a[lane]); });
    for_lanes(group, [&](int lane) { values[static_cast<size_t>(lane)] = value; });
  });
  write(warp, instruction, values, active);
}

template <typename T>
Handler extreme_reduction(const Statement& statement) {
  if (statement.has("min")) return reduce<T, [](T a, T b) { return std::min(a, b); }>;
  if (statement.has("max")) return reduce<T, [](T a, T b) { return std::max(a, b); }>;
  return nullptr;
}

// Sums wrap, for signed numbers too.
Handler word_reduction(const Statement& statement) {
  using T = uint32_t;
  if (statement.has("add")) return reduce<T, [](T a, T b) { return a + b; }>;
  if (statement.has("and")) return reduce<T, [](T a, T b) { return a & b; }>;
  if (statement.has("or")) return reduce<T, [](T a, T b) { return a | b; }>;
  if (statement.has("xor")) return reduce<T, [](T a, T b) { return a ^ b; }>;
  return nullptr;
}

void decode_reduction(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {"sync", "add", "min", "max", "and", "or", "xor"});
  const Type type = statement.type();
  if (bits_of(type) != 32 || is_float(type)) names.refuse("this type is not known here");
  set_operands(statement, names, instruction, type, {type, Type::b32});
  Handler handler = is_signed(type) ? extreme_reduction<int32_t>(statement)
                                    : extreme_reduction<uint32_t>(statement);
  if (handler == nullptr) handler = word_reduction(statement);
  set_handler(names, instruction, handler);
}

// ---- who is here ----

void tell_active(Warp& warp, const Instruction& instruction, LaneMask active) {
  uint32_t* const result = warp.lanes<uint32_t>(instruction.operands[0]);
  for_lanes(active, [&](int lane) { result[lane] = active; });
}

void decode_active(const Statement& statement, Names& names, Instruction& instruction) {
  set_operands(statement, names, instruction, Type::b32, {});
  instruction.handler = tell_active;
}

// operands: d, p, members. The least thread is elected.
void elect(Warp& warp, const Instruction& instruction, LaneMask active) {
  const Operand masks = instruction.operands[2];
  if (!warp.together(active, members_of(warp, instruction, masks, active))) return;
  std::array<uint32_t, warp_size> values{};
  LaneMask elected = 0;
  for_groups(warp, masks, active, [&](LaneMask group) {
    const int first = std::countr_zero(group);
    elected |= lane_bit(first);
    for_lanes(group,
              [&](int lane) { values[static_cast<size_t>(lane)] = static_cast<uint32_t>(first); });
  });
  write(warp, instruction, values, active);
  set_predicate(warp, instruction.operands[1], elected, active);
}

void decode_elect(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {"sync"});
  need_arguments(statement, names, 2);
  if (statement.arguments[0].kind != Argument::Kind::pair)
    names.refuse("this form is not known here");
  decode_destination(statement.arguments[0], Type::b32, names, instruction);
  instruction.operands[2] = names.source(statement.arguments[1], Type::b32);
  instruction.handler = elect;
}

}  // namespace

const Decoders& warp_wide_decoders() {
  static const Decoders decoders = {{"shfl", decode_shuffle},      {"vote", decode_vote},
                                    {"match", decode_match},       {"redux", decode_reduction},
                                    {"activemask", decode_active}, {"elect", decode_elect}};
  return decoders;
}

}  // namespace qnext::emulator
