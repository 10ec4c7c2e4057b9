// Products and 8 x 8 matrices against plain loops over PTX's layouts.
#include <gtest/gtest.h>

#include <bit>
#include <random>

#include "emulator/narrow_floats.h"
#include "emulator/ptx_test.h"

namespace qnext::emulator {
namespace {

constexpr std::string_view shared_memory = ".extern .shared .align 1024 .b8 memory[];";

// Row major.
struct Matrix {
  int rows = 0, columns = 0;
  std::vector<float> values;
  float at(int row, int column) const {
    return values[static_cast<size_t>(row * columns + column)];
  }
};

// Small integers, whose products have exact sums, or anything.
Matrix random_matrix(int rows, int columns, uint32_t seed, bool integers = true) {
  std::minstd_rand random(seed + 1);
  Matrix matrix{rows, columns, {}};
  for (int i = 0; i < rows * columns; ++i) {
    const auto value = static_cast<float>(static_cast<int>(random() >> 8 & 15) - 8);
    const float scale = integers ? 1.0f : std::ldexp(1.01f, static_cast<int>(random() >> 8 & 7));
    matrix.values.push_back(float_from_bf16(bf16_from(value * scale)));
  }
  return matrix;
}

// Formats by their names in PTX.
int bytes_of(std::string_view format) {
  return format == "e4m3" ? 1 : 2;
}
uint32_t encode(std::string_view format, float value) {
  if (format == "e4m3") return e4m3_from(value);
  return format == "f16" ? f16_from(value) : bf16_from(value);
}
// Some values side by side, the first in the lowest bits.
uint32_t pack(std::string_view format, const Matrix& matrix, int row, int column, int count) {
  uint32_t bits = 0;
  for (int i = 0; i < count; ++i)
    bits |= encode(format, matrix.at(row, column + i)) << (8 * bytes_of(format) * i);
  return bits;
}

// Register i of a's fragment (16 rows from `row` on, 32 bytes of k from `k` on).
uint32_t a_register(std::string_view format, const Matrix& a, int row, int k, int i, int lane) {
  const int values = 4 / bytes_of(format);
  return pack(format, a, row + lane / 4 + (i % 2 == 1 ? 8 : 0),
              k + lane % 4 * values + (i >= 2 ? 4 * values : 0), values);
}

uint64_t two(uint32_t low, uint32_t high) {
  return low | uint64_t{high} << 32;
}
uint64_t two(float low, float high) {
  return two(std::bit_cast<uint32_t>(low), std::bit_cast<uint32_t>(high));
}
float half_of(uint64_t word, int half) {
  return std::bit_cast<float>(static_cast<uint32_t>(word >> (32 * half)));
}

// a b^T
float product_at(const Matrix& a, const Matrix& b, int row, int column) {
  float sum = 0;
  for (int k = 0; k < a.columns; ++k) sum += a.at(row, k) * b.at(column, k);
  return sum;
}

TEST(Matrices, MmaIsTheProductOfItsFragments) {
  for (const std::string format : {"bf16", "f16"}) {
    const Matrix a = random_matrix(16, 16, 1), b = random_matrix(8, 16, 2),
                 c = random_matrix(16, 8, 3);
    Words in(5, std::vector<uint64_t>(32));
    for (int lane = 0; lane < 32; ++lane) {
      const auto at = static_cast<size_t>(lane);
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < 2; ++i)
        in[static_cast<size_t>(i)][at] = two(a_register(format, a, 0, 0, 2 * i, lane),
                                             a_register(format, a, 0, 0, 2 * i + 1, lane));
      in[2][at] = two(pack(format, b, g, 2 * t, 2), pack(format, b, g, 2 * t + 8, 2));
      in[3][at] = two(c.at(g, 2 * t), c.at(g, 2 * t + 1));
      in[4][at] = two(c.at(g + 8, 2 * t), c.at(g + 8, 2 * t + 1));
    }
    const std::string body = fmt::format(
        "mov.b64 {{%r0, %r1}}, %in0;\nmov.b64 {{%r2, %r3}}, %in1;\nmov.b64 {{%r4, %r5}}, %in2;\n"
        "mov.b64 {{%f0, %f1}}, %in3;\nmov.b64 {{%f2, %f3}}, %in4;\n"
        "mma.sync.aligned.m16n8k16.row.col.f32.{0}.{0}.f32 {{%f4, %f5, %f6, %f7}}, "
        "{{%r0, %r1, %r2, %r3}}, {{%r4, %r5}}, {{%f0, %f1, %f2, %f3}};\n"
        "mov.b64 %out0, {{%f4, %f5}};\nmov.b64 %out1, {{%f6, %f7}};",
        format);
    const Words out = run_ptx({.body = body}, in, 2);
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
        EXPECT_EQ(half_of(out[static_cast<size_t>(i / 2)][static_cast<size_t>(lane)], i % 2),
                  c.at(row, column) + product_at(a, b, row, column))
            << format << " lane " << lane << " sum " << i;
      }
    }
  }
}

// ---- 8 x 8 matrices ----

uint32_t element(int matrix, int row, int column) {
  return static_cast<uint32_t>(matrix * 64 + row * 8 + column);
}
// What a register has of a matrix, as it is or transposed.
uint32_t held(int matrix, int lane, bool transposed) {
  const int row = lane / 4, column = lane % 4 * 2;
  return transposed ? element(matrix, column, row) | element(matrix, column + 1, row) << 16
                    : element(matrix, row, column) | element(matrix, row, column + 1) << 16;
}

// Four matrices by rows: lane l has two words of row l / 2.
Words rows_of_matrices() {
  Words in(2, std::vector<uint64_t>(32));
  for (size_t lane = 0; lane < 32; ++lane) {
    for (size_t i = 0; i < 8; ++i) in[i / 4][lane] |= uint64_t{lane * 8 + i} << (16 * (i % 4));
  }
  return in;
}

TEST(Matrices, LdmatrixGivesRowsToLanes) {
  for (const bool transposed : {false, true}) {
    const std::string body = fmt::format(
        "mov.u32 %r0, memory;\nshl.b32 %r1, %base, 4;\nadd.s32 %r0, %r0, %r1;\n"
        "st.shared.u64 [%r0], %in0;\nst.shared.u64 [%r0+8], %in1;\nbar.warp.sync -1;\n"
        "ldmatrix.sync.aligned.m8n8.x4{}.shared.b16 {{%r2, %r3, %r4, %r5}}, [%r0];\n"
        "mov.b64 %out0, {{%r2, %r3}};\nmov.b64 %out1, {{%r4, %r5}};",
        transposed ? ".trans" : "");
    const Words out =
        run_ptx({.body = body, .declarations = shared_memory, .dynamic_shared_bytes = 512},
                rows_of_matrices(), 2);
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 2; ++i)
        EXPECT_EQ(out[static_cast<size_t>(i)][static_cast<size_t>(lane)],
                  two(held(2 * i, lane, transposed), held(2 * i + 1, lane, transposed)));
    }
  }
}

TEST(Matrices, StmatrixIsLdmatrixBackwards) {
  for (const std::string how : {"", ".trans"}) {
    const std::string body = fmt::format(
        "mov.u32 %r0, memory;\nshl.b32 %r1, %base, 4;\nadd.s32 %r0, %r0, %r1;\n"
        "st.shared.u64 [%r0], %in0;\nst.shared.u64 [%r0+8], %in1;\nbar.warp.sync -1;\n"
        "ldmatrix.sync.aligned.m8n8.x4{0}.shared.b16 {{%r2, %r3, %r4, %r5}}, [%r0];\n"
        "stmatrix.sync.aligned.m8n8.x4{0}.shared.b16 [%r0+512], {{%r5, %r4, %r3, %r2}};\n"
        "ld.shared.u64 %out0, [%r0+512];\nld.shared.u64 %out1, [%r0+520];",
        how);
    const Words in = rows_of_matrices();
    const Words out =
        run_ptx({.body = body, .declarations = shared_memory, .dynamic_shared_bytes = 1024}, in, 2);
    for (size_t lane = 0; lane < 32; ++lane) {
      const size_t other = (3 - lane / 8) * 8 + lane % 8;
      for (size_t i = 0; i < 2; ++i) EXPECT_EQ(out[i][lane], in[i][other]);
    }
  }
}

TEST(Matrices, MovmatrixTransposes) {
  Words in(1, std::vector<uint64_t>(32));
  for (int lane = 0; lane < 32; ++lane) in[0][static_cast<size_t>(lane)] = held(0, lane, false);
  const Words out = run_ptx({.body = "cvt.u32.u64 %r0, %in0;\n"
                                     "movmatrix.sync.aligned.m8n8.trans.b16 %r1, %r0;\n"
                                     "cvt.u64.u32 %out0, %r1;"},
                            in, 1);
  for (int lane = 0; lane < 32; ++lane)
    EXPECT_EQ(out[0][static_cast<size_t>(lane)], held(0, lane, true));
}

// ---- warpgroups ----

// How an operand lies in shared memory.
struct Operands {
  std::string format = "bf16";
  int swizzle = 0;          // bytes
  bool transposed = false;  // k is not contiguous
};

constexpr int steps = 2;            // products one behind the other
constexpr int image_bytes = 32768;  // of each operand

// Bytes between pieces, along k or across, as descriptors give them.
constexpr uint32_t leading = 8192, stride = 1024;

// Where byte `byte` of run `run` lies (without transposition: byte of k in a row).
size_t place_of(const Operands& operands, int row, int k) {
  const int width = bytes_of(operands.format);
  const int run = operands.transposed ? k : row;
  const int byte = (operands.transposed ? row : k) * width;
  if (operands.swizzle == 0) {
    const auto across = static_cast<size_t>(operands.transposed ? byte / 16 : run / 8);
    const auto along = static_cast<size_t>(operands.transposed ? run / 8 : byte / 16);
    return along * leading + across * stride + static_cast<size_t>(run % 8 * 16 + byte % 16);
  }
  const int rows_a_turn = 128 / operands.swizzle;  // rows of one xor
  const int within = byte % operands.swizzle;
  const int turn = run / rows_a_turn % (operands.swizzle / 16);
  return static_cast<size_t>(run / 8) * stride +
         static_cast<size_t>(byte / operands.swizzle) * leading +
         static_cast<size_t>(run % 8 * operands.swizzle + ((within / 16) ^ turn) * 16 +
                             within % 16);
}

uint64_t descriptor_bits(int swizzle) {
  const uint64_t mode = swizzle == 128 ? 1 : swizzle == 64 ? 2 : swizzle == 32 ? 3 : 0;
  return uint64_t{leading / 16} << 16 | uint64_t{stride / 16} << 32 | mode << 62;
}

// What a descriptor's address moves by from one step to the next.
uint32_t step_bytes(const Operands& operands, int k) {
  if (operands.transposed)
    return static_cast<uint32_t>(k) / 8 * (operands.swizzle == 0 ? leading : stride);
  if (operands.swizzle == 0) return 2 * leading;
  return operands.swizzle == 32 ? leading : 32;  // of k, which 32 bytes hold
}

void write_image(const Operands& operands, const Matrix& matrix, std::byte* image) {
  const int width = bytes_of(operands.format);
  for (int row = 0; row < matrix.rows; ++row) {
    for (int k = 0; k < matrix.columns; ++k) {
      const uint32_t bits = encode(operands.format, matrix.at(row, k));
      std::memcpy(image + place_of(operands, row, k), &bits, static_cast<size_t>(width));
    }
  }
}

std::string list(std::string_view prefix, int first, int count) {
  std::string text = "{";
  for (int i = 0; i < count; ++i)
    text += fmt::format("{}%{}{}", i == 0 ? "" : ", ", prefix, first + i);
  return text + "}";
}

// The images come from global memory. in[0]: their address; in[1 to 4]: a's registers of each step.
std::string product_body(const Operands& operands, int columns, int k, bool a_in_registers,
                         bool waits) {
  std::string body =
      "mov.u32 %r0, memory;\nshl.b32 %r1, %base, 9;\nadd.s32 %r0, %r0, %r1;\n"
      "cvt.u64.u32 %rd0, %r1;\nadd.s64 %rd0, %rd0, %in0;\n";
  for (int i = 0; i < 512; i += 8)
    body += fmt::format("ld.global.u64 %rd1, [%rd0+{0}];\nst.shared.u64 [%r0+{0}], %rd1;\n", i);
  body +=
      "fence.proxy.async.shared::cta;\nbar.sync 0;\nmov.u32 %r1, memory;\nshr.u32 %r1, %r1, 4;\n";
  body += fmt::format("cvt.u64.u32 %rd2, %r1;\nor.b64 %rd2, %rd2, {};\nadd.s64 %rd3, %rd2, {};\n",
                      descriptor_bits(operands.swizzle), image_bytes / 16);
  for (int i = 0; i < 2 * steps; ++i)
    body += fmt::format("mov.b64 {{%r{}, %r{}}}, %in{};\n", 10 + 2 * i, 11 + 2 * i, 1 + i);
  body += ".reg .f32 %d<128>;\n.reg .pred add;\n";
  for (int i = 0; i < columns / 2; ++i) body += fmt::format("mov.f32 %d{}, 0f41200000;\n", i);
  body += "wgmma.fence.sync.aligned;\n";
  const bool has_transposes = operands.format != "e4m3";
  for (int step = 0; step < steps; ++step) {
    body += fmt::format("setp.ne.s32 add, {}, 0;\n", step);
    body += fmt::format("wgmma.mma_async.sync.aligned.m64n{}k{}.f32.{}.{} {}, {}, %rd3, add, 1, 1",
                        columns, k, operands.format, operands.format, list("d", 0, columns / 2),
                        a_in_registers ? list("r", 10 + 4 * step, 4) : "%rd2");
    if (has_transposes && !a_in_registers) body += operands.transposed ? ", 1" : ", 0";
    if (has_transposes) body += operands.transposed ? ", 1" : ", 0";
    body += fmt::format(";\nadd.s64 %rd2, %rd2, {0};\nadd.s64 %rd3, %rd3, {0};\n",
                        step_bytes(operands, k) / 16);
  }
  body += "wgmma.commit_group.sync.aligned;\n";
  if (waits) body += "wgmma.wait_group.sync.aligned 0;\n";
  for (int i = 0; i < columns / 4; ++i)
    body += fmt::format("mov.b64 %out{}, {{%d{}, %d{}}};\n", i, 2 * i, 2 * i + 1);
  return body;
}

// How many sums are not those of a plain loop.
int wrong_sums(const Operands& operands, int columns, bool a_in_registers, uint32_t seed,
               bool waits = true) {
  const int k = 32 / bytes_of(operands.format);
  const Matrix a = random_matrix(64, steps * k, 4), b = random_matrix(columns, steps * k, 5);
  std::byte* images = device_memory().allocate(2 * image_bytes);
  write_image(operands, a, images);
  write_image(operands, b, images + image_bytes);
  Words in(1 + 2 * steps, std::vector<uint64_t>(128, reinterpret_cast<uint64_t>(images)));
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < 2 * steps; ++i) {
      const auto at = [&](int part) {
        return a_register(operands.format, a, thread / 32 * 16, i / 2 * k, i % 2 * 2 + part,
                          thread % 32);
      };
      in[static_cast<size_t>(1 + i)][static_cast<size_t>(thread)] = two(at(0), at(1));
    }
  }
  const Words out = run_ptx({.body = product_body(operands, columns, k, a_in_registers, waits),
                             .declarations = shared_memory,
                             .threads = 128,
                             .dynamic_shared_bytes = 2 * image_bytes,
                             .seed = seed},
                            in, static_cast<size_t>(columns / 4));
  device_memory().release(images);
  int wrong = 0;
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < columns / 2; ++i) {
      const int row = thread / 32 * 16 + thread % 32 / 4 + 8 * (i / 2 % 2);
      const int column = i / 4 * 8 + thread % 4 * 2 + i % 2;
      const uint64_t word = out[static_cast<size_t>(i / 2)][static_cast<size_t>(thread)];
      wrong += half_of(word, i % 2) != product_at(a, b, row, column) ? 1 : 0;
    }
  }
  return wrong;
}

TEST(Warpgroups, ProductsOfAllLayouts) {
  for (const std::string format : {"bf16", "f16", "e4m3"}) {
    for (const int swizzle : {0, 32, 64, 128}) {
      for (const bool transposed : {false, true}) {
        for (const bool in_registers : {false, true}) {
          if (transposed && format == "e4m3") continue;
          EXPECT_EQ(wrong_sums({format, swizzle, transposed}, 64, in_registers, 1), 0)
              << format << ", swizzle of " << swizzle << (transposed ? ", transposed" : "")
              << (in_registers ? ", a in registers" : "");
        }
      }
    }
  }
}

TEST(Warpgroups, WidthsAndOrders) {
  for (const int columns : {8, 32, 96, 160, 192}) {
    for (uint32_t seed = 0; seed < 4; ++seed)
      EXPECT_EQ(wrong_sums({"bf16", 128, false}, columns, true, seed), 0) << columns;
  }
}

TEST(Warpgroups, AMissingWaitIsNoticed) {
  int noticed = 0;
  for (uint32_t seed = 0; seed < 8; ++seed)
    noticed += wrong_sums({"bf16", 128, false}, 8, true, seed, false) != 0 ? 1 : 0;
  EXPECT_GT(noticed, 0);
}

TEST(Warpgroups, SumsHaveTheBitsOfMma) {
  const Matrix a = random_matrix(64, 32, 6, false), b = random_matrix(8, 32, 7, false);
  const Operands operands{"bf16", 128, false};
  std::byte* images = device_memory().allocate(2 * image_bytes);
  write_image(operands, a, images);
  write_image(operands, b, images + image_bytes);
  Words in(7, std::vector<uint64_t>(128, reinterpret_cast<uint64_t>(images)));
  for (int thread = 0; thread < 128; ++thread) {
    const int lane = thread % 32, row = thread / 32 * 16;
    const auto at = static_cast<size_t>(thread);
    for (int i = 0; i < 4; ++i)
      in[static_cast<size_t>(1 + i)][at] =
          two(a_register("bf16", a, row, i / 2 * 16, i % 2 * 2, lane),
              a_register("bf16", a, row, i / 2 * 16, i % 2 * 2 + 1, lane));
    for (int i = 0; i < 2; ++i) {
      const int k = 16 * i + lane % 4 * 2;
      in[static_cast<size_t>(5 + i)][at] =
          two(pack("bf16", b, lane / 4, k, 2), pack("bf16", b, lane / 4, k + 8, 2));
    }
  }
  std::string body = product_body(operands, 8, 16, true, true);
  body += "mov.f32 %f0, 0f00000000;\nmov.f32 %f1, %f0;\nmov.f32 %f2, %f0;\nmov.f32 %f3, %f0;\n";
  for (int step = 0; step < 2; ++step) {
    body += fmt::format(
        "mov.b64 {{%r30, %r31}}, %in{};\n"
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {{%f0, %f1, %f2, %f3}}, {}, "
        "{{%r30, %r31}}, {{%f0, %f1, %f2, %f3}};\n",
        5 + step, list("r", 10 + 4 * step, 4));
  }
  body += "mov.b64 %out2, {%f0, %f1};\nmov.b64 %out3, {%f2, %f3};";
  const Words out = run_ptx({.body = body,
                             .declarations = shared_memory,
                             .threads = 128,
                             .dynamic_shared_bytes = 2 * image_bytes},
                            in, 4);
  device_memory().release(images);
  EXPECT_EQ(out[0], out[2]);
  EXPECT_EQ(out[1], out[3]);
}

}  // namespace
}  // namespace qnext::emulator
