// Handlers of instructions that compute each thread's result from its own operands alone.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <tuple>
#include <utility>

#include "emulator/instruction.h"
#include "emulator/lanes.h"
#include "emulator/statement.h"
#include "emulator/warp.h"

namespace qnext::emulator {

// Registers are the same or apart, so that lanes depend on no others; compilers that cannot know it
// would not turn the loop into vector instructions.
#ifdef __clang__
#define QNEXT_INDEPENDENT_LANES _Pragma("clang loop vectorize(assume_safety)")
#else
#define QNEXT_INDEPENDENT_LANES _Pragma("GCC ivdep")
#endif

// for_lanes() for acts that touch their own lane only.
template <typename Act>
inline void for_independent_lanes(LaneMask mask, Act&& act) {
  if (mask != all_lanes) {
    for_lanes(mask, act);
    return;
  }
  QNEXT_INDEPENDENT_LANES
  for (int lane = 0; lane < warp_size; ++lane) act(lane);
}

// operands[0] = function(operands[1], ...), of these types.
template <auto function, typename Destination, typename... Sources>
void elementwise(Warp& warp, const Instruction& instruction, LaneMask active) {
  [&]<size_t... index>(std::index_sequence<index...>) {
    Destination* const result = warp.lanes<Destination>(instruction.operands[0]);
    const std::tuple<const Sources*...> sources{
        warp.lanes<Sources>(instruction.operands[index + 1])...};
    for_independent_lanes(active, [=](int lane) {
      result[lane] = static_cast<Destination>(function(std::get<index>(sources)[lane]...));
    });
  }
  (std::index_sequence_for<Sources...>{});
}

// Sets the operands of an instruction with one destination; refuses any other number of arguments.
inline void set_operands(const Statement& statement, Names& names, Instruction& instruction,
                         Type destination, std::initializer_list<Type> sources) {
  if (statement.arguments.size() != sources.size() + 1)
    names.refuse("this number of operands is not known here");
  instruction.operands[0] = names.destination(statement.arguments[0], destination);
  size_t index = 1;
  for (const Type type : sources) {
    instruction.operands[index] = names.source(statement.arguments[index], type);
    ++index;
  }
}

inline void set_handler(Names& names, Instruction& instruction, Handler handler) {
  if (handler == nullptr) names.refuse("this type or mode is not known here");
  instruction.handler = handler;
}

// Refuses an opcode with parts other than these (the first and types aside): modes that would be
// passed over in silence.
inline void allow_parts(const Statement& statement, Names& names,
                        std::initializer_list<std::string_view> known) {
  for (size_t i = 1; i < statement.parts.size(); ++i) {
    const std::string_view part = statement.parts[i];
    if (type_of(part) == Type::none && std::find(known.begin(), known.end(), part) == known.end())
      names.refuse(fmt::format(".{} is not known here", part));
  }
}

// make(T{}) for the C++ type of an integer; bits count as unsigned. Null for other types.
template <typename Make>
Handler for_integer(Type type, Make&& make) {
  switch (type) {
    case Type::b16:
    case Type::u16:
      return make(uint16_t{});
    case Type::s16:
      return make(int16_t{});
    case Type::b32:
    case Type::u32:
      return make(uint32_t{});
    case Type::s32:
      return make(int32_t{});
    case Type::b64:
    case Type::u64:
      return make(uint64_t{});
    case Type::s64:
      return make(int64_t{});
    default:
      return nullptr;
  }
}

// make(T{}) for unsigned integers of a type's width.
template <typename Make>
Handler for_width(int bits, Make&& make) {
  switch (bits) {
    case 16:
      return make(uint16_t{});
    case 32:
      return make(uint32_t{});
    case 64:
      return make(uint64_t{});
    default:
      return nullptr;
  }
}

}  // namespace qnext::emulator
