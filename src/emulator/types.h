// The types of PTX: what the last parts of an opcode say (add.s32, cvt.rn.bf16x2.f32).
#pragma once

#include <cstdint>
#include <string_view>

namespace qnext::emulator {

enum class Type : uint8_t {
  none,  // not a type
  pred,
  b8,
  b16,
  b32,
  b64,
  u8,
  u16,
  u32,
  u64,
  s8,
  s16,
  s32,
  s64,
  f16,
  f16x2,
  bf16,
  bf16x2,
  e4m3x2,
  f32,
  f64,
};

// "u32" gives Type::u32; Type::none where it is no type.
Type type_of(std::string_view part);

// pred 1, else the number in the name (x2: twice that; e4m3x2: 16).
int bits_of(Type type);

bool is_signed(Type type);
bool is_float(Type type);  // f16, bf16, their pairs, e4m3x2, f32, f64

}  // namespace qnext::emulator
