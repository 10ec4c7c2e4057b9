// Comparisons, choices, moves and what the threads of a warp tell each other.
#include <gtest/gtest.h>

#include <cmath>

#include "emulator/arithmetic_test.h"

namespace qnext::emulator {
namespace {

constexpr RegisterKind compared_floats{floats.before, "selp.u64 %out0, 1, 0, %p0;"};

TEST(EmulatorSelections, ComparisonsOfFloatsKnowNan) {
  const Words inputs = operands(float_edges());
  const auto one = [&](std::string_view name, bool of_nan, auto holds) {
    check(fmt::format("setp.{}.f32 %p0, %f0, %f1;", name), compared_floats, inputs,
          [&](uint64_t a, uint64_t b, uint64_t) -> uint64_t {
            const float x = as_float(a), y = as_float(b);
            return std::isnan(x) || std::isnan(y) ? of_nan : holds(x, y);
          });
    check(fmt::format("cvt.f64.f32 %fd0, %f0; cvt.f64.f32 %fd1, %f1; setp.{}.f64 %p0, %fd0, %fd1;",
                      name),
          compared_floats, inputs, [&](uint64_t a, uint64_t b, uint64_t) -> uint64_t {
            const float x = as_float(a), y = as_float(b);
            return std::isnan(x) || std::isnan(y) ? of_nan : holds(x, y);
          });
  };
  const auto both = [&](std::string_view name, auto holds) {
    one(name, false, holds);
    one(fmt::format("{}u", name), true, holds);
  };
  both("eq", [](float a, float b) { return a == b; });
  both("ne", [](float a, float b) { return a != b; });
  both("lt", [](float a, float b) { return a < b; });
  both("le", [](float a, float b) { return a <= b; });
  both("gt", [](float a, float b) { return a > b; });
  both("ge", [](float a, float b) { return a >= b; });
  one("num", false, [](float, float) { return true; });
  one("nan", true, [](float, float) { return false; });
}

template <typename Signed, typename Unsigned>
void check_comparisons(int bits, std::string_view prefix, std::string_view before) {
  const RegisterKind kind{before, "selp.u64 %out0, 1, 0, %p0;"};
  const Words inputs = operands(integer_edges());
  const auto one = [&](std::string_view name, auto holds) {
    check(fmt::format("setp.{}{} %p0, {}0, {}1;", name, bits, prefix, prefix), kind, inputs,
          [&](uint64_t a, uint64_t b, uint64_t) -> uint64_t {
            return holds(static_cast<Unsigned>(a), static_cast<Unsigned>(b));
          });
  };
  const auto sign = [](Unsigned value) { return static_cast<Signed>(value); };
  one("eq.b", [](Unsigned a, Unsigned b) { return a == b; });
  one("ne.s", [](Unsigned a, Unsigned b) { return a != b; });
  one("lt.s", [&](Unsigned a, Unsigned b) { return sign(a) < sign(b); });
  one("le.s", [&](Unsigned a, Unsigned b) { return sign(a) <= sign(b); });
  one("gt.s", [&](Unsigned a, Unsigned b) { return sign(a) > sign(b); });
  one("ge.s", [&](Unsigned a, Unsigned b) { return sign(a) >= sign(b); });
  one("lt.u", [](Unsigned a, Unsigned b) { return a < b; });
  one("ls.u", [](Unsigned a, Unsigned b) { return a <= b; });
  one("hi.u", [](Unsigned a, Unsigned b) { return a > b; });
  one("ge.u", [](Unsigned a, Unsigned b) { return a >= b; });
}

TEST(EmulatorSelections, ComparisonsOfIntegers) {
  check_comparisons<int16_t, uint16_t>(16, "%rs", words16.before);
  check_comparisons<int32_t, uint32_t>(32, "%r", words32.before);
  check_comparisons<int64_t, uint64_t>(64, "%rd", words64.before);
}

TEST(EmulatorSelections, ComparisonsTakeAnotherPredicate) {
  const Words inputs = operands(integer_edges());
  const RegisterKind kind{words32.before,
                          "selp.u64 %rd0, 1, 0, %p0; selp.u64 %rd1, 2, 0, %p1;"
                          "or.b64 %out0, %rd0, %rd1;"};
  const auto less = [](uint64_t a, uint64_t b) {
    return static_cast<int32_t>(a) < static_cast<int32_t>(b);
  };
  const auto odd = [](uint64_t c) { return (c & 1) != 0; };
  const std::string_view third = "and.b32 %r4, %r2, 1; setp.ne.s32 %p2, %r4, 0;";
  check(fmt::format("{} setp.lt.and.s32 %p0|%p1, %r0, %r1, %p2;", third), kind, inputs,
        [&](uint64_t a, uint64_t b, uint64_t c) -> uint64_t {
          return (less(a, b) && odd(c) ? 1u : 0u) + (!less(a, b) && odd(c) ? 2u : 0u);
        });
  check(fmt::format("{} setp.lt.or.s32 %p0|%p1, %r0, %r1, !%p2;", third), kind, inputs,
        [&](uint64_t a, uint64_t b, uint64_t c) -> uint64_t {
          return (less(a, b) || !odd(c) ? 1u : 0u) + (!less(a, b) || !odd(c) ? 2u : 0u);
        });
  check(fmt::format("{} setp.lt.s32 %p0|%p1, %r0, %r1;", third), kind, inputs,
        [&](uint64_t a, uint64_t b, uint64_t) -> uint64_t { return less(a, b) ? 1 : 2; });
  const RegisterKind logic{words32.before, "selp.u64 %out0, 1, 0, %p5;"};
  check(fmt::format("{} setp.lt.s32 %p3, %r0, %r1; and.pred %p4, %p2, %p3; not.pred %p4, %p4;"
                    "xor.pred %p4, %p4, %p3; or.pred %p4, %p4, %p2; mov.pred %p5, %p4;",
                    third),
        logic, inputs, [&](uint64_t a, uint64_t b, uint64_t c) -> uint64_t {
          const bool x = less(a, b), y = odd(c);
          return ((!(x && y)) != x) || y;
        });
}

TEST(EmulatorSelections, ChoicesOfAllWidths) {
  const Words inputs = operands(integer_edges());
  const std::string_view choose = "setp.lt.u64 %p0, %in2, 0x8000000000;";
  const auto right = [](uint64_t a, uint64_t b, uint64_t c, uint64_t mask) {
    return (c < 0x8000000000 ? a : b) & mask;
  };
  check(fmt::format("{} selp.u16 %rs3, %rs0, %rs1, %p0;", choose), words16, inputs,
        [&](uint64_t a, uint64_t b, uint64_t c) { return right(a, b, c, 0xFFFF); });
  check(fmt::format("{} selp.b32 %r3, %r0, %r1, %p0;", choose), words32, inputs,
        [&](uint64_t a, uint64_t b, uint64_t c) { return right(a, b, c, 0xFFFFFFFF); });
  check(fmt::format("{} selp.f32 %f3, %f0, %f1, %p0;", choose), floats, inputs,
        [&](uint64_t a, uint64_t b, uint64_t c) { return right(a, b, c, 0xFFFFFFFF); });
  check(fmt::format("{} selp.b64 %rd3, %rd0, %rd1, %p0;", choose), words64, inputs,
        [&](uint64_t a, uint64_t b, uint64_t c) { return right(a, b, c, ~0ull); });
}

TEST(EmulatorSelections, MovesPackAndUnpack) {
  const Words inputs = operands(integer_edges());
  check("mov.b64 {%r0, %r1}, %rd0; mov.b64 %rd3, {%r1, %r0};", words64, inputs,
        [](uint64_t a, uint64_t, uint64_t) { return a << 32 | a >> 32; });
  check("mov.b32 {%rs0, %rs1}, %r0; mov.b32 %r3, {%rs1, %rs0};", words32, inputs,
        [](uint64_t a, uint64_t, uint64_t) { return (a << 16 | (a >> 16 & 0xFFFF)) & 0xFFFFFFFF; });
  check("mov.b64 {%rs0, %rs1, %rs2, %rs3}, %rd0; mov.b64 %rd3, {%rs3, %rs0, %rs1, %rs2};", words64,
        inputs, [](uint64_t a, uint64_t, uint64_t) { return a << 16 | a >> 48; });
  check("mov.b64 {_, %r3}, %rd0;", {words64.before, words32.after}, inputs,
        [](uint64_t a, uint64_t, uint64_t) { return a >> 32; });
  check("mov.b64 {%r3, _}, %rd0;", {words64.before, words32.after}, inputs,
        [](uint64_t a, uint64_t, uint64_t) { return a & 0xFFFFFFFF; });
  check("mov.f64 %fd3, %fd0;", doubles, inputs, [](uint64_t a, uint64_t, uint64_t) { return a; });
  check("mov.u32 %r3, -5;", words32, inputs,
        [](uint64_t, uint64_t, uint64_t) { return 0xFFFFFFFBu; });
}

TEST(EmulatorSelections, OthersKeepTheirRegisters) {
  const Words inputs = operands(integer_edges());
  const auto guarded = [&](std::string_view statement, auto expected) {
    check(fmt::format("and.b32 %r4, %r2, 1; setp.ne.s32 %p0, %r4, 0; mov.u32 %r3, 77; @%p0 {}",
                      statement),
          words32, inputs, [&](uint64_t a, uint64_t b, uint64_t c) -> uint64_t {
            return (c & 1) != 0 ? static_cast<uint32_t>(expected(a, b)) : 77;
          });
  };
  guarded("add.s32 %r3, %r0, %r1;", [](uint64_t a, uint64_t b) { return a + b; });
  guarded("shl.b32 %r3, %r0, 3;", [](uint64_t a, uint64_t) { return a << 3; });
  guarded("shl.b32 %r3, %r0, 40;", [](uint64_t, uint64_t) { return 0; });
  guarded("mov.u32 %r3, %ntid.x;", [](uint64_t, uint64_t) { return 64; });
  guarded("mul.rn.bf16x2 %r3, %r0, 0x3F803F80;", [](uint64_t a, uint64_t) -> uint64_t {
    const auto half = [](uint64_t bits) {
      return (bits & 0x7FFF) > 0x7F80 ? 0x7FFF : bits & 0xFFFF;
    };
    return half(a >> 16) << 16 | half(a);
  });
}

TEST(EmulatorSelections, ThreadsKnowWhereTheyAre) {
  const Words outputs = run_ptx(
      {.body = "mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %laneid;"
               "mov.u32 %r3, %warpid; mov.u32 %r4, %nctaid.x; mov.u32 %r5, %lanemask_lt;"
               "mov.u32 %r6, %cluster_ctarank; mov.u64 %rd0, %clock64; mov.u64 %rd1, %clock64;"
               "cvt.u64.u32 %out0, %r0; cvt.u64.u32 %out1, %r1; cvt.u64.u32 %out2, %r2;"
               "cvt.u64.u32 %out3, %r3; cvt.u64.u32 %out4, %r4; cvt.u64.u32 %out5, %r5;"
               "cvt.u64.u32 %out6, %r6; sub.s64 %out7, %rd1, %rd0;",
       .threads = 80,
       .blocks = 4,
       .cluster = 2},
      {}, 8);
  for (size_t i = 0; i < 320; ++i) {
    const size_t thread = i % 80;
    EXPECT_EQ(outputs[0][i], thread);
    EXPECT_EQ(outputs[1][i], i / 80);
    EXPECT_EQ(outputs[2][i], thread % 32);
    EXPECT_EQ(outputs[3][i], thread / 32);
    EXPECT_EQ(outputs[4][i], 4u);
    EXPECT_EQ(outputs[5][i], (uint64_t{1} << thread % 32) - 1);
    EXPECT_EQ(outputs[6][i], i / 80 % 2);
    EXPECT_GT(outputs[7][i], 0u);
    EXPECT_LT(outputs[7][i], uint64_t{1} << 40);
  }
}

}  // namespace
}  // namespace qnext::emulator
