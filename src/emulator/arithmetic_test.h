// One instruction on many operands, compared with a function: what the tests of arithmetic share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "emulator/ptx_test.h"

namespace qnext::emulator {

// How the words of a thread come into registers of a width and how %out0 is made of the result:
// three sources in register 0 to 2, the result in 3.
struct RegisterKind {
  std::string_view before, after;
};
constexpr RegisterKind words16{
    "cvt.u16.u64 %rs0, %in0; cvt.u16.u64 %rs1, %in1; cvt.u16.u64 %rs2, %in2;",
    "cvt.u64.u16 %out0, %rs3;"};
constexpr RegisterKind words32{
    "cvt.u32.u64 %r0, %in0; cvt.u32.u64 %r1, %in1; cvt.u32.u64 %r2, %in2;",
    "cvt.u64.u32 %out0, %r3;"};
constexpr RegisterKind words64{"mov.b64 %rd0, %in0; mov.b64 %rd1, %in1; mov.b64 %rd2, %in2;",
                               "mov.b64 %out0, %rd3;"};
constexpr RegisterKind floats{
    "cvt.u32.u64 %r0, %in0; cvt.u32.u64 %r1, %in1; cvt.u32.u64 %r2, %in2;"
    "mov.b32 %f0, %r0; mov.b32 %f1, %r1; mov.b32 %f2, %r2;",
    "mov.b32 %r3, %f3; cvt.u64.u32 %out0, %r3;"};
constexpr RegisterKind doubles{"mov.b64 %fd0, %in0; mov.b64 %fd1, %in1; mov.b64 %fd2, %in2;",
                               "mov.b64 %out0, %fd3;"};

inline float as_float(uint64_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits));
}
inline uint64_t bits_of_float(float value) {
  // The GPU's only NaN.
  return value == value ? std::bit_cast<uint32_t>(value) : 0x7FFFFFFFu;
}
inline double as_double(uint64_t bits) {
  return std::bit_cast<double>(bits);
}

// All triples of edges (pairs and a third that changes with them), then random bits.
inline Words operands(const std::vector<uint64_t>& edges, size_t random_count = 2000) {
  Words words(3);
  for (size_t i = 0; i < edges.size(); ++i) {
    for (size_t j = 0; j < edges.size(); ++j) {
      words[0].push_back(edges[i]);
      words[1].push_back(edges[j]);
      words[2].push_back(edges[(i * 7 + j * 3 + words[0].size()) % edges.size()]);
    }
  }
  std::mt19937_64 random(7);
  for (size_t i = 0; i < random_count; ++i) {
    for (std::vector<uint64_t>& column : words) column.push_back(random());
  }
  return words;
}

// expected(a, b, c) for each thread.
template <typename Expected>
void check(std::string_view statement, const RegisterKind& kind, const Words& inputs,
           Expected expected) {
  const std::string body = fmt::format("{}\n{}\n{}", kind.before, statement, kind.after);
  const size_t count = inputs[0].size();
  PtxTest test{.body = body, .threads = 64};
  test.blocks = static_cast<uint32_t>((count + 63) / 64);
  const Words outputs = run_ptx(test, inputs, 1);
  int wrong = 0;
  for (size_t i = 0; i < count && wrong < 3; ++i) {
    const uint64_t right = expected(inputs[0][i], inputs[1][i], inputs[2][i]);
    if (outputs[0][i] == right) continue;
    ++wrong;
    ADD_FAILURE() << fmt::format("{} of {:#x}, {:#x}, {:#x} is {:#x}, not {:#x}", statement,
                                 inputs[0][i], inputs[1][i], inputs[2][i], outputs[0][i], right);
  }
}

inline const std::vector<uint64_t>& integer_edges() {
  static const std::vector<uint64_t> edges = {
      0,          1,          2,          5,          7,          31,         32,
      33,         63,         64,         65,         70,         255,        0x7FFF,
      0x8000,     0xFFFF,     0x10000,    0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF,
      1ull << 32, ~0ull >> 1, 1ull << 63, ~0ull,      ~1ull,      0xDEADBEEF, 0x0123456789ABCDEF};
  return edges;
}

inline const std::vector<uint64_t>& float_edges() {
  static const std::vector<uint64_t> edges = {
      0,          0x80000000, 0x3F800000, 0xBF800000, 0x3F800001, 0x3F7FFFFF, 0xBF7FFFFF,
      0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345, 1,          0x80000001, 0x007FFFFF,
      0x00800000, 0x80800000, 0x00FFFFFF, 0x7F7FFFFF, 0xFF7FFFFF, 0x40490FDB, 0x4B000000,
      0x4B000001, 0x33800000, 0x33800001, 0xB3800000, 0x34000000, 0x4F000000, 0xCF000000,
      0x5F000000, 0x40200000, 0xC0200000, 0x3F000000, 0x1A000001, 0x25000001};
  return edges;
}

}  // namespace qnext::emulator
