#include "emulator/bits.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "emulator/elementwise.h"

namespace qnext::emulator {
namespace {

template <typename T>
constexpr uint32_t bits = std::numeric_limits<std::make_unsigned_t<T>>::digits;

// ---- logic ----

template <typename T>
T both(T a, T b) {
  return static_cast<T>(a & b);
}

template <typename T>
T either(T a, T b) {
  return static_cast<T>(a | b);
}

template <typename T>
T one_of(T a, T b) {
  return static_cast<T>(a ^ b);
}

template <typename T>
T inverse(T a) {
  return static_cast<T>(~a);
}

// A predicate is one word for all threads.
template <auto function>
void predicate_logic(Warp& warp, const Instruction& instruction, LaneMask active) {
  LaneMask& result = warp.predicate(instruction.operands[0]);
  const LaneMask value =
      function(warp.predicate(instruction.operands[1]), warp.predicate(instruction.operands[2]));
  result = (result & ~active) | (value & active);
}

void predicate_inverse(Warp& warp, const Instruction& instruction, LaneMask active) {
  LaneMask& result = warp.predicate(instruction.operands[0]);
  result = (result & ~active) | (~warp.predicate(instruction.operands[1]) & active);
}

template <typename Make>
void decode_logic(const Statement& statement, Names& names, Instruction& instruction, Make make,
                  Handler of_predicates) {
  allow_parts(statement, names, {});
  const Type type = statement.type();
  set_operands(statement, names, instruction, type, {type, type});
  set_handler(names, instruction,
              type == Type::pred ? of_predicates : for_width(bits_of(type), make));
}

void decode_and(const Statement& statement, Names& names, Instruction& instruction) {
  decode_logic(
      statement, names, instruction,
      []<typename T>(T) -> Handler { return elementwise<both<T>, T, T, T>; },
      predicate_logic<both<LaneMask>>);
}

void decode_or(const Statement& statement, Names& names, Instruction& instruction) {
  decode_logic(
      statement, names, instruction,
      []<typename T>(T) -> Handler { return elementwise<either<T>, T, T, T>; },
      predicate_logic<either<LaneMask>>);
}

void decode_xor(const Statement& statement, Names& names, Instruction& instruction) {
  decode_logic(
      statement, names, instruction,
      []<typename T>(T) -> Handler { return elementwise<one_of<T>, T, T, T>; },
      predicate_logic<one_of<LaneMask>>);
}

void decode_not(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {});
  const Type type = statement.type();
  set_operands(statement, names, instruction, type, {type});
  set_handler(names, instruction,
              type == Type::pred ? predicate_inverse
                                 : for_width(bits_of(type), []<typename T>(T) -> Handler {
                                     return elementwise<inverse<T>, T, T>;
                                   }));
}

// The table's bit a * 4 + b * 2 + c is the result.
void logic_of_three(Warp& warp, const Instruction& instruction, LaneMask active) {
  uint32_t* const result = warp.lanes<uint32_t>(instruction.operands[0]);
  const uint32_t* const a = warp.lanes<uint32_t>(instruction.operands[1]);
  const uint32_t* const b = warp.lanes<uint32_t>(instruction.operands[2]);
  const uint32_t* const c = warp.lanes<uint32_t>(instruction.operands[3]);
  const uint32_t table = *warp.lanes<uint32_t>(instruction.operands[4]);
  const auto entry = [table](uint32_t bit) { return 0u - (table >> bit & 1u); };
  const uint32_t e0 = entry(0), e1 = entry(1), e2 = entry(2), e3 = entry(3);
  const uint32_t e4 = entry(4), e5 = entry(5), e6 = entry(6), e7 = entry(7);
  for_independent_lanes(active, [=](int lane) {
    const uint32_t x = a[lane], y = b[lane], z = c[lane];
    const uint32_t with_x = (y & ((z & e7) | (~z & e6))) | (~y & ((z & e5) | (~z & e4)));
    const uint32_t without = (y & ((z & e3) | (~z & e2))) | (~y & ((z & e1) | (~z & e0)));
    result[lane] = (x & with_x) | (~x & without);
  });
}

void decode_logic_of_three(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {});
  if (statement.type() != Type::b32) names.refuse("this type is not known here");
  set_operands(statement, names, instruction, Type::b32,
               {Type::b32, Type::b32, Type::b32, Type::b32});
  set_handler(names, instruction, logic_of_three);
}

// ---- shifts ----

// Amounts beyond the width are the width.
template <typename T>
T shift_left(T a, uint32_t amount) {
  return amount < bits<T> ? static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) << amount)
                          : T{0};
}

template <typename T>
T shift_right(T a, uint32_t amount) {
  if (amount < bits<T>) return static_cast<T>(a >> amount);
  return a < T{0} ? static_cast<T>(-1) : T{0};
}

// By an amount that is the same for all threads: one vector instruction has no other.
template <typename T, bool left>
void shift_all(Warp& warp, const Instruction& instruction, LaneMask active) {
  T* const result = warp.lanes<T>(instruction.operands[0]);
  const T* const a = warp.lanes<T>(instruction.operands[1]);
  const uint32_t amount = *warp.lanes<uint32_t>(instruction.operands[2]);
  if (amount >= bits<T>) {
    for_lanes(active, [=](int lane) {
      result[lane] = left ? shift_left(a[lane], amount) : shift_right(a[lane], amount);
    });
    return;
  }
  for_independent_lanes(active, [=](int lane) {
    result[lane] = static_cast<T>(left ? static_cast<T>(a[lane] << amount)
                                       : static_cast<T>(a[lane] >> amount));
  });
}

template <bool left>
void decode_shift(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {});
  const Type type = statement.type();
  set_operands(statement, names, instruction, type, {type, Type::u32});
  if ((instruction.operands[2] & constant_bank) != 0) {
    const auto all = []<typename T>(T) -> Handler { return shift_all<T, left>; };
    set_handler(names, instruction, for_integer(type, all));
  } else {
    const auto each = []<typename T>(T) -> Handler {
      return elementwise < left ? shift_left<T> : shift_right<T>, T, T, uint32_t > ;
    };
    set_handler(names, instruction, for_integer(type, each));
  }
}

// 32 bits of b:a, a being the low half.
template <bool left, bool wraps>
uint32_t funnel(uint32_t a, uint32_t b, uint32_t amount) {
  const uint64_t both_words = uint64_t{b} << 32 | a;
  const uint32_t places = wraps ? amount & 31 : std::min(amount, 32u);
  return static_cast<uint32_t>(left ? (both_words << places) >> 32 : both_words >> places);
}

void decode_funnel(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {"l", "r", "wrap", "clamp"});
  if (statement.type() != Type::b32) names.refuse("this type is not known here");
  set_operands(statement, names, instruction, Type::b32, {Type::b32, Type::b32, Type::u32});
  const bool wraps = statement.has("wrap");
  const auto handler = [&]<bool left>(std::bool_constant<left>) -> Handler {
    if (wraps) return elementwise<funnel<left, true>, uint32_t, uint32_t, uint32_t, uint32_t>;
    return elementwise<funnel<left, false>, uint32_t, uint32_t, uint32_t, uint32_t>;
  };
  set_handler(names, instruction,
              statement.has("l") ? handler(std::true_type{}) : handler(std::false_type{}));
}

// ---- fields ----

// `count` ones.
template <typename T>
T ones(uint32_t count) {
  return count < bits<T> ? static_cast<T>((T{1} << count) - 1) : static_cast<T>(~T{0});
}

template <typename T>
T insert_field(T field, T into, uint32_t position, uint32_t length) {
  position &= 0xFF;
  if (position >= bits<T>) return into;
  const T mask = static_cast<T>(ones<T>(length & 0xFF) << position);
  return (into & ~mask) | (static_cast<T>(field << position) & mask);
}

template <typename T>
T extract_field(T a, uint32_t position, uint32_t length) {
  using Unsigned = std::make_unsigned_t<T>;
  position &= 0xFF;
  length &= 0xFF;
  if (length == 0) return 0;
  const uint32_t last = std::min(position + length - 1, bits<T> - 1);
  const bool sign = std::is_signed_v<T> && (static_cast<Unsigned>(a) >> last & 1u) != 0;
  const Unsigned field = position < bits<T> ? static_cast<Unsigned>(a) >> position : Unsigned{0};
  const uint32_t kept = position < bits<T> ? std::min(length, bits<T> - position) : 0;
  const Unsigned mask = ones<Unsigned>(kept);
  return static_cast<T>((field & mask) | (sign ? static_cast<Unsigned>(~mask) : Unsigned{0}));
}

void decode_insert(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {});
  const Type type = statement.type();
  set_operands(statement, names, instruction, type, {type, type, Type::u32, Type::u32});
  Handler handler = nullptr;
  if (type == Type::b32)
    handler = elementwise<insert_field<uint32_t>, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t>;
  if (type == Type::b64)
    handler = elementwise<insert_field<uint64_t>, uint64_t, uint64_t, uint64_t, uint32_t, uint32_t>;
  set_handler(names, instruction, handler);
}

void decode_extract(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {});
  const Type type = statement.type();
  set_operands(statement, names, instruction, type, {type, Type::u32, Type::u32});
  if (bits_of(type) < 32) names.refuse("this type is not known here");
  set_handler(names, instruction, for_integer(type, []<typename T>(T) -> Handler {
                return elementwise<extract_field<T>, T, T, uint32_t, uint32_t>;
              }));
}

// Each result byte is one of b:a's eight, or that byte's sign eight times.
uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t pool = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t choice = selector >> (4 * i);
    uint32_t byte = static_cast<uint32_t>(pool >> (8 * (choice & 7u))) & 0xFFu;
    if ((choice & 8u) != 0) byte = (byte & 0x80u) != 0 ? 0xFFu : 0u;
    result |= byte << (8 * i);
  }
  return result;
}

void decode_permute(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {});
  set_operands(statement, names, instruction, Type::b32, {Type::b32, Type::b32, Type::b32});
  set_handler(names, instruction, elementwise<permute, uint32_t, uint32_t, uint32_t, uint32_t>);
}

// ---- searches ----

template <typename T>
uint32_t count_ones(T a) {
  return static_cast<uint32_t>(std::popcount(a));
}

template <typename T>
uint32_t leading_zeros(T a) {
  return static_cast<uint32_t>(std::countl_zero(a));
}

// The highest bit that is not the sign's, or -1; as_shift: how far left it would have to go.
template <typename T, bool as_shift>
uint32_t find_highest(T a) {
  const auto value = static_cast<std::make_unsigned_t<T>>(a < T{0} ? ~a : a);
  if (value == 0) return ~0u;
  const auto zeros = static_cast<uint32_t>(std::countl_zero(value));
  return as_shift ? zeros : bits<T> - 1 - zeros;
}

template <typename T>
T reverse(T a) {
  T result = 0;
  for (uint32_t i = 0; i < bits<T>; ++i) {
    result = static_cast<T>(result << 1 | (a & 1u));
    a >>= 1;
  }
  return result;
}

template <typename Make>
void decode_search(const Statement& statement, Names& names, Instruction& instruction, Type result,
                   Make make) {
  const Type type = statement.type();
  if (bits_of(type) < 32) names.refuse("this type is not known here");
  set_operands(statement, names, instruction, result, {type});
  set_handler(names, instruction, for_integer(type, make));
}

void decode_count_ones(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {});
  decode_search(statement, names, instruction, Type::u32, []<typename T>(T) -> Handler {
    using Unsigned = std::make_unsigned_t<T>;
    return elementwise<count_ones<Unsigned>, uint32_t, Unsigned>;
  });
}

void decode_leading_zeros(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {});
  decode_search(statement, names, instruction, Type::u32, []<typename T>(T) -> Handler {
    using Unsigned = std::make_unsigned_t<T>;
    return elementwise<leading_zeros<Unsigned>, uint32_t, Unsigned>;
  });
}

void decode_find_highest(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {"shiftamt"});
  const bool as_shift = statement.has("shiftamt");
  decode_search(statement, names, instruction, Type::u32, [&]<typename T>(T) -> Handler {
    if (as_shift) return elementwise<find_highest<T, true>, uint32_t, T>;
    return elementwise<find_highest<T, false>, uint32_t, T>;
  });
}

void decode_reverse(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {});
  decode_search(statement, names, instruction, statement.type(), []<typename T>(T) -> Handler {
    using Unsigned = std::make_unsigned_t<T>;
    return elementwise<reverse<Unsigned>, Unsigned, Unsigned>;
  });
}

}  // namespace

const Decoders& bit_decoders() {
  static const Decoders decoders = {{"and", decode_and},
                                    {"or", decode_or},
                                    {"xor", decode_xor},
                                    {"not", decode_not},
                                    {"lop3", decode_logic_of_three},
                                    {"shl", decode_shift<true>},
                                    {"shr", decode_shift<false>},
                                    {"shf", decode_funnel},
                                    {"bfi", decode_insert},
                                    {"bfe", decode_extract},
                                    {"prmt", decode_permute},
                                    {"popc", decode_count_ones},
                                    {"clz", decode_leading_zeros},
                                    {"bfind", decode_find_highest},
                                    {"brev", decode_reverse}};
  return decoders;
}

}  // namespace qnext::emulator
