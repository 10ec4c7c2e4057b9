// Arithmetic of f32 and f64.
//
// NaN results of f32 are the GPU's one NaN. Approximations are as exact as the C library's
// functions, which is more than the GPU promises.
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/cpu_features.h"
#include "emulator/elementwise.h"
#include "emulator/float_pairs.h"
#include "emulator/narrow_floats.h"

namespace qnext::emulator {
namespace {

template <typename T>
T canonical(T value) {
  if constexpr (sizeof(T) == 4) {
    return with_canonical_nan(value);
  } else {
    return value;
  }
}

template <typename T>
T add(T a, T b) {
  return canonical(a + b);
}

template <typename T>
T subtract(T a, T b) {
  return canonical(a - b);
}

template <typename T>
T multiply(T a, T b) {
  return canonical(a * b);
}

template <typename T>
T divide(T a, T b) {
  return canonical(a / b);
}

template <typename T>
T fuse(T a, T b, T c) {
  return canonical(std::fma(a, b, c));
}

template <typename T>
T reciprocal(T a) {
  return canonical(T{1} / a);
}

template <typename T>
T square_root(T a) {
  return canonical(std::sqrt(a));
}

// ---- other rounding modes ----

enum class Rounding { zero, down, up };

constexpr float infinity = std::numeric_limits<float>::infinity();

// `value` has its last bit set where it is not exact, so it never lies in the middle of two floats.
template <Rounding mode>
float rounded(double value) {
  const auto nearest = static_cast<float>(value);
  if (!std::isfinite(value)) return with_canonical_nan(nearest);
  const auto wide = static_cast<double>(nearest);
  if (mode == Rounding::zero && std::fabs(wide) > std::fabs(value)) {
    return std::nextafter(nearest, 0.0f);
  }
  if (mode == Rounding::down && wide > value) return std::nextafter(nearest, -infinity);
  if (mode == Rounding::up && wide < value) return std::nextafter(nearest, infinity);
  return nearest;
}

template <Rounding mode>
float rounded_sum(double a, double b) {
  const double sum = add_to_odd(a, b);
  // What is left of x - x is -0 downwards and +0 else.
  if (mode == Rounding::down && sum == 0 && (std::signbit(a) || std::signbit(b))) return -0.0f;
  return rounded<mode>(sum);
}

template <Rounding mode>
float rounded_add(float a, float b) {
  return rounded_sum<mode>(a, b);
}

template <Rounding mode>
float rounded_subtract(float a, float b) {
  return rounded_sum<mode>(a, -static_cast<double>(b));
}

// A double holds every product of two floats.
template <Rounding mode>
float rounded_multiply(float a, float b) {
  return rounded<mode>(static_cast<double>(a) * b);
}

template <Rounding mode>
float rounded_fuse(float a, float b, float c) {
  return rounded_sum<mode>(static_cast<double>(a) * b, c);
}

// ---- the rest ----

inline float flush(float value) {
  return std::fabs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0f, value) : value;
}

template <auto function, bool flushes>
float approximate(float a) {
  if constexpr (flushes) {
    return with_canonical_nan(flush(function(flush(a))));
  } else {
    return with_canonical_nan(function(a));
  }
}

float inverse(float a) {
  return 1.0f / a;
}

float root(float a) {
  return std::sqrt(a);
}

float inverse_root(float a) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a)));
}

float power_of_two(float a) {
  return std::exp2(a);
}

float logarithm(float a) {
  return std::log2(a);
}

float sine(float a) {
  return std::sin(a);
}

float cosine(float a) {
  return std::cos(a);
}

float hyperbolic_tangent(float a) {
  return std::tanh(a);
}

template <typename T>
using BitsOf = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

template <typename T>
constexpr BitsOf<T> sign_bit = BitsOf<T>{1} << (sizeof(T) * 8 - 1);

template <typename T>
BitsOf<T> absolute(BitsOf<T> a) {
  return a & ~sign_bit<T>;
}

template <typename T>
BitsOf<T> negate(BitsOf<T> a) {
  return a ^ sign_bit<T>;
}

// -0 is less than +0; a number wins over NaN, unless `nan_wins`.
template <typename T, bool greatest, bool nan_wins>
T extreme(T a, T b) {
  const auto a_bits = std::bit_cast<BitsOf<T>>(a), b_bits = std::bit_cast<BitsOf<T>>(b);
  const T of_equals = std::bit_cast<T>(greatest ? a_bits & b_bits : a_bits | b_bits);
  T result = (greatest ? a > b : a < b) ? a : b;
  result = a == b ? of_equals : result;
  const T of_nan_a = nan_wins ? a : b, of_nan_b = nan_wins ? b : a;
  result = std::isnan(b) ? of_nan_b : result;
  result = std::isnan(a) ? of_nan_a : result;
  return canonical(result);
}

// ---- decoding ----

bool is_f64(const Statement& statement) {
  return statement.type() == Type::f64;
}

void need_f32_or_f64(const Statement& statement, Names& names) {
  if (statement.type() != Type::f32 && statement.type() != Type::f64)
    names.refuse("this type is not known here");
}

// Opcodes that integers have as well are in both tables. 16-bit floats have their own handlers.
bool is_left_to_others(const Statement& statement, Names& names, Instruction& instruction) {
  const Type type = statement.type();
  if (type == Type::f32 || type == Type::f64) return false;
  if (is_float(type)) {
    decode_narrow_float(statement, names, instruction);
  } else {
    integer_decoders().at(statement.parts[0])(statement, names, instruction);
  }
  return true;
}

// One of four handlers by the rounding mode; f64 is rounded to nearest alone.
struct Choice {
  Handler nearest, zero, down, up, f64;
};

void decode_rounded(const Statement& statement, Names& names, Instruction& instruction,
                    const Choice& choice) {
  allow_parts(statement, names, {"rn", "rz", "rm", "rp"});
  Handler handler = choice.nearest;
  if (statement.has("rz")) handler = choice.zero;
  if (statement.has("rm")) handler = choice.down;
  if (statement.has("rp")) handler = choice.up;
  if (is_f64(statement)) handler = handler == choice.nearest ? choice.f64 : nullptr;
  set_handler(names, instruction, handler);
}

template <auto nearest, auto zero, auto down, auto up, auto of_f64>
constexpr Choice binary_choice = {
    elementwise<nearest, float, float, float>, elementwise<zero, float, float, float>,
    elementwise<down, float, float, float>, elementwise<up, float, float, float>,
    elementwise<of_f64, double, double, double>};

void decode_two(const Statement& statement, Names& names, Instruction& instruction,
                const Choice& choice) {
  if (is_left_to_others(statement, names, instruction)) return;
  decode_rounded(statement, names, instruction, choice);
  const Type type = statement.type();
  set_operands(statement, names, instruction, type, {type, type});
}

void decode_add(const Statement& statement, Names& names, Instruction& instruction) {
  decode_two(statement, names, instruction,
             binary_choice<add<float>, rounded_add<Rounding::zero>, rounded_add<Rounding::down>,
                           rounded_add<Rounding::up>, add<double>>);
}

void decode_subtract(const Statement& statement, Names& names, Instruction& instruction) {
  decode_two(statement, names, instruction,
             binary_choice<subtract<float>, rounded_subtract<Rounding::zero>,
                           rounded_subtract<Rounding::down>, rounded_subtract<Rounding::up>,
                           subtract<double>>);
}

void decode_multiply(const Statement& statement, Names& names, Instruction& instruction) {
  decode_two(statement, names, instruction,
             binary_choice<multiply<float>, rounded_multiply<Rounding::zero>,
                           rounded_multiply<Rounding::down>, rounded_multiply<Rounding::up>,
                           multiply<double>>);
}

#if defined(__x86_64__)
// std::fma without such instructions is a call for each lane.
[[gnu::target("avx2,fma")]] void fuse_by_instruction(Warp& warp, const Instruction& instruction,
                                                     LaneMask active) {
  if (active != all_lanes)
    return elementwise<fuse<float>, float, float, float, float>(warp, instruction, active);
  float* const result = warp.lanes<float>(instruction.operands[0]);
  const float* const a = warp.lanes<float>(instruction.operands[1]);
  const float* const b = warp.lanes<float>(instruction.operands[2]);
  const float* const c = warp.lanes<float>(instruction.operands[3]);
  QNEXT_INDEPENDENT_LANES
  for (int lane = 0; lane < warp_size; ++lane)
    result[lane] = with_canonical_nan(std::fma(a[lane], b[lane], c[lane]));
}
#endif

Handler nearest_fuse() {
#if defined(__x86_64__)
  if (selected_isa() >= Isa::avx2) return fuse_by_instruction;
#endif
  return elementwise<fuse<float>, float, float, float, float>;
}

void decode_fuse(const Statement& statement, Names& names, Instruction& instruction) {
  if (is_left_to_others(statement, names, instruction)) return;
  const Choice choice = {nearest_fuse(),
                         elementwise<rounded_fuse<Rounding::zero>, float, float, float, float>,
                         elementwise<rounded_fuse<Rounding::down>, float, float, float, float>,
                         elementwise<rounded_fuse<Rounding::up>, float, float, float, float>,
                         elementwise<fuse<double>, double, double, double, double>};
  decode_rounded(statement, names, instruction, choice);
  const Type type = statement.type();
  set_operands(statement, names, instruction, type, {type, type, type});
}

// .approx and .full are exact here; .ftz is for those of one operand.
void decode_divide(const Statement& statement, Names& names, Instruction& instruction) {
  if (is_left_to_others(statement, names, instruction)) return;
  allow_parts(statement, names, {"rn", "approx", "full"});
  const Type type = statement.type();
  set_operands(statement, names, instruction, type, {type, type});
  set_handler(names, instruction,
              is_f64(statement) ? elementwise<divide<double>, double, double, double>
                                : elementwise<divide<float>, float, float, float>);
}

template <auto of_f32, auto of_f64>
void decode_root(const Statement& statement, Names& names, Instruction& instruction) {
  need_f32_or_f64(statement, names);
  allow_parts(statement, names, {"rn", "approx", "ftz"});
  const Type type = statement.type();
  set_operands(statement, names, instruction, type, {type});
  Handler handler = elementwise<approximate<of_f32, false>, float, float>;
  if (statement.has("ftz")) handler = elementwise<approximate<of_f32, true>, float, float>;
  if (is_f64(statement)) handler = elementwise<of_f64, double, double>;
  if (is_f64(statement) && !statement.has("rn")) handler = nullptr;
  set_handler(names, instruction, handler);
}

template <auto function>
void decode_approximation(const Statement& statement, Names& names, Instruction& instruction) {
  allow_parts(statement, names, {"approx", "ftz"});
  if (statement.type() != Type::f32) names.refuse("this type is not known here");
  set_operands(statement, names, instruction, Type::f32, {Type::f32});
  set_handler(names, instruction,
              statement.has("ftz") ? elementwise<approximate<function, true>, float, float>
                                   : elementwise<approximate<function, false>, float, float>);
}

template <bool greatest>
void decode_extreme(const Statement& statement, Names& names, Instruction& instruction) {
  if (is_left_to_others(statement, names, instruction)) return;
  allow_parts(statement, names, {"NaN"});
  const Type type = statement.type();
  set_operands(statement, names, instruction, type, {type, type});
  Handler handler = elementwise<extreme<float, greatest, false>, float, float, float>;
  if (statement.has("NaN"))
    handler = elementwise<extreme<float, greatest, true>, float, float, float>;
  if (is_f64(statement))
    handler = elementwise<extreme<double, greatest, false>, double, double, double>;
  set_handler(names, instruction, handler);
}

template <auto of_f32, auto of_f64>
void decode_sign(const Statement& statement, Names& names, Instruction& instruction) {
  if (!is_float(statement.type())) {
    integer_decoders().at(statement.parts[0])(statement, names, instruction);
    return;
  }
  need_f32_or_f64(statement, names);
  allow_parts(statement, names, {});
  const Type type = statement.type();
  set_operands(statement, names, instruction, type, {type});
  set_handler(names, instruction,
              is_f64(statement) ? elementwise<of_f64, uint64_t, uint64_t>
                                : elementwise<of_f32, uint32_t, uint32_t>);
}

}  // namespace

const Decoders& float_decoders() {
  static const Decoders decoders = {{"add", decode_add},
                                    {"sub", decode_subtract},
                                    {"mul", decode_multiply},
                                    {"fma", decode_fuse},
                                    {"mad", decode_fuse},
                                    {"div", decode_divide},
                                    {"rcp", decode_root<inverse, reciprocal<double>>},
                                    {"sqrt", decode_root<root, square_root<double>>},
                                    {"rsqrt", decode_approximation<inverse_root>},
                                    {"ex2", decode_approximation<power_of_two>},
                                    {"lg2", decode_approximation<logarithm>},
                                    {"sin", decode_approximation<sine>},
                                    {"cos", decode_approximation<cosine>},
                                    {"tanh", decode_approximation<hyperbolic_tangent>},
                                    {"min", decode_extreme<false>},
                                    {"max", decode_extreme<true>},
                                    {"abs", decode_sign<absolute<float>, absolute<double>>},
                                    {"neg", decode_sign<negate<float>, negate<double>>}};
  return decoders;
}

}  // namespace qnext::emulator
