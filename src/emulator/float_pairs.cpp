#include "emulator/float_pairs.h"

#include <cstdint>

#include "emulator/elementwise.h"
#include "emulator/narrow_floats.h"

namespace qnext::emulator {
namespace {

struct F16 {
  static float widen(uint16_t bits) { return float_from_f16(bits); }
  static uint16_t narrow(float value) { return f16_from(value); }
};

struct Bf16 {
  static float widen(uint16_t bits) { return float_from_bf16(bits); }
  static uint16_t narrow(float value) { return bf16_from(value); }
};

// float has more than twice the bits of either format and two more, so that rounding a sum,
// difference or product to float first changes nothing. Products of bf16 too small for float to
// hold are below half of the smallest bf16, before and after.
struct Sum {
  static float of(float a, float b) { return a + b; }
};

struct Difference {
  static float of(float a, float b) { return a - b; }
};

struct Product {
  static float of(float a, float b) { return a * b; }
};

template <typename Format, typename Operation>
uint16_t combine_one(uint16_t a, uint16_t b) {
  return Format::narrow(Operation::of(Format::widen(a), Format::widen(b)));
}

template <typename Format, typename Operation>
uint32_t combine_pair(uint32_t a, uint32_t b) {
  const uint32_t low =
      combine_one<Format, Operation>(static_cast<uint16_t>(a), static_cast<uint16_t>(b));
  const uint32_t high = combine_one<Format, Operation>(static_cast<uint16_t>(a >> 16),
                                                       static_cast<uint16_t>(b >> 16));
  return high << 16 | low;
}

template <typename Format>
uint16_t fuse_one(uint16_t a, uint16_t b, uint16_t c) {
  return Format::narrow(narrow_fma(Format::widen(a), Format::widen(b), Format::widen(c)));
}

template <typename Format>
uint32_t fuse_pair(uint32_t a, uint32_t b, uint32_t c) {
  const uint32_t low = fuse_one<Format>(static_cast<uint16_t>(a), static_cast<uint16_t>(b),
                                        static_cast<uint16_t>(c));
  const uint32_t high =
      fuse_one<Format>(static_cast<uint16_t>(a >> 16), static_cast<uint16_t>(b >> 16),
                       static_cast<uint16_t>(c >> 16));
  return high << 16 | low;
}

template <typename Format, typename Operation>
Handler combination(bool is_pair) {
  if (is_pair) return elementwise<combine_pair<Format, Operation>, uint32_t, uint32_t, uint32_t>;
  return elementwise<combine_one<Format, Operation>, uint16_t, uint16_t, uint16_t>;
}

template <typename Format>
Handler handler_of(std::string_view operation, bool is_pair) {
  if (operation == "add") return combination<Format, Sum>(is_pair);
  if (operation == "sub") return combination<Format, Difference>(is_pair);
  if (operation == "mul") return combination<Format, Product>(is_pair);
  if (operation != "fma") return nullptr;
  if (is_pair) return elementwise<fuse_pair<Format>, uint32_t, uint32_t, uint32_t, uint32_t>;
  return elementwise<fuse_one<Format>, uint16_t, uint16_t, uint16_t, uint16_t>;
}

}  // namespace

void decode_narrow_float(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {"rn"});
  const Type type = statement.type();
  const bool is_pair = bits_of(type) == 32;
  const std::string_view operation = statement.parts[0];
  Handler handler = nullptr;
  if (type == Type::f16 || type == Type::f16x2) handler = handler_of<F16>(operation, is_pair);
  if (type == Type::bf16 || type == Type::bf16x2) handler = handler_of<Bf16>(operation, is_pair);
  set_handler(names, instruction, handler);
  if (operation == "fma") {
    set_operands(statement, names, instruction, type, {type, type, type});
  } else {
    set_operands(statement, names, instruction, type, {type, type});
  }
}

}  // namespace qnext::emulator
