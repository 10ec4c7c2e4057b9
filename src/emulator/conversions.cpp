// cvt: between types and widths.
//
// A register may be wider than its type: its low bits are read, and a result is extended to it by
// the sign of the result's type.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <type_traits>

#include "emulator/elementwise.h"
#include "emulator/narrow_floats.h"

namespace qnext::emulator {
namespace {

enum class Rounding { nearest, zero, down, up };

// The two types of a cvt and the widths of its registers.
struct Conversion {
  Type to = Type::none, from = Type::none;
  int to_register = 0, from_register = 0;
};

// A register of any width, or an immediate of the type's own.
Operand source_of(const Argument& argument, Type type, Names& names, int& width) {
  width = names.width(argument.text);
  if (width == 0) {
    width = std::max(bits_of(type), 16);
    return names.source(argument, type);
  }
  if (width < bits_of(type)) names.refuse("the source register is too narrow");
  return names.register_of(argument.text);
}

Conversion read_operands(const Statement& statement, Names& names, Instruction& instruction) {
  if (statement.arguments.size() != 2) names.refuse("this number of operands is not known here");
  Conversion conversion;
  conversion.to = statement.type(1);
  conversion.from = statement.type();
  const Argument& destination = statement.arguments[0];
  conversion.to_register = names.width(destination.text);
  if (conversion.to_register < std::max(bits_of(conversion.to), 16))
    names.refuse("the destination register is too narrow");
  instruction.operands[0] = names.register_of(destination.text);
  instruction.operands[1] =
      source_of(statement.arguments[1], conversion.from, names, conversion.from_register);
  return conversion;
}

// make(T{}) for any integer type, of 8 bits too.
template <typename Make>
Handler for_any_integer(Type type, Make&& make) {
  if (type == Type::u8 || type == Type::b8) return make(uint8_t{});
  if (type == Type::s8) return make(int8_t{});
  return for_integer(type, make);
}

// ---- integer to integer ----

// What is kept of the source, as a type of its own, extended to the whole register.
template <typename ToRegister, typename Kept, typename FromRegister>
ToRegister resize(FromRegister a) {
  return static_cast<ToRegister>(static_cast<Kept>(a));
}

// The type whose bits reach the result.
Type kept_type(const Conversion& conversion, Names& names) {
  const int to = bits_of(conversion.to), from = bits_of(conversion.from);
  if (to <= from) return conversion.to;
  if (is_signed(conversion.from) && !is_signed(conversion.to) && conversion.to_register > to)
    names.refuse("two different extensions are not known here");
  return conversion.from;
}

Handler integer_to_integer(const Conversion& conversion, Names& names) {
  const Type kept = kept_type(conversion, names);
  return for_any_integer(kept, [&]<typename Kept>(Kept) -> Handler {
    return for_width(conversion.to_register, [&]<typename ToRegister>(ToRegister) -> Handler {
      return for_width(
          conversion.from_register, []<typename FromRegister>(FromRegister) -> Handler {
            if constexpr (sizeof(Kept) <= sizeof(ToRegister) &&
                          sizeof(Kept) <= sizeof(FromRegister)) {
              return elementwise<resize<ToRegister, Kept, FromRegister>, ToRegister, FromRegister>;
            } else {
              return nullptr;
            }
          });
    });
  });
}

// ---- integer to float, to nearest ----

template <typename To, typename From, typename FromRegister>
To float_of_integer(FromRegister a) {
  return static_cast<To>(static_cast<From>(a));
}

// f16 has no integers that float does not.
template <typename From, typename FromRegister>
uint16_t f16_of_integer(FromRegister a) {
  return f16_from(static_cast<float>(static_cast<From>(a)));
}

template <typename From, typename FromRegister>
Handler integer_to(Type type) {
  if (type == Type::f32) {
    return elementwise<float_of_integer<float, From, FromRegister>, float, FromRegister>;
  }
  if (type == Type::f64) {
    return elementwise<float_of_integer<double, From, FromRegister>, double, FromRegister>;
  }
  if (type == Type::f16)
    return elementwise<f16_of_integer<From, FromRegister>, uint16_t, FromRegister>;
  return nullptr;
}

Handler integer_to_float(const Conversion& conversion, Rounding mode) {
  if (mode != Rounding::nearest || conversion.to_register != bits_of(conversion.to)) return nullptr;
  return for_any_integer(conversion.from, [&]<typename From>(From) -> Handler {
    return for_width(conversion.from_register, [&]<typename FromRegister>(FromRegister) -> Handler {
      if constexpr (sizeof(From) <= sizeof(FromRegister)) {
        return integer_to<From, FromRegister>(conversion.to);
      } else {
        return nullptr;
      }
    });
  });
}

// ---- float to integer ----

template <Rounding mode, typename T>
T integral(T value) {
  switch (mode) {
    case Rounding::nearest:
      return std::nearbyint(value);
    case Rounding::zero:
      return std::trunc(value);
    case Rounding::down:
      return std::floor(value);
    default:
      return std::ceil(value);
  }
}

// Beyond the type's ends are the ends. NaN is 0; where f64 or 64 bits take part, the top bit alone.
template <typename To, bool from_f64>
To saturated(double value) {
  constexpr To least = std::numeric_limits<To>::min(), most = std::numeric_limits<To>::max();
  constexpr int digits = std::numeric_limits<To>::digits;
  if (value != value) {
    const auto top = static_cast<To>(std::make_unsigned_t<To>{1} << (sizeof(To) * 8 - 1));
    return from_f64 || sizeof(To) == 8 ? top : To{0};
  }
  if (value >= 2.0 * static_cast<double>(uint64_t{1} << (digits - 1))) return most;
  if (value <= static_cast<double>(least)) return least;
  return static_cast<To>(value);
}

template <typename From>
double widened(From value) {
  if constexpr (std::is_same_v<From, uint16_t>) {
    return float_from_f16(value);
  } else {
    return value;
  }
}

template <typename ToRegister, typename To, typename From, Rounding mode>
ToRegister integer_of_float(From value) {
  constexpr bool from_f64 = std::is_same_v<From, double>;
  return static_cast<ToRegister>(saturated<To, from_f64>(integral<mode>(widened(value))));
}

template <typename ToRegister, typename To, typename From>
Handler float_rounding(Rounding mode) {
  switch (mode) {
    case Rounding::nearest:
      return elementwise<integer_of_float<ToRegister, To, From, Rounding::nearest>, ToRegister,
                         From>;
    case Rounding::zero:
      return elementwise<integer_of_float<ToRegister, To, From, Rounding::zero>, ToRegister, From>;
    case Rounding::down:
      return elementwise<integer_of_float<ToRegister, To, From, Rounding::down>, ToRegister, From>;
    default:
      return elementwise<integer_of_float<ToRegister, To, From, Rounding::up>, ToRegister, From>;
  }
}

Handler float_to_integer(const Conversion& conversion, Rounding mode) {
  if (conversion.from_register != bits_of(conversion.from)) return nullptr;
  return for_any_integer(conversion.to, [&]<typename To>(To) -> Handler {
    return for_width(conversion.to_register, [&]<typename ToRegister>(ToRegister) -> Handler {
      if constexpr (sizeof(To) <= sizeof(ToRegister)) {
        if (conversion.from == Type::f16) return float_rounding<ToRegister, To, uint16_t>(mode);
        if (conversion.from == Type::f32) return float_rounding<ToRegister, To, float>(mode);
        if (conversion.from == Type::f64) return float_rounding<ToRegister, To, double>(mode);
      }
      return nullptr;
    });
  });
}

// ---- float to float ----

float saturate(float value) {
  if (!(value > 0.0f)) return 0.0f;  // NaN too
  return value < 1.0f ? value : 1.0f;
}

template <Rounding mode>
float f32_of_f64(double value) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const auto nearest = static_cast<float>(value);
  const auto wide = static_cast<double>(nearest);
  if (mode == Rounding::zero && std::fabs(wide) > std::fabs(value))
    return std::nextafter(nearest, 0.0f);
  if (mode == Rounding::down && wide > value) return std::nextafter(nearest, -infinity);
  if (mode == Rounding::up && wide < value) return std::nextafter(nearest, infinity);
  return with_canonical_nan(nearest);
}

double f64_of_f32(float value) {
  return value;
}

template <Rounding mode, typename T>
T whole_of(T value) {
  const T whole = integral<mode>(value);
  if constexpr (std::is_same_v<T, float>) {
    return with_canonical_nan(whole);
  } else {
    return whole;
  }
}

template <typename T>
Handler to_integral(Rounding mode) {
  switch (mode) {
    case Rounding::nearest:
      return elementwise<whole_of<Rounding::nearest, T>, T, T>;
    case Rounding::zero:
      return elementwise<whole_of<Rounding::zero, T>, T, T>;
    case Rounding::down:
      return elementwise<whole_of<Rounding::down, T>, T, T>;
    default:
      return elementwise<whole_of<Rounding::up, T>, T, T>;
  }
}

Handler to_f32(Rounding mode) {
  switch (mode) {
    case Rounding::nearest:
      return elementwise<f32_of_f64<Rounding::nearest>, float, double>;
    case Rounding::zero:
      return elementwise<f32_of_f64<Rounding::zero>, float, double>;
    case Rounding::down:
      return elementwise<f32_of_f64<Rounding::down>, float, double>;
    default:
      return elementwise<f32_of_f64<Rounding::up>, float, double>;
  }
}

// The modes that an opcode names.
struct Modes {
  Rounding rounding = Rounding::nearest;
  bool to_integral = false;  // .rni and its relatives
  bool saturates = false;
  bool named = false;  // a rounding mode is
};

Modes modes_of(const Statement& statement) {
  Modes modes;
  modes.saturates = statement.has("sat");
  const auto look = [&](std::string_view part, std::string_view integral_part, Rounding rounding) {
    const bool is_integral = statement.has(integral_part);
    if (!statement.has(part) && !is_integral) return;
    modes.rounding = rounding;
    modes.to_integral = is_integral;
    modes.named = true;
  };
  look("rn", "rni", Rounding::nearest);
  look("rz", "rzi", Rounding::zero);
  look("rm", "rmi", Rounding::down);
  look("rp", "rpi", Rounding::up);
  return modes;
}

Handler float_to_float(const Conversion& conversion, const Modes& modes) {
  const Type to = conversion.to, from = conversion.from;
  if (conversion.to_register != bits_of(to) || conversion.from_register != bits_of(from))
    return nullptr;
  if (modes.saturates) {
    const bool known = to == Type::f32 && from == Type::f32 && !modes.named;
    return known ? elementwise<saturate, float, float> : nullptr;
  }
  if (to == from && modes.to_integral) {
    if (to == Type::f32) return to_integral<float>(modes.rounding);
    if (to == Type::f64) return to_integral<double>(modes.rounding);
    return nullptr;
  }
  if (to == Type::f32 && from == Type::f64) return to_f32(modes.rounding);
  if (modes.rounding != Rounding::nearest) return nullptr;
  if (to == Type::f64 && from == Type::f32) return elementwise<f64_of_f32, double, float>;
  if (to == Type::f32 && from == Type::f16) return elementwise<float_from_f16, float, uint16_t>;
  if (to == Type::f32 && from == Type::bf16) return elementwise<float_from_bf16, float, uint16_t>;
  if (to == Type::f16 && from == Type::f32) return elementwise<f16_from, uint16_t, float>;
  if (to == Type::bf16 && from == Type::f32) return elementwise<bf16_from, uint16_t, float>;
  return nullptr;
}

// ---- pairs: the first source is the high half ----

template <auto narrow>
uint32_t pair_of(float high, float low) {
  return static_cast<uint32_t>(narrow(high)) << 16 | narrow(low);
}

uint16_t e4m3_pair_of(float high, float low) {
  return static_cast<uint16_t>(e4m3_from(high) << 8 | e4m3_from(low));
}

uint16_t e4m3_pair_of_f16(uint32_t pair) {
  return e4m3_pair_of(float_from_f16(static_cast<uint16_t>(pair >> 16)),
                      float_from_f16(static_cast<uint16_t>(pair)));
}

uint32_t f16_pair_of_e4m3(uint16_t pair) {
  return static_cast<uint32_t>(f16_of_e4m3[pair >> 8]) << 16 | f16_of_e4m3[pair & 0xFFu];
}

void decode_pair(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {"rn", "satfinite"});
  const Type to = statement.type(1), from = statement.type();
  Handler handler = nullptr;
  if (from == Type::f32) {
    set_operands(statement, names, instruction, to, {from, from});
    if (to == Type::bf16x2) handler = elementwise<pair_of<bf16_from>, uint32_t, float, float>;
    if (to == Type::f16x2) handler = elementwise<pair_of<f16_from>, uint32_t, float, float>;
    if (to == Type::e4m3x2) handler = elementwise<e4m3_pair_of, uint16_t, float, float>;
  } else {
    set_operands(statement, names, instruction, to, {from});
    if (to == Type::f16x2 && from == Type::e4m3x2)
      handler = elementwise<f16_pair_of_e4m3, uint32_t, uint16_t>;
    if (to == Type::e4m3x2 && from == Type::f16x2)
      handler = elementwise<e4m3_pair_of_f16, uint16_t, uint32_t>;
  }
  // Without satfinite large numbers become infinite, which e4m3 has not.
  if ((to == Type::e4m3x2) != statement.has("satfinite")) handler = nullptr;
  set_handler(names, instruction, handler);
}

bool is_pair(Type type) {
  return type == Type::f16x2 || type == Type::bf16x2 || type == Type::e4m3x2;
}

void decode_conversion(const Statement& statement, Names& names, Instruction& instruction) {
  if (is_pair(statement.type(1))) return decode_pair(statement, names, instruction);
  allow_parts(statement, names, {"rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "sat"});
  if (statement.type() == Type::none || statement.type(1) == Type::none)
    names.refuse("these types are not known here");
  const Conversion conversion = read_operands(statement, names, instruction);
  const Modes modes = modes_of(statement);
  const bool to_float = is_float(conversion.to), from_float = is_float(conversion.from);
  Handler handler = nullptr;
  if (to_float && from_float) {
    handler = float_to_float(conversion, modes);
  } else if (!modes.saturates) {
    if (to_float) {
      handler = integer_to_float(conversion, modes.rounding);
    } else if (from_float) {
      handler = float_to_integer(conversion, modes.rounding);
    } else {
      handler = integer_to_integer(conversion, names);
    }
  }
  set_handler(names, instruction, handler);
}

}  // namespace

const Decoders& conversion_decoders() {
  static const Decoders decoders = {{"cvt", decode_conversion}};
  return decoders;
}

}  // namespace qnext::emulator
