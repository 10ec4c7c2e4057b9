// Comparisons, choices and copies of registers: setp, selp and mov.
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "emulator/elementwise.h"
#include "emulator/special_registers.h"

namespace qnext::emulator {
namespace {

// ---- setp ----

enum class Compare { eq, ne, lt, le, gt, ge, num, nan, equ, neu, ltu, leu, gtu, geu };

template <typename T>
bool is_nan(T value) {
  if constexpr (std::is_floating_point_v<T>)
    return std::isnan(value);
  else
    return false;
}

// Those before `num` are false for NaN, those behind it true.
template <Compare compare, typename T>
bool holds(T a, T b) {
  switch (compare) {
    case Compare::eq:
      return a == b;
    case Compare::ne:
      return std::is_floating_point_v<T> ? a < b || a > b : a != b;
    case Compare::lt:
      return a < b;
    case Compare::le:
      return a <= b;
    case Compare::gt:
      return a > b;
    case Compare::ge:
      return a >= b;
    case Compare::num:
      return !is_nan(a) && !is_nan(b);
    case Compare::nan:
      return is_nan(a) || is_nan(b);
    case Compare::equ:
      return !(a < b || a > b);
    case Compare::neu:
      return !(a == b);
    case Compare::ltu:
      return !(a >= b);
    case Compare::leu:
      return !(a > b);
    case Compare::gtu:
      return !(a <= b);
    case Compare::geu:
      return !(a < b);
  }
  return false;
}

// A mask of 32 bytes that are 0 or 1.
LaneMask mask_of(const std::array<uint8_t, warp_size>& flags) {
  static_assert(std::endian::native == std::endian::little);
  LaneMask mask = 0;
  for (size_t i = 0; i < 4; ++i) {
    uint64_t eight = 0;
    std::memcpy(&eight, flags.data() + i * 8, 8);
    // Byte k's bit goes to bit 56 + k.
    mask |= static_cast<LaneMask>(eight * 0x0102040810204080u >> 56) << (i * 8);
  }
  return mask;
}

void set_predicate(Warp& warp, Operand operand, LaneMask value, LaneMask active) {
  LaneMask& result = warp.predicate(operand);
  result = (result & ~active) | (value & active);
}

enum Combination { none, conjunction, disjunction, difference };

LaneMask combined(int32_t combination, LaneMask value, LaneMask other) {
  switch (combination) {
    case conjunction:
      return value & other;
    case disjunction:
      return value | other;
    case difference:
      return value ^ other;
    default:
      return value;
  }
}

// operands: p, q, a, b, c. setp.lt.and p|q, a, b, c: p = a < b && c, q = !(a < b) && c.
void set_combined(Warp& warp, const Instruction& instruction, LaneMask value, LaneMask active) {
  LaneMask other = 0;
  if (instruction.operands[4] != no_operand)
    other = warp.predicate(instruction.operands[4]) ^ static_cast<LaneMask>(instruction.detail[1]);
  const int32_t combination = instruction.detail[0];
  set_predicate(warp, instruction.operands[0], combined(combination, value, other), active);
  if (instruction.operands[1] != no_operand)
    set_predicate(warp, instruction.operands[1], combined(combination, ~value, other), active);
}

template <Compare compare, typename T>
void compare_lanes(Warp& warp, const Instruction& instruction, LaneMask active) {
  const T* const a = warp.lanes<T>(instruction.operands[2]);
  const T* const b = warp.lanes<T>(instruction.operands[3]);
  std::array<uint8_t, warp_size> flags;
  for (size_t lane = 0; lane < warp_size; ++lane)
    flags[lane] = static_cast<uint8_t>(holds<compare>(a[lane], b[lane]));
  const LaneMask value = mask_of(flags);
  if (instruction.detail[0] == none && instruction.operands[1] == no_operand) {
    set_predicate(warp, instruction.operands[0], value, active);
  } else {
    set_combined(warp, instruction, value, active);
  }
}

struct Comparison {
  std::string_view name;
  Handler handler;
};

template <typename T>
Handler comparison_of(std::string_view name) {
  static constexpr std::array integers = {Comparison{"eq", compare_lanes<Compare::eq, T>},
                                          Comparison{"ne", compare_lanes<Compare::ne, T>},
                                          Comparison{"lt", compare_lanes<Compare::lt, T>},
                                          Comparison{"le", compare_lanes<Compare::le, T>},
                                          Comparison{"gt", compare_lanes<Compare::gt, T>},
                                          Comparison{"ge", compare_lanes<Compare::ge, T>},
                                          Comparison{"lo", compare_lanes<Compare::lt, T>},
                                          Comparison{"ls", compare_lanes<Compare::le, T>},
                                          Comparison{"hi", compare_lanes<Compare::gt, T>},
                                          Comparison{"hs", compare_lanes<Compare::ge, T>}};
  for (const Comparison& one : integers) {
    if (one.name == name) return one.handler;
  }
  return nullptr;
}

template <typename T>
Handler float_comparison_of(std::string_view name) {
  static constexpr std::array unordered = {Comparison{"num", compare_lanes<Compare::num, T>},
                                           Comparison{"nan", compare_lanes<Compare::nan, T>},
                                           Comparison{"equ", compare_lanes<Compare::equ, T>},
                                           Comparison{"neu", compare_lanes<Compare::neu, T>},
                                           Comparison{"ltu", compare_lanes<Compare::ltu, T>},
                                           Comparison{"leu", compare_lanes<Compare::leu, T>},
                                           Comparison{"gtu", compare_lanes<Compare::gtu, T>},
                                           Comparison{"geu", compare_lanes<Compare::geu, T>}};
  for (const Comparison& one : unordered) {
    if (one.name == name) return one.handler;
  }
  return comparison_of<T>(name);
}

int32_t combination_of(const Statement& statement, Names& names) {
  if (statement.has("and")) return conjunction;
  if (statement.has("or")) return disjunction;
  if (statement.has("xor")) return difference;
  if (statement.parts.size() != 3) names.refuse("this mode is not known here");
  return none;
}

void decode_compare(const Statement& statement, Names& names, Instruction& instruction) {
  instruction.detail[0] = combination_of(statement, names);
  const size_t sources = instruction.detail[0] == none ? 2 : 3;
  if (statement.arguments.size() != sources + 1 ||
      statement.parts.size() != (sources == 2 ? 3u : 4u))
    names.refuse("this form is not known here");
  const Argument& result = statement.arguments[0];
  if (result.kind == Argument::Kind::pair) {
    instruction.operands[0] = names.destination(result.elements.at(0), Type::pred);
    instruction.operands[1] = names.destination(result.elements.at(1), Type::pred);
  } else {
    instruction.operands[0] = names.destination(result, Type::pred);
  }
  const Type type = statement.type();
  instruction.operands[2] = names.source(statement.arguments[1], type);
  instruction.operands[3] = names.source(statement.arguments[2], type);
  if (sources == 3)
    instruction.operands[4] =
        source_predicate(statement.arguments[3].text, names, instruction.detail[1]);
  const std::string_view compare = statement.parts[1];
  Handler handler = nullptr;
  if (type == Type::f32) {
    handler = float_comparison_of<float>(compare);
  } else if (type == Type::f64) {
    handler = float_comparison_of<double>(compare);
  } else {
    handler = for_integer(type, [&]<typename T>(T) { return comparison_of<T>(compare); });
  }
  set_handler(names, instruction, handler);
}

// ---- selp ----

template <typename T>
constexpr std::array<T, warp_size> bit_of_lane = [] {
  std::array<T, warp_size> result{};
  for (size_t lane = 0; lane < warp_size; ++lane) result[lane] = static_cast<T>(T{1} << lane);
  return result;
}();

template <typename T>
void select(Warp& warp, const Instruction& instruction, LaneMask active) {
  T* const result = warp.lanes<T>(instruction.operands[0]);
  const T* const a = warp.lanes<T>(instruction.operands[1]);
  const T* const b = warp.lanes<T>(instruction.operands[2]);
  const LaneMask choice = warp.predicate(instruction.operands[3]);
  // Compared as wide as the values are, for vector instructions to choose by.
  using Wide = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  const Wide wide_choice = choice;
  for_independent_lanes(active, [=](int lane) {
    const bool first = (wide_choice & bit_of_lane<Wide>[static_cast<size_t>(lane)]) != 0;
    const T of_a = a[lane], of_b = b[lane];
    result[lane] = first ? of_a : of_b;
  });
}

void decode_select(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {});
  const Type type = statement.type();
  set_operands(statement, names, instruction, type, {type, type, Type::pred});
  set_handler(names, instruction,
              for_width(bits_of(type), []<typename T>(T) -> Handler { return select<T>; }));
}

// ---- mov ----

template <typename T>
T same(T a) {
  return a;
}

void move_predicate(Warp& warp, const Instruction& instruction, LaneMask active) {
  set_predicate(warp, instruction.operands[0], warp.predicate(instruction.operands[1]), active);
}

// {a, b}: the first part is the lowest.
template <typename Whole, typename Part>
void pack(Warp& warp, const Instruction& instruction, LaneMask active) {
  constexpr size_t parts = sizeof(Whole) / sizeof(Part);
  Whole* const result = warp.lanes<Whole>(instruction.operands[0]);
  std::array<const Part*, parts> sources;
  for (size_t i = 0; i < parts; ++i) sources[i] = warp.lanes<Part>(instruction.operands[i + 1]);
  for_independent_lanes(active, [=](int lane) {
    Whole whole = 0;
    for (size_t i = 0; i < parts; ++i) {
      whole |= static_cast<Whole>(static_cast<Whole>(sources[i][lane]) << (i * sizeof(Part) * 8));
    }
    result[lane] = whole;
  });
}

template <typename Whole, typename Part>
void unpack(Warp& warp, const Instruction& instruction, LaneMask active) {
  constexpr size_t parts = sizeof(Whole) / sizeof(Part);
  const Whole* const whole = warp.lanes<Whole>(instruction.operands[parts]);
  for (size_t i = 0; i < parts; ++i) {
    if (instruction.operands[i] == no_operand) continue;
    Part* const result = warp.lanes<Part>(instruction.operands[i]);
    for_independent_lanes(active, [=](int lane) {
      result[lane] = static_cast<Part>(whole[lane] >> (i * sizeof(Part) * 8));
    });
  }
}

struct Packing {
  int whole_bits;
  size_t parts;
  Type part;
  Handler pack, unpack;
};

const Packing* find_packing(int whole_bits, size_t parts) {
  static constexpr std::array packings = {
      Packing{32, 2, Type::b16, pack<uint32_t, uint16_t>, unpack<uint32_t, uint16_t>},
      Packing{64, 2, Type::b32, pack<uint64_t, uint32_t>, unpack<uint64_t, uint32_t>},
      Packing{64, 4, Type::b16, pack<uint64_t, uint16_t>, unpack<uint64_t, uint16_t>}};
  for (const Packing& one : packings) {
    if (one.whole_bits == whole_bits && one.parts == parts) return &one;
  }
  return nullptr;
}

void decode_pack(const Statement& statement, Names& names, Instruction& instruction) {
  const Argument& source = statement.arguments[1];
  const Type type = statement.type();
  const Packing* const packing = find_packing(bits_of(type), source.elements.size());
  if (packing == nullptr) names.refuse("this number of elements is not known here");
  instruction.operands[0] = names.destination(statement.arguments[0], type);
  for (size_t i = 0; i < packing->parts; ++i)
    instruction.operands[i + 1] = names.source(source.elements[i], packing->part);
  instruction.handler = packing->pack;
}

void decode_unpack(const Statement& statement, Names& names, Instruction& instruction) {
  const Argument& destination = statement.arguments[0];
  const Type type = statement.type();
  const Packing* const packing = find_packing(bits_of(type), destination.elements.size());
  if (packing == nullptr) names.refuse("this number of elements is not known here");
  for (size_t i = 0; i < packing->parts; ++i) {
    if (destination.elements[i] != "_")
      instruction.operands[i] = names.destination(destination.elements[i], packing->part);
  }
  instruction.operands[packing->parts] = names.source(statement.arguments[1], type);
  instruction.handler = packing->unpack;
}

void decode_move(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {});
  if (statement.arguments.size() != 2) names.refuse("this number of operands is not known here");
  const Argument &destination = statement.arguments[0], &source = statement.arguments[1];
  if (source.kind == Argument::Kind::vector) return decode_pack(statement, names, instruction);
  if (destination.kind == Argument::Kind::vector)
    return decode_unpack(statement, names, instruction);
  const Type type = statement.type();
  const bool is_register = names.width(source.text) != 0;
  if (!is_register && source.text.starts_with('%')) {
    instruction.operands[0] = names.destination(destination, type);
    if (!decode_special_register(source.text, bits_of(type), instruction))
      names.refuse(fmt::format("{} is not known here", source.text));
    return;
  }
  set_operands(statement, names, instruction, type, {type});
  set_handler(
      names, instruction,
      type == Type::pred ? move_predicate : for_width(bits_of(type), []<typename T>(T) -> Handler {
        return elementwise<same<T>, T, T>;
      }));
}

}  // namespace

const Decoders& selection_decoders() {
  static const Decoders decoders = {
      {"setp", decode_compare}, {"selp", decode_select}, {"mov", decode_move}};
  return decoders;
}

}  // namespace qnext::emulator
