// Integers, bits, conversions among them, and carries.
#include <gtest/gtest.h>

#include "emulator/arithmetic_test.h"

namespace qnext::emulator {
namespace {

__extension__ using Signed128 = __int128;
__extension__ using Unsigned128 = unsigned __int128;

template <typename Signed, typename Unsigned>
void check_integers(std::string_view suffix, std::string_view prefix, const RegisterKind& kind) {
  const Words inputs = operands(integer_edges());
  constexpr int bits = std::numeric_limits<Unsigned>::digits;
  const auto two = [&](std::string_view operation, char type, auto expected) {
    check(fmt::format("{}.{}{} {}3, {}0, {}1;", operation, type, suffix, prefix, prefix, prefix),
          kind, inputs, [&](uint64_t a, uint64_t b, uint64_t) {
            return static_cast<uint64_t>(static_cast<Unsigned>(
                expected(static_cast<Unsigned>(a), static_cast<Unsigned>(b))));
          });
  };
  const auto sign = [](Unsigned value) { return static_cast<Signed>(value); };
  two("add", 's', [](Unsigned a, Unsigned b) { return Unsigned128{a} + b; });
  two("sub", 's', [](Unsigned a, Unsigned b) { return Unsigned128{a} - b; });
  two("mul.lo", 's', [](Unsigned a, Unsigned b) { return Unsigned128{a} * b; });
  two("mul.hi", 'u', [](Unsigned a, Unsigned b) { return (Unsigned128{a} * b) >> bits; });
  two("mul.hi", 's',
      [&](Unsigned a, Unsigned b) { return (Signed128{sign(a)} * Signed128{sign(b)}) >> bits; });
  two("min", 's', [&](Unsigned a, Unsigned b) { return std::min(sign(a), sign(b)); });
  two("max", 's', [&](Unsigned a, Unsigned b) { return std::max(sign(a), sign(b)); });
  two("min", 'u', [](Unsigned a, Unsigned b) { return std::min(a, b); });
  two("max", 'u', [](Unsigned a, Unsigned b) { return std::max(a, b); });
  two("div", 'u', [](Unsigned a, Unsigned b) { return b == 0 ? Unsigned128{0} - 1 : a / b; });
  two("rem", 'u', [](Unsigned a, Unsigned b) { return b == 0 ? a : a % b; });
  two("div", 's', [&](Unsigned a, Unsigned b) {
    return b == 0 ? Signed128{-1} : Signed128{sign(a)} / Signed128{sign(b)};
  });
  two("rem", 's', [&](Unsigned a, Unsigned b) {
    return b == 0 ? Signed128{sign(a)} : Signed128{sign(a)} % Signed128{sign(b)};
  });
  two("and", 'b', [](Unsigned a, Unsigned b) { return a & b; });
  two("or", 'b', [](Unsigned a, Unsigned b) { return a | b; });
  two("xor", 'b', [](Unsigned a, Unsigned b) { return a ^ b; });
  check(fmt::format("not.b{} {}3, {}0;", suffix, prefix, prefix), kind, inputs,
        [](uint64_t a, uint64_t, uint64_t) { return uint64_t{static_cast<Unsigned>(~a)}; });
  check(fmt::format("neg.s{} {}3, {}0;", suffix, prefix, prefix), kind, inputs,
        [](uint64_t a, uint64_t, uint64_t) { return uint64_t{static_cast<Unsigned>(0 - a)}; });
  check(fmt::format("abs.s{} {}3, {}0;", suffix, prefix, prefix), kind, inputs,
        [&](uint64_t a, uint64_t, uint64_t) {
          const bool negative = sign(static_cast<Unsigned>(a)) < 0;
          return uint64_t{static_cast<Unsigned>(negative ? 0 - a : a)};
        });
  check(fmt::format("mad.lo.s{} {}3, {}0, {}1, {}2;", suffix, prefix, prefix, prefix, prefix), kind,
        inputs, [](uint64_t a, uint64_t b, uint64_t c) {
          return uint64_t{static_cast<Unsigned>(a * b + c)};
        });
}

TEST(EmulatorIntegers, Of16Bits) {
  check_integers<int16_t, uint16_t>("16", "%rs", words16);
}

TEST(EmulatorIntegers, Of32Bits) {
  check_integers<int32_t, uint32_t>("32", "%r", words32);
}

TEST(EmulatorIntegers, Of64Bits) {
  check_integers<int64_t, uint64_t>("64", "%rd", words64);
}

TEST(EmulatorIntegers, WideProducts) {
  const Words inputs = operands(integer_edges());
  const RegisterKind to64{words32.before, words64.after};
  check("mul.wide.s32 %rd3, %r0, %r1;", to64, inputs, [](uint64_t a, uint64_t b, uint64_t) {
    return static_cast<uint64_t>(int64_t{static_cast<int32_t>(a)} * static_cast<int32_t>(b));
  });
  check("mul.wide.u32 %rd3, %r0, %r1;", to64, inputs,
        [](uint64_t a, uint64_t b, uint64_t) { return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF); });
  check("mov.b64 %rd2, %in2; mad.wide.u32 %rd3, %r0, %r1, %rd2;", to64, inputs,
        [](uint64_t a, uint64_t b, uint64_t c) { return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF) + c; });
  const RegisterKind to32{words16.before, words32.after};
  check("mul.wide.u16 %r3, %rs0, %rs1;", to32, inputs,
        [](uint64_t a, uint64_t b, uint64_t) { return (a & 0xFFFF) * (b & 0xFFFF); });
  check("mul.wide.s16 %r3, %rs0, 4;", to32, inputs, [](uint64_t a, uint64_t, uint64_t) {
    return uint64_t{static_cast<uint32_t>(static_cast<int16_t>(a) * 4)};
  });
}

TEST(EmulatorIntegers, CarriesReachThroughWords) {
  const Words inputs = operands(integer_edges());
  const std::string_view split = "mov.b64 {%r0, %r1}, %in0; mov.b64 {%r2, %r3}, %in1;";
  const RegisterKind whole{split, "mov.b64 %out0, {%r4, %r5};"};
  check("add.cc.u32 %r4, %r0, %r2; addc.u32 %r5, %r1, %r3;", whole, inputs,
        [](uint64_t a, uint64_t b, uint64_t) { return a + b; });
  check("sub.cc.u32 %r4, %r0, %r2; subc.u32 %r5, %r1, %r3;", whole, inputs,
        [](uint64_t a, uint64_t b, uint64_t) { return a - b; });
  // The carry out of the highest word.
  const RegisterKind beyond{split, "cvt.u64.u32 %out0, %r6;"};
  check("add.cc.u32 %r4, %r0, %r2; addc.cc.u32 %r5, %r1, %r3; addc.u32 %r6, 0, 0;", beyond, inputs,
        [](uint64_t a, uint64_t b, uint64_t) { return uint64_t{a + b < a}; });
  check("sub.cc.u32 %r4, %r0, %r2; subc.cc.u32 %r5, %r1, %r3; subc.u32 %r6, 0, 0;", beyond, inputs,
        [](uint64_t a, uint64_t b, uint64_t) { return uint64_t{a < b ? 0xFFFFFFFFu : 0u}; });
  // The high 64 bits of a product of 64, as a compiler writes them.
  const RegisterKind high{split, "mov.b64 %out0, {%r6, %r7};"};
  check(
      "mul.lo.u32 %r4, %r0, %r2; mul.hi.u32 %r5, %r0, %r2;"
      "mad.lo.cc.u32 %r5, %r0, %r3, %r5; madc.hi.u32 %r6, %r0, %r3, 0;"
      "mad.lo.cc.u32 %r5, %r1, %r2, %r5; madc.hi.cc.u32 %r6, %r1, %r2, %r6;"
      "madc.hi.u32 %r7, %r1, %r3, 0; mad.lo.cc.u32 %r6, %r1, %r3, %r6; addc.u32 %r7, %r7, 0;",
      high, inputs, [](uint64_t a, uint64_t b, uint64_t) {
        return static_cast<uint64_t>((Unsigned128{a} * b) >> 64);
      });
}

// By an amount of each thread and by one of all.
template <typename Signed, typename Unsigned>
void check_shifts(std::string_view suffix, std::string_view prefix, const RegisterKind& kind) {
  const Words inputs = operands(integer_edges());
  constexpr uint32_t bits = std::numeric_limits<Unsigned>::digits;
  const auto left = [](uint64_t a, uint32_t n) -> uint64_t {
    return n < bits ? static_cast<Unsigned>(a << n) : 0;
  };
  const auto right = [](uint64_t a, uint32_t n) -> uint64_t {
    return n < bits ? static_cast<Unsigned>(a) >> n : 0;
  };
  const auto signed_right = [](uint64_t a, uint32_t n) -> uint64_t {
    return static_cast<Unsigned>(static_cast<Signed>(a) >> std::min(n, bits - 1));
  };
  const auto both = [&](std::string_view operation, auto expected) {
    check(fmt::format("cvt.u32.u64 %r9, %in1; {}{} {}3, {}0, %r9;", operation, suffix, prefix,
                      prefix),
          kind, inputs,
          [&](uint64_t a, uint64_t b, uint64_t) { return expected(a, static_cast<uint32_t>(b)); });
    for (const uint32_t amount : {0, 1, 15, 16, 31, 32, 33, 63, 64, 70}) {
      check(fmt::format("{}{} {}3, {}0, {};", operation, suffix, prefix, prefix, amount), kind,
            inputs, [&](uint64_t a, uint64_t, uint64_t) { return expected(a, amount); });
    }
  };
  both("shl.b", left);
  both("shr.u", right);
  both("shr.b", right);
  both("shr.s", signed_right);
}

TEST(EmulatorBits, ShiftsEndAtTheWidth) {
  check_shifts<int16_t, uint16_t>("16", "%rs", words16);
  check_shifts<int32_t, uint32_t>("32", "%r", words32);
  check_shifts<int64_t, uint64_t>("64", "%rd", words64);
}

TEST(EmulatorBits, FunnelShifts) {
  const Words inputs = operands(integer_edges());
  const auto whole = [](uint64_t a, uint64_t b) { return b << 32 | (a & 0xFFFFFFFF); };
  check("shf.l.wrap.b32 %r3, %r0, %r1, %r2;", words32, inputs,
        [&](uint64_t a, uint64_t b, uint64_t c) { return (whole(a, b) << (c & 31)) >> 32; });
  check("shf.r.wrap.b32 %r3, %r0, %r1, %r2;", words32, inputs,
        [&](uint64_t a, uint64_t b, uint64_t c) { return (whole(a, b) >> (c & 31)) & 0xFFFFFFFF; });
  check("shf.l.clamp.b32 %r3, %r0, %r1, %r2;", words32, inputs,
        [&](uint64_t a, uint64_t b, uint64_t c) {
          return (whole(a, b) << std::min(c & 0xFFFFFFFF, uint64_t{32})) >> 32;
        });
  check("shf.r.clamp.b32 %r3, %r0, %r1, %r2;", words32, inputs,
        [&](uint64_t a, uint64_t b, uint64_t c) {
          return (whole(a, b) >> std::min(c & 0xFFFFFFFF, uint64_t{32})) & 0xFFFFFFFF;
        });
}

// Bit by bit, as PTX defines them.
uint64_t inserted(uint64_t field, uint64_t into, uint64_t position, uint64_t length,
                  uint64_t bits) {
  for (uint64_t i = 0; i < length && position + i < bits; ++i) {
    const uint64_t bit = uint64_t{1} << (position + i);
    into = (field >> i & 1) != 0 ? into | bit : into & ~bit;
  }
  return into;
}

uint64_t extracted(uint64_t a, uint64_t position, uint64_t length, uint64_t bits, bool is_signed) {
  const bool sign =
      is_signed && length != 0 && (a >> std::min(position + length - 1, bits - 1) & 1) != 0;
  uint64_t result = 0;
  for (uint64_t i = 0; i < bits; ++i) {
    const bool inside = i < length && position + i < bits;
    const bool bit = inside ? (a >> (position + i) & 1) != 0 : sign;
    result |= uint64_t{bit} << i;
  }
  return result;
}

TEST(EmulatorBits, Fields) {
  const Words inputs = operands(integer_edges(), 4000);
  const std::string_view places =
      "cvt.u32.u64 %r8, %in2; shr.u32 %r9, %r8, 8; and.b32 %r9, %r9, 127;";
  const auto position = [](uint64_t c) { return c & 0xFF; };
  const auto length = [](uint64_t c) { return c >> 8 & 127; };
  check(fmt::format("{} bfi.b32 %r3, %r0, %r1, %r8, %r9;", places), words32, inputs,
        [&](uint64_t a, uint64_t b, uint64_t c) {
          return inserted(a, b & 0xFFFFFFFF, position(c), length(c), 32);
        });
  check(fmt::format("{} bfi.b64 %rd3, %rd0, %rd1, %r8, %r9;", places), words64, inputs,
        [&](uint64_t a, uint64_t b, uint64_t c) {
          return inserted(a, b, position(c), length(c), 64);
        });
  check("bfi.b32 %r3, %r0, %r1, 6, 26;", words32, inputs,
        [&](uint64_t a, uint64_t b, uint64_t) { return inserted(a, b & 0xFFFFFFFF, 6, 26, 32); });
  for (const bool is_signed : {false, true}) {
    const char type = is_signed ? 's' : 'u';
    check(fmt::format("{} bfe.{}32 %r3, %r0, %r8, %r9;", places, type), words32, inputs,
          [&](uint64_t a, uint64_t, uint64_t c) {
            return extracted(a, position(c), length(c), 32, is_signed);
          });
    check(fmt::format("{} bfe.{}64 %rd3, %rd0, %r8, %r9;", places, type), words64, inputs,
          [&](uint64_t a, uint64_t, uint64_t c) {
            return extracted(a, position(c), length(c), 64, is_signed);
          });
  }
}

TEST(EmulatorBits, LogicOfThreeAndPermutations) {
  const Words inputs = operands(integer_edges());
  for (const uint32_t table : {0x00u, 0xEAu, 0x96u, 0xE8u, 0x80u, 0xCAu, 0xFFu, 0x17u}) {
    check(fmt::format("lop3.b32 %r3, %r0, %r1, %r2, {:#x};", table), words32, inputs,
          [&](uint64_t a, uint64_t b, uint64_t c) {
            uint64_t result = 0;
            for (int i = 0; i < 32; ++i) {
              const uint64_t entry = (a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1);
              result |= uint64_t{table >> entry & 1u} << i;
            }
            return result;
          });
  }
  check("prmt.b32 %r3, %r0, %r1, %r2;", words32, inputs, [](uint64_t a, uint64_t b, uint64_t c) {
    uint64_t result = 0;
    for (int i = 0; i < 4; ++i) {
      const int choice = static_cast<int>(c >> (4 * i) & 15);
      const uint64_t word = (choice & 4) != 0 ? b : a;
      const auto byte = static_cast<int8_t>(word >> (8 * (choice & 3)));
      const int value = (choice & 8) == 0 ? byte : byte < 0 ? -1 : 0;
      result |= uint64_t{static_cast<uint8_t>(value)} << (8 * i);
    }
    return result;
  });
}

TEST(EmulatorBits, Searches) {
  const Words inputs = operands(integer_edges());
  const RegisterKind from64{words64.before, words32.after};
  const auto highest = [](uint64_t a) -> uint64_t {
    return a == 0 ? 0xFFFFFFFF : 63 - static_cast<uint64_t>(std::countl_zero(a));
  };
  const auto one = [&](std::string_view statement, const RegisterKind& kind, auto expected) {
    check(statement, kind, inputs, [&](uint64_t a, uint64_t, uint64_t) { return expected(a); });
  };
  one("popc.b32 %r3, %r0;", words32,
      [](uint64_t a) -> uint64_t { return static_cast<uint64_t>(std::popcount(a & 0xFFFFFFFF)); });
  one("clz.b64 %r3, %rd0;", from64,
      [](uint64_t a) { return static_cast<uint64_t>(std::countl_zero(a)); });
  one("bfind.u32 %r3, %r0;", words32, [&](uint64_t a) { return highest(a & 0xFFFFFFFF); });
  one("bfind.u64 %r3, %rd0;", from64, highest);
  one("bfind.s64 %r3, %rd0;", from64, [&](uint64_t a) { return highest(a >> 63 != 0 ? ~a : a); });
  one("bfind.shiftamt.u32 %r3, %r0;", words32, [&](uint64_t a) {
    const uint64_t bit = highest(a & 0xFFFFFFFF);
    return bit == 0xFFFFFFFF ? bit : 31 - bit;
  });
  one("brev.b32 %r3, %r0;", words32, [](uint64_t a) {
    uint64_t result = 0;
    for (int i = 0; i < 32; ++i) result |= (a >> i & 1) << (31 - i);
    return result;
  });
}

TEST(EmulatorConversions, AmongIntegers) {
  const Words inputs = operands(integer_edges());
  const auto one = [&](std::string_view statement, const RegisterKind& kind, auto expected) {
    check(statement, kind, inputs,
          [&](uint64_t a, uint64_t, uint64_t) { return static_cast<uint64_t>(expected(a)); });
  };
  const RegisterKind to64{words32.before, words64.after}, to32{words64.before, words32.after};
  const RegisterKind from16{words16.before, words32.after};
  one("cvt.s64.s32 %rd3, %r0;", to64, [](uint64_t a) { return static_cast<int32_t>(a); });
  one("cvt.u64.u32 %rd3, %r0;", to64, [](uint64_t a) { return static_cast<uint32_t>(a); });
  one("cvt.s64.s32 %rd3, %rd0;", words64, [](uint64_t a) { return static_cast<int32_t>(a); });
  one("cvt.u32.u64 %r3, %rd0;", to32, [](uint64_t a) { return static_cast<uint32_t>(a); });
  one("cvt.u32.u16 %r3, %rs0;", from16, [](uint64_t a) { return static_cast<uint16_t>(a); });
  one("cvt.s32.s16 %r3, %rs0;", from16,
      [](uint64_t a) { return static_cast<uint32_t>(static_cast<int16_t>(a)); });
  one("cvt.s32.s8 %r3, %r0;", words32,
      [](uint64_t a) { return static_cast<uint32_t>(static_cast<int8_t>(a)); });
  one("cvt.s16.s8 %rs3, %rs0;", words16,
      [](uint64_t a) { return static_cast<uint16_t>(static_cast<int8_t>(a)); });
  one("cvt.u8.u32 %r3, %r0;", words32, [](uint64_t a) { return static_cast<uint8_t>(a); });
  one("cvt.s8.u32 %r3, %r0;", words32,
      [](uint64_t a) { return static_cast<uint32_t>(static_cast<int8_t>(a)); });
  one("cvt.s64.u8 %rd3, %rd0;", words64, [](uint64_t a) { return static_cast<uint8_t>(a); });
  // Into the register itself.
  one("cvt.s64.s32 %rd0, %rd0; mov.b64 %rd3, %rd0;", words64,
      [](uint64_t a) { return static_cast<int32_t>(a); });
}

}  // namespace
}  // namespace qnext::emulator
