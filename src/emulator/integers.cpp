// Arithmetic of integers: add, sub, mul, mad, div, rem, min, max, abs and neg, with and without
// carries. Logic and shifts are bits.cpp's.
#include <cstdint>
#include <limits>
#include <type_traits>

#include "emulator/bits.h"
#include "emulator/elementwise.h"

namespace qnext::emulator {
namespace {

__extension__ using Signed128 = __int128;
__extension__ using Unsigned128 = unsigned __int128;

// Where overflow wraps, and 16 bits do not become int.
template <typename T>
using Wrapping = std::common_type_t<std::make_unsigned_t<T>, unsigned>;

template <typename T>
struct WiderOf;
template <>
struct WiderOf<uint16_t> : std::type_identity<uint32_t> {};
template <>
struct WiderOf<int16_t> : std::type_identity<int32_t> {};
template <>
struct WiderOf<uint32_t> : std::type_identity<uint64_t> {};
template <>
struct WiderOf<int32_t> : std::type_identity<int64_t> {};
template <>
struct WiderOf<uint64_t> : std::type_identity<Unsigned128> {};
template <>
struct WiderOf<int64_t> : std::type_identity<Signed128> {};
template <typename T>
using Wider = typename WiderOf<T>::type;

template <typename T>
constexpr int bits = std::numeric_limits<std::make_unsigned_t<T>>::digits;

template <typename T>
T add(T a, T b) {
  return static_cast<T>(static_cast<Wrapping<T>>(a) + static_cast<Wrapping<T>>(b));
}

template <typename T>
T subtract(T a, T b) {
  return static_cast<T>(static_cast<Wrapping<T>>(a) - static_cast<Wrapping<T>>(b));
}

template <typename T>
T low_product(T a, T b) {
  return static_cast<T>(static_cast<Wrapping<T>>(a) * static_cast<Wrapping<T>>(b));
}

template <typename T>
Wider<T> wide_product(T a, T b) {
  return static_cast<Wider<T>>(static_cast<Wider<T>>(a) * static_cast<Wider<T>>(b));
}

template <typename T>
T high_product(T a, T b) {
  return static_cast<T>(wide_product(a, b) >> bits<T>);
}

template <typename T>
T low_multiply_add(T a, T b, T c) {
  return add(low_product(a, b), c);
}

template <typename T>
T high_multiply_add(T a, T b, T c) {
  return add(high_product(a, b), c);
}

template <typename T>
Wider<T> wide_multiply_add(T a, T b, Wider<T> c) {
  return add(wide_product(a, b), c);
}

// By zero: all ones, as the GPU has it.
template <typename T>
T divide(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return subtract(T{0}, a);
  return static_cast<T>(a / b);
}

template <typename T>
T remainder(T a, T b) {
  if (b == 0) return a;
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
  return static_cast<T>(a % b);
}

template <typename T>
T lesser(T a, T b) {
  return a < b ? a : b;
}

template <typename T>
T greater(T a, T b) {
  return a > b ? a : b;
}

template <typename T>
T absolute(T a) {
  return a < T{0} ? subtract(T{0}, a) : a;
}

template <typename T>
T negate(T a) {
  return subtract(T{0}, a);
}

enum class Carrying { sum, difference, low_product, high_product };

template <typename T, Carrying kind, bool reads, bool writes>
void carry(Warp& warp, const Instruction& instruction, LaneMask active) {
  constexpr bool is_product = kind == Carrying::low_product || kind == Carrying::high_product;
  T* const result = warp.lanes<T>(instruction.operands[0]);
  const T* const a = warp.lanes<T>(instruction.operands[1]);
  const T* const b = warp.lanes<T>(instruction.operands[2]);
  const T* const c = is_product ? warp.lanes<T>(instruction.operands[3]) : nullptr;
  LaneMask out = 0;
  for_lanes(active, [&](int lane) {
    const bool in = reads && (warp.carry & lane_bit(lane)) != 0;
    T left = a[lane], right = b[lane];
    if constexpr (is_product) {
      left = kind == Carrying::low_product ? low_product(left, right) : high_product(left, right);
      right = c[lane];
    }
    bool beyond = false;
    if constexpr (kind == Carrying::difference) {
      beyond = left < right || (in && left == right);
      result[lane] = subtract(subtract(left, right), static_cast<T>(in));
    } else {
      const T sum = add(add(left, right), static_cast<T>(in));
      beyond = sum < left || (in && sum == left);
      result[lane] = sum;
    }
    if (beyond) out |= lane_bit(lane);
  });
  if (writes) warp.carry = (warp.carry & ~active) | out;
}

template <typename T, Carrying kind>
Handler carry_handler(bool reads, bool writes) {
  if (reads) return writes ? carry<T, kind, true, true> : carry<T, kind, true, false>;
  return writes ? carry<T, kind, false, true> : carry<T, kind, false, false>;
}

template <Carrying kind>
void decode_carry(const Statement& statement, Names& names, Instruction& instruction) {
  constexpr bool is_product = kind == Carrying::low_product || kind == Carrying::high_product;
  allow_parts(statement, names, {"cc", "lo", "hi"});
  const Type type = statement.type();
  if (is_product) {
    set_operands(statement, names, instruction, type, {type, type, type});
  } else {
    set_operands(statement, names, instruction, type, {type, type});
  }
  const bool reads = statement.parts[0].ends_with('c');  // addc, subc, madc
  const bool writes = statement.has("cc");
  // Signs matter to the high half of a product alone.
  if (kind == Carrying::high_product && is_signed(type)) names.refuse("signed is not known here");
  Handler handler = nullptr;
  if (bits_of(type) == 32) handler = carry_handler<uint32_t, kind>(reads, writes);
  if (bits_of(type) == 64) handler = carry_handler<uint64_t, kind>(reads, writes);
  set_handler(names, instruction, handler);
}

void decode_carry_product(const Statement& statement, Names& names, Instruction& instruction) {
  if (statement.has("hi")) {
    decode_carry<Carrying::high_product>(statement, names, instruction);
  } else {
    decode_carry<Carrying::low_product>(statement, names, instruction);
  }
}

// Opcodes that floats have as well are in both tables.
bool is_left_to_floats(const Statement& statement, Names& names, Instruction& instruction) {
  if (!is_float(statement.type())) return false;
  float_decoders().at(statement.parts[0])(statement, names, instruction);
  return true;
}

#define QNEXT_UNARY(function) \
  []<typename T>(T) -> Handler { return elementwise<function<T>, T, T>; }
#define QNEXT_BINARY(function) \
  []<typename T>(T) -> Handler { return elementwise<function<T>, T, T, T>; }

template <typename Make>
void decode_unary(const Statement& statement, Names& names, Instruction& instruction, Make make) {
  if (is_left_to_floats(statement, names, instruction)) return;
  allow_parts(statement, names, {});
  const Type type = statement.type();
  set_handler(names, instruction, for_integer(type, make));
  set_operands(statement, names, instruction, type, {type});
}

template <typename Make>
void decode_binary(const Statement& statement, Names& names, Instruction& instruction, Make make) {
  if (is_left_to_floats(statement, names, instruction)) return;
  allow_parts(statement, names, {});
  const Type type = statement.type();
  set_handler(names, instruction, for_integer(type, make));
  set_operands(statement, names, instruction, type, {type, type});
}

void decode_add(const Statement& statement, Names& names, Instruction& instruction) {
  if (statement.has("cc")) {
    decode_carry<Carrying::sum>(statement, names, instruction);
  } else {
    decode_binary(statement, names, instruction, QNEXT_BINARY(add));
  }
}

void decode_subtract(const Statement& statement, Names& names, Instruction& instruction) {
  if (statement.has("cc")) {
    decode_carry<Carrying::difference>(statement, names, instruction);
  } else {
    decode_binary(statement, names, instruction, QNEXT_BINARY(subtract));
  }
}

void decode_divide(const Statement& statement, Names& names, Instruction& instruction) {
  decode_binary(statement, names, instruction, QNEXT_BINARY(divide));
}

void decode_remainder(const Statement& statement, Names& names, Instruction& instruction) {
  decode_binary(statement, names, instruction, QNEXT_BINARY(remainder));
}

void decode_lesser(const Statement& statement, Names& names, Instruction& instruction) {
  decode_binary(statement, names, instruction, QNEXT_BINARY(lesser));
}

void decode_greater(const Statement& statement, Names& names, Instruction& instruction) {
  decode_binary(statement, names, instruction, QNEXT_BINARY(greater));
}

void decode_absolute(const Statement& statement, Names& names, Instruction& instruction) {
  decode_unary(statement, names, instruction, QNEXT_UNARY(absolute));
}

void decode_negate(const Statement& statement, Names& names, Instruction& instruction) {
  decode_unary(statement, names, instruction, QNEXT_UNARY(negate));
}

// The type of a .wide result, if there is one.
Type wider(Type type) {
  switch (type) {
    case Type::u16:
      return Type::u32;
    case Type::s16:
      return Type::s32;
    case Type::u32:
      return Type::u64;
    case Type::s32:
      return Type::s64;
    default:
      return Type::none;
  }
}

// make<T>() for the types that have a wider one.
template <typename Make>
Handler for_narrow_integer(Type type, Make&& make) {
  switch (type) {
    case Type::u16:
      return make(uint16_t{});
    case Type::s16:
      return make(int16_t{});
    case Type::u32:
      return make(uint32_t{});
    case Type::s32:
      return make(int32_t{});
    default:
      return nullptr;
  }
}

void decode_multiply(const Statement& statement, Names& names, Instruction& instruction) {
  if (is_left_to_floats(statement, names, instruction)) return;
  allow_parts(statement, names, {"lo", "hi", "wide"});
  const Type type = statement.type();
  Handler handler = nullptr;
  if (statement.has("wide")) {
    handler = for_narrow_integer(type, []<typename T>(T) -> Handler {
      return elementwise<wide_product<T>, Wider<T>, T, T>;
    });
  } else if (statement.has("hi")) {
    handler = for_integer(type, QNEXT_BINARY(high_product));
  } else if (statement.has("lo")) {
    handler = for_integer(type, QNEXT_BINARY(low_product));
  }
  set_handler(names, instruction, handler);
  set_operands(statement, names, instruction, statement.has("wide") ? wider(type) : type,
               {type, type});
}

void decode_multiply_add(const Statement& statement, Names& names, Instruction& instruction) {
  if (is_left_to_floats(statement, names, instruction)) return;
  if (statement.has("cc")) return decode_carry_product(statement, names, instruction);
  allow_parts(statement, names, {"lo", "hi", "wide"});
  const Type type = statement.type();
  Handler handler = nullptr;
  if (statement.has("wide")) {
    handler = for_narrow_integer(type, []<typename T>(T) -> Handler {
      return elementwise<wide_multiply_add<T>, Wider<T>, T, T, Wider<T>>;
    });
  } else if (statement.has("hi")) {
    handler = for_integer(type, []<typename T>(T) -> Handler {
      return elementwise<high_multiply_add<T>, T, T, T, T>;
    });
  } else if (statement.has("lo")) {
    handler = for_integer(type, []<typename T>(T) -> Handler {
      return elementwise<low_multiply_add<T>, T, T, T, T>;
    });
  }
  set_handler(names, instruction, handler);
  const Type sum = statement.has("wide") ? wider(type) : type;
  set_operands(statement, names, instruction, sum, {type, type, sum});
}

}  // namespace

const Decoders& integer_decoders() {
  static const Decoders decoders = [] {
    Decoders all = {{"add", decode_add},
                    {"addc", decode_carry<Carrying::sum>},
                    {"sub", decode_subtract},
                    {"subc", decode_carry<Carrying::difference>},
                    {"mul", decode_multiply},
                    {"mad", decode_multiply_add},
                    {"madc", decode_carry_product},
                    {"div", decode_divide},
                    {"rem", decode_remainder},
                    {"min", decode_lesser},
                    {"max", decode_greater},
                    {"abs", decode_absolute},
                    {"neg", decode_negate}};
    all.insert(bit_decoders().begin(), bit_decoders().end());
    return all;
  }();
  return decoders;
}

}  // namespace qnext::emulator
