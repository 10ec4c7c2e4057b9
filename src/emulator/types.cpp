#include "emulator/types.h"

#include <algorithm>
#include <array>

namespace qnext::emulator {
namespace {

struct Entry {
  std::string_view name;
  Type type;
  int bits;
};

constexpr std::array<Entry, 20> entries = {{
    {"pred", Type::pred, 1},  {"b8", Type::b8, 8},          {"b16", Type::b16, 16},
    {"b32", Type::b32, 32},   {"b64", Type::b64, 64},       {"u8", Type::u8, 8},
    {"u16", Type::u16, 16},   {"u32", Type::u32, 32},       {"u64", Type::u64, 64},
    {"s8", Type::s8, 8},      {"s16", Type::s16, 16},       {"s32", Type::s32, 32},
    {"s64", Type::s64, 64},   {"f16", Type::f16, 16},       {"f16x2", Type::f16x2, 32},
    {"bf16", Type::bf16, 16}, {"bf16x2", Type::bf16x2, 32}, {"e4m3x2", Type::e4m3x2, 16},
    {"f32", Type::f32, 32},   {"f64", Type::f64, 64},
}};

}  // namespace

Type type_of(std::string_view part) {
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const Entry& entry) { return entry.name == part; });
  return found == entries.end() ? Type::none : found->type;
}

int bits_of(Type type) {
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const Entry& entry) { return entry.type == type; });
  return found == entries.end() ? 0 : found->bits;
}

bool is_signed(Type type) {
  return type == Type::s8 || type == Type::s16 || type == Type::s32 || type == Type::s64;
}

bool is_float(Type type) {
  return type >= Type::f16;
}

}  // namespace qnext::emulator
