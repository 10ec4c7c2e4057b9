// Floats: rounding in all modes, NaN, infinities, and conversions.
#include <gtest/gtest.h>

#include <cmath>

#include "emulator/arithmetic_test.h"
#include "emulator/exact_sum.h"

namespace qnext::emulator {
namespace {

Words float_operands(const std::vector<uint64_t>& edges) {
  Words words = operands(edges, 6000);
  // Random bits seldom meet: half of the numbers are within some powers of two of each other.
  for (size_t i = edges.size() * edges.size(); i < words[0].size(); i += 2) {
    for (std::vector<uint64_t>& column : words) column[i] = (column[i] & 0x83FFFFFFu) | 0x3C000000u;
  }
  return words;
}

// a * b + c, rounded once.
uint64_t fused(float a, float b, float c, const FloatFormat& format, RoundTo mode) {
  const double product = static_cast<double>(a) * b;
  if (!std::isfinite(product) || !std::isfinite(c))
    return bits_of_float(static_cast<float>(product + c));
  ExactSum sum;
  sum.add(product);
  sum.add(c);
  const double rounded = sum.rounded(format, mode);
  if (rounded != 0) return bits_of_float(static_cast<float>(rounded));
  if (product + c != 0) return bits_of_float(std::copysign(0.0f, static_cast<float>(product + c)));
  if (mode == RoundTo::down && (std::signbit(product) || std::signbit(c))) return 0x80000000u;
  return bits_of_float(static_cast<float>(product + c));
}

TEST(EmulatorFloats, SumsAndProductsInAllModes) {
  const Words inputs = float_operands(float_edges());
  const std::pair<std::string_view, RoundTo> modes[] = {{"rn", RoundTo::nearest_even},
                                                        {"rz", RoundTo::zero},
                                                        {"rm", RoundTo::down},
                                                        {"rp", RoundTo::up}};
  for (const auto& [name, mode] : modes) {
    check(fmt::format("add.{}.f32 %f3, %f0, %f1;", name), floats, inputs,
          [&](uint64_t a, uint64_t b, uint64_t) {
            return fused(as_float(a), 1, as_float(b), f32_format, mode);
          });
    check(fmt::format("sub.{}.f32 %f3, %f0, %f1;", name), floats, inputs,
          [&](uint64_t a, uint64_t b, uint64_t) {
            return fused(as_float(a), 1, -as_float(b), f32_format, mode);
          });
    check(fmt::format("fma.{}.f32 %f3, %f0, %f1, %f2;", name), floats, inputs,
          [&](uint64_t a, uint64_t b, uint64_t c) {
            return fused(as_float(a), as_float(b), as_float(c), f32_format, mode);
          });
    check(fmt::format("mul.{}.f32 %f3, %f0, %f1;", name), floats, inputs,
          [&](uint64_t a, uint64_t b, uint64_t) {
            const double product = static_cast<double>(as_float(a)) * as_float(b);
            // A zero with the product's sign: 0 would make -0 + 0.
            const auto zero = std::copysign(0.0f, static_cast<float>(product));
            return fused(as_float(a), as_float(b), zero, f32_format, mode);
          });
  }
}

TEST(EmulatorFloats, ASumDownwardsIsNotTheNearest) {
  const Words inputs = {{0x3F800000}, {0x33000000}, {0xB3000000}};  // 1, 2^-25, -2^-25
  check("add.rm.f32 %f3, %f0, %f2;", floats, inputs,
        [](uint64_t, uint64_t, uint64_t) { return 0x3F7FFFFFu; });
  check("add.rz.f32 %f3, %f0, %f2;", floats, inputs,
        [](uint64_t, uint64_t, uint64_t) { return 0x3F7FFFFFu; });
  check("add.rp.f32 %f3, %f0, %f1;", floats, inputs,
        [](uint64_t, uint64_t, uint64_t) { return 0x3F800001u; });
  check("add.rn.f32 %f3, %f0, %f1;", floats, inputs,
        [](uint64_t, uint64_t, uint64_t) { return 0x3F800000u; });
}

TEST(EmulatorFloats, LesserAndGreaterPassOverNan) {
  const Words inputs = float_operands(float_edges());
  const auto extreme = [](uint64_t a, uint64_t b, bool greatest) -> uint64_t {
    const float x = as_float(a), y = as_float(b);
    if (std::isnan(x) && std::isnan(y)) return 0x7FFFFFFF;
    if (std::isnan(x)) return b & 0xFFFFFFFF;
    if (std::isnan(y)) return a & 0xFFFFFFFF;
    if (x == 0 && y == 0) {
      const bool both = std::signbit(x) && std::signbit(y),
                 any = std::signbit(x) || std::signbit(y);
      return (greatest ? both : any) ? 0x80000000u : 0u;
    }
    return (greatest ? x > y : x < y) ? a & 0xFFFFFFFF : b & 0xFFFFFFFF;
  };
  check("min.f32 %f3, %f0, %f1;", floats, inputs,
        [&](uint64_t a, uint64_t b, uint64_t) { return extreme(a, b, false); });
  check("max.f32 %f3, %f0, %f1;", floats, inputs,
        [&](uint64_t a, uint64_t b, uint64_t) { return extreme(a, b, true); });
}

TEST(EmulatorFloats, OfOneOperand) {
  const Words inputs = float_operands(float_edges());
  const auto one = [&](std::string_view operation, auto expected) {
    check(fmt::format("{} %f3, %f0;", operation), floats, inputs,
          [&](uint64_t a, uint64_t, uint64_t) { return bits_of_float(expected(as_float(a))); });
  };
  check("abs.f32 %f3, %f0;", floats, inputs,
        [](uint64_t a, uint64_t, uint64_t) { return a & 0x7FFFFFFF; });
  check("neg.f32 %f3, %f0;", floats, inputs,
        [](uint64_t a, uint64_t, uint64_t) { return (a ^ 0x80000000) & 0xFFFFFFFF; });
  one("rcp.rn.f32", [](float a) { return 1 / a; });
  one("sqrt.rn.f32", [](float a) { return std::sqrt(a); });
  one("cvt.sat.f32.f32",
      [](float a) { return std::isnan(a) || a <= 0 ? 0.0f : std::min(a, 1.0f); });
  one("cvt.rni.f32.f32", [](float a) { return std::nearbyint(a); });
  one("cvt.rpi.f32.f32", [](float a) { return std::ceil(a); });
  const auto flush = [](float a) { return std::fabs(a) < 0x1p-126f ? std::copysign(0.0f, a) : a; };
  one("rcp.approx.ftz.f32", [&](float a) { return flush(1 / flush(a)); });
  check("div.rn.f32 %f3, %f0, %f1;", floats, inputs,
        [](uint64_t a, uint64_t b, uint64_t) { return bits_of_float(as_float(a) / as_float(b)); });
}

// Within two units of the last place of the exact result, and exact at the ends.
TEST(EmulatorFloats, Approximations) {
  const Words inputs = float_operands(float_edges());
  const auto near = [&](std::string_view operation, double bound, auto exact) {
    const std::string body =
        fmt::format("{}\n{} %f3, %f0;\n{}", floats.before, operation, floats.after);
    const size_t count = inputs[0].size();
    const Words outputs =
        run_ptx({.body = body, .threads = 64, .blocks = static_cast<uint32_t>((count + 63) / 64)},
                inputs, 1);
    for (size_t i = 0; i < count; ++i) {
      const float a = as_float(inputs[0][i]);
      const auto right = static_cast<double>(exact(static_cast<double>(a)));
      const auto result = static_cast<double>(as_float(outputs[0][i]));
      if (std::isnan(right)) {
        EXPECT_EQ(outputs[0][i], 0x7FFFFFFF) << operation << " of " << a;
      } else if (std::isinf(right) || std::fabs(right) > 0x1.fffffep127) {
        EXPECT_EQ(result, std::copysign(HUGE_VAL, right)) << operation << " of " << a;
      } else {
        EXPECT_NEAR(result, right, std::fabs(right) * bound + 0x1p-148) << operation << " of " << a;
      }
    }
  };
  near("ex2.approx.f32", 0x1p-22, [](double a) { return std::exp2(a); });
  near("lg2.approx.f32", 0x1p-22, [](double a) { return std::log2(a); });
  near("rsqrt.approx.f32", 0x1p-22, [](double a) { return 1 / std::sqrt(a); });
  near("sin.approx.f32", 0x1p-22, [](double a) { return std::sin(a); });
  near("cos.approx.f32", 0x1p-22, [](double a) { return std::cos(a); });
  // Flushed: nothing below the smallest normal number.
  check(
      "ex2.approx.ftz.f32 %f3, %f0;", floats,
      {{0xC2FE0000, 0xC3000000, 0x42FE0000}, {0, 0, 0}, {0, 0, 0}},
      [](uint64_t a, uint64_t, uint64_t) -> uint64_t { return a == 0x42FE0000 ? 0x7F000000 : 0; });
}

TEST(EmulatorFloats, Doubles) {
  std::vector<uint64_t> edges;
  for (const uint64_t edge : float_edges())
    edges.push_back(std::bit_cast<uint64_t>(static_cast<double>(as_float(edge))));
  for (const uint64_t edge : {1ull, 0x7FEFFFFFFFFFFFFFull, 0x10000000000000ull})
    edges.push_back(edge);
  Words inputs = operands(edges);
  const auto same = [&](std::string_view statement, auto expected) {
    const std::string body = fmt::format("{}\n{}\n{}", doubles.before, statement, doubles.after);
    const size_t count = inputs[0].size();
    const Words outputs =
        run_ptx({.body = body, .threads = 64, .blocks = static_cast<uint32_t>((count + 63) / 64)},
                inputs, 1);
    for (size_t i = 0; i < count; ++i) {
      const double right =
          expected(as_double(inputs[0][i]), as_double(inputs[1][i]), as_double(inputs[2][i]));
      const double result = as_double(outputs[0][i]);
      if (std::isnan(right) && std::isnan(result)) continue;
      ASSERT_EQ(outputs[0][i], std::bit_cast<uint64_t>(right)) << statement << i;
    }
  };
  same("add.rn.f64 %fd3, %fd0, %fd1;", [](double a, double b, double) { return a + b; });
  same("sub.rn.f64 %fd3, %fd0, %fd1;", [](double a, double b, double) { return a - b; });
  same("mul.rn.f64 %fd3, %fd0, %fd1;", [](double a, double b, double) { return a * b; });
  same("div.rn.f64 %fd3, %fd0, %fd1;", [](double a, double b, double) { return a / b; });
  same("fma.rn.f64 %fd3, %fd0, %fd1, %fd2;",
       [](double a, double b, double c) { return std::fma(a, b, c); });
  same("rcp.rn.f64 %fd3, %fd0;", [](double a, double, double) { return 1 / a; });
  same("abs.f64 %fd3, %fd0;", [](double a, double, double) { return std::fabs(a); });
  same("neg.f64 %fd3, %fd0;", [](double a, double, double) { return -a; });
  same("cvt.rpi.f64.f64 %fd3, %fd0;", [](double a, double, double) { return std::ceil(a); });
}

uint16_t narrowed(uint64_t float_bits, bool is_bf16) {
  const float value = as_float(float_bits);
  if (std::isnan(value)) return 0x7FFF;
  if (is_bf16) return static_cast<uint16_t>(float_bits >> 16);
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isinf(value)) return static_cast<uint16_t>(sign | 0x7C00);
  // By counting: how many f16 numbers there are below.
  const double magnitude = std::fabs(value);
  const int exponent = magnitude < 0x1p-14 ? -14 : std::ilogb(magnitude);
  const auto steps = static_cast<int>(std::ldexp(magnitude, 10 - exponent));
  return static_cast<uint16_t>(sign | ((exponent + 14) * 1024 + steps));
}

float widened(uint64_t bits, bool is_bf16) {
  if (is_bf16) return as_float((bits & 0xFFFF) << 16);
  const int exponent = static_cast<int>(bits >> 10 & 31), mantissa = static_cast<int>(bits & 1023);
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return mantissa != 0 ? NAN : sign * HUGE_VALF;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

// Edges of a 16-bit format in both halves, then random bits, half of them of like size.
Words pair_operands(bool is_bf16) {
  std::vector<uint64_t> edges;
  for (const uint64_t low :
       {0x0000, 0x8000, 0x0001, 0x8001, 0x007F, 0x0080, 0x0400, 0x3C00, 0x3F80, 0x3F81, 0x4380,
        0x7BFF, 0x7C00, 0x7F7F, 0x7F80, 0xFF80, 0x7FC0, 0x2001, 0x2000, 0xA001, 0x5F81, 0x1C01}) {
    edges.push_back(0x3F813C01u ^ (low << 16 | (low * 3 & 0xFFFF)));
    edges.push_back(low << 16 | low);
  }
  Words words = operands(edges, 20000);
  const uint64_t like = is_bf16 ? 0x3C003C00 : 0x30003000, kept = is_bf16 ? 0x83FF83FF : 0x8FFF8FFF;
  for (size_t i = edges.size() * edges.size(); i < words[0].size(); i += 2) {
    for (std::vector<uint64_t>& column : words) column[i] = (column[i] & kept) | like;
  }
  // Small products of bf16: the exponents add up to what no float holds.
  for (size_t i = edges.size() * edges.size() + 1; i < words[0].size(); i += 4) {
    words[0][i] = (words[0][i] & 0x83FF83FF) | 0x1C001C00;
    words[1][i] = (words[1][i] & 0x83FF83FF) | 0x20002000;
  }
  return words;
}

TEST(EmulatorFloats, PairsAreRoundedOnce) {
  for (const bool is_bf16 : {true, false}) {
    const Words inputs = pair_operands(is_bf16);
    const std::string_view type = is_bf16 ? "bf16x2" : "f16x2";
    const auto halves = [&](uint64_t a, uint64_t b, uint64_t c, auto one) {
      uint64_t result = 0;
      for (const int shift : {0, 16}) {
        const uint64_t exact = one(widened(a >> shift, is_bf16), widened(b >> shift, is_bf16),
                                   widened(c >> shift, is_bf16));
        result |= uint64_t{narrowed(exact, is_bf16)} << shift;
      }
      return result;
    };
    const FloatFormat& format = is_bf16 ? bf16_format : f16_format;
    constexpr RoundTo mode = RoundTo::nearest_even;
    check(fmt::format("fma.rn.{} %r3, %r0, %r1, %r2;", type), words32, inputs,
          [&](uint64_t a, uint64_t b, uint64_t c) {
            return halves(a, b, c,
                          [&](float x, float y, float z) { return fused(x, y, z, format, mode); });
          });
    check(fmt::format("mul.rn.{} %r3, %r0, %r1;", type), words32, inputs,
          [&](uint64_t a, uint64_t b, uint64_t c) {
            return halves(a, b, c, [&](float x, float y, float) {
              const double product = static_cast<double>(x) * y;
              return fused(x, y, std::copysign(0.0f, static_cast<float>(product)), format, mode);
            });
          });
    check(fmt::format("add.rn.{} %r3, %r0, %r1;", type), words32, inputs,
          [&](uint64_t a, uint64_t b, uint64_t c) {
            return halves(a, b, c,
                          [&](float x, float y, float) { return fused(x, 1, y, format, mode); });
          });
    check(fmt::format("sub.rn.{} %r3, %r0, %r1;", type), words32, inputs,
          [&](uint64_t a, uint64_t b, uint64_t c) {
            return halves(a, b, c,
                          [&](float x, float y, float) { return fused(x, 1, -y, format, mode); });
          });
  }
}

TEST(EmulatorConversions, ToAndFrom16Bits) {
  Words inputs = float_operands(float_edges());
  for (uint64_t tie = 0x38000000; tie < 0x48000000; tie += 0x00035000) {
    for (const uint64_t edge : {tie, tie + 0x1000, tie + 0x8000, tie + 0x7FFF, tie + 0x1001}) {
      inputs[0].push_back(edge);
      inputs[1].push_back(edge ^ 0x80001000);
      inputs[2].push_back(0);
    }
  }
  for (const bool is_bf16 : {true, false}) {
    const std::string_view type = is_bf16 ? "bf16" : "f16";
    const FloatFormat& format = is_bf16 ? bf16_format : f16_format;
    const auto one = [&](uint64_t a) {
      return uint64_t{narrowed(
          fused(as_float(a), 1, std::copysign(0.0f, as_float(a)), format, RoundTo::nearest_even),
          is_bf16)};
    };
    const RegisterKind to16{floats.before, words16.after}, to32{floats.before, words32.after};
    check(fmt::format("cvt.rn.{}.f32 %rs3, %f0;", type), to16, inputs,
          [&](uint64_t a, uint64_t, uint64_t) { return one(a); });
    check(fmt::format("cvt.rn.{}x2.f32 %r3, %f0, %f1;", type), to32, inputs,
          [&](uint64_t a, uint64_t b, uint64_t) { return one(a) << 16 | one(b); });
    Words all(3, std::vector<uint64_t>(65536));
    for (size_t i = 0; i < 65536; ++i) all[0][i] = i;
    check(fmt::format("cvt.f32.{} %f3, %rs0;", type), {words16.before, floats.after}, all,
          [&](uint64_t a, uint64_t, uint64_t) {
            return is_bf16 ? a << 16 : bits_of_float(widened(a, false));
          });
  }
}

double value_of_e4m3(int bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(mantissa + 8, exponent - 10);
  return (bits & 128) != 0 ? -magnitude : magnitude;
}

TEST(EmulatorConversions, ToAndFromE4m3) {
  Words inputs = float_operands(float_edges());
  // Every number, the middles between two, and what is next to them.
  for (int bits = 0; bits < 126; ++bits) {
    const auto low = static_cast<float>(value_of_e4m3(bits));
    const float middle = (low + static_cast<float>(value_of_e4m3(bits + 1))) / 2;
    for (const float value :
         {low, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 500.0f)}) {
      inputs[0].push_back(bits_of_float(value));
      inputs[1].push_back(bits_of_float(-value));
      inputs[2].push_back(0);
    }
  }
  for (const float value : {448.0f, 463.9f, 464.0f, 465.0f, 480.0f, 1e30f}) {
    inputs[0].push_back(bits_of_float(value));
    inputs[1].push_back(bits_of_float(-value));
    inputs[2].push_back(0);
  }
  const auto one = [](uint64_t a) -> uint64_t {
    const double value = as_float(a), magnitude = std::fabs(value);
    if (std::isnan(value)) return 0x7F;
    int best = 0;  // of equals the even one
    for (int bits = 1; bits < 127; ++bits) {
      const double old_error = std::fabs(value_of_e4m3(best) - magnitude);
      const double error = std::fabs(value_of_e4m3(bits) - magnitude);
      if (error < old_error || (error == old_error && bits % 2 == 0)) best = bits;
    }
    if (magnitude >= 448) best = 126;
    return static_cast<uint64_t>(best) | (std::signbit(value) ? 128u : 0u);
  };
  check("cvt.rn.satfinite.e4m3x2.f32 %rs3, %f0, %f1;", {floats.before, words16.after}, inputs,
        [&](uint64_t a, uint64_t b, uint64_t) { return one(a) << 8 | one(b); });
  Words all(3, std::vector<uint64_t>(65536));
  for (size_t i = 0; i < 65536; ++i) all[0][i] = i;
  check("cvt.rn.f16x2.e4m3x2 %r3, %rs0;", {words16.before, words32.after}, all,
        [&](uint64_t a, uint64_t, uint64_t) {
          uint64_t result = 0;
          for (const int half : {0, 1}) {
            const auto bits = static_cast<int>(a >> (8 * half) & 255);
            const bool is_nan = (bits & 127) == 127;
            const auto value = bits_of_float(static_cast<float>(value_of_e4m3(bits)));
            result |= uint64_t{is_nan ? uint16_t{0x7FFF} : narrowed(value, false)} << (16 * half);
          }
          return result;
        });
}

template <typename T>
uint64_t clamped(double value, bool nan_is_zero) {
  using Unsigned = std::make_unsigned_t<T>;
  if (std::isnan(value)) return nan_is_zero ? 0 : Unsigned{1} << (sizeof(T) * 8 - 1);
  const auto limit = static_cast<long double>(std::numeric_limits<T>::max());
  if (value >= limit) return static_cast<Unsigned>(std::numeric_limits<T>::max());
  if (value <= static_cast<double>(std::numeric_limits<T>::min()))
    return static_cast<Unsigned>(std::numeric_limits<T>::min());
  return static_cast<Unsigned>(static_cast<T>(value));
}

TEST(EmulatorConversions, FloatsToIntegers) {
  const Words inputs = float_operands(float_edges());
  const RegisterKind to32{floats.before, words32.after}, to64{floats.before, words64.after};
  const auto one = [&](std::string_view statement, const RegisterKind& kind, auto expected) {
    check(statement, kind, inputs,
          [&](uint64_t a, uint64_t, uint64_t) { return expected(double{as_float(a)}); });
  };
  one("cvt.rzi.s32.f32 %r3, %f0;", to32,
      [](double a) { return clamped<int32_t>(std::trunc(a), true); });
  one("cvt.rni.s32.f32 %r3, %f0;", to32,
      [](double a) { return clamped<int32_t>(std::nearbyint(a), true); });
  one("cvt.rmi.s32.f32 %r3, %f0;", to32,
      [](double a) { return clamped<int32_t>(std::floor(a), true); });
  one("cvt.rpi.u32.f32 %r3, %f0;", to32,
      [](double a) { return clamped<uint32_t>(std::ceil(a), true); });
  one("cvt.rzi.s64.f32 %rd3, %f0;", to64,
      [](double a) { return clamped<int64_t>(std::trunc(a), false); });
  const std::string_view wide = "cvt.f64.f32 %fd0, %f0;";
  one(fmt::format("{} cvt.rni.u64.f64 %rd3, %fd0;", wide), to64,
      [](double a) { return clamped<uint64_t>(std::nearbyint(a), false); });
  one(fmt::format("{} cvt.rni.s32.f64 %r3, %fd0;", wide), to32,
      [](double a) { return clamped<int32_t>(std::nearbyint(a), false); });
}

TEST(EmulatorConversions, IntegersToFloatsAndDoublesToFloats) {
  const Words inputs = operands(integer_edges());
  const auto one = [&](std::string_view statement, const RegisterKind& kind, auto expected) {
    check(statement, kind, inputs,
          [&](uint64_t a, uint64_t, uint64_t) { return bits_of_float(expected(a)); });
  };
  const RegisterKind from32{words32.before, floats.after}, from64{words64.before, floats.after};
  one("cvt.rn.f32.u32 %f3, %r0;", from32,
      [](uint64_t a) { return static_cast<float>(static_cast<uint32_t>(a)); });
  one("cvt.rn.f32.s32 %f3, %r0;", from32,
      [](uint64_t a) { return static_cast<float>(static_cast<int32_t>(a)); });
  one("cvt.rn.f32.s64 %f3, %rd0;", from64,
      [](uint64_t a) { return static_cast<float>(static_cast<int64_t>(a)); });
  one("cvt.rn.f64.u64 %fd0, %rd0; cvt.rn.f32.f64 %f3, %fd0;", from64,
      [](uint64_t a) { return static_cast<float>(static_cast<double>(a)); });
  one("mov.b64 %fd0, %rd0; cvt.rn.f32.f64 %f3, %fd0;", from64,
      [](uint64_t a) { return static_cast<float>(as_double(a)); });
}

}  // namespace
}  // namespace qnext::emulator
