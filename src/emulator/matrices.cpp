// Matrices that lie in the registers of a warp: mma.sync, and 8 x 8 matrices of 16-bit values moved
// between registers and shared memory (ldmatrix, stmatrix) and transposed (movmatrix).
//
// Lane 4 g + t has of an 8 x 8 matrix the values 2 t and 2 t + 1 of row g in one register.
#include <array>
#include <cstring>

#include "emulator/statement.h"
#include "emulator/tensor_sum.h"
#include "emulator/warp.h"

namespace qnext::emulator {
namespace {

// ---- mma ----

// many: d (4), a (4), b (2), c (4).
enum MmaOperand : size_t { mma_d = 0, mma_a = 4, mma_b = 8, mma_c = 10 };

template <typename Format>
void multiply(Warp& warp, const Instruction& instruction, LaneMask active) {
  if (!whole_warp(warp, instruction, active)) return;
  constexpr int columns = 8;
  constexpr int values = values_of_register<Format>;
  double a[Format::k * tensor_rows], b[columns * Format::k];
  float d[columns * tensor_rows];
  widen_fragment<Format>(warp, &instruction.many[mma_a], a);
  for (int i = 0; i < 2; ++i) {
    const uint32_t* lanes = warp.lanes<uint32_t>(instruction.many[mma_b + static_cast<size_t>(i)]);
    for (int lane = 0; lane < warp_size; ++lane) {
      const auto widened = widen_register<Format>(lanes[lane]);
      double* to = b + lane / 4 * Format::k + Format::k / 2 * i + values * (lane % 4);
      for (int j = 0; j < values; ++j) to[j] = widened[static_cast<size_t>(j)];
    }
  }
  gather_sums(warp, &instruction.many[mma_c], columns, d);
  add_tensor_products(a, b, Format::k, columns, d);
  scatter_sums(warp, &instruction.many[mma_d], columns, d);
}

void decode_mma(const Statement& statement, Names& names, Instruction& instruction) {
  const auto& arguments = statement.arguments;
  const std::string_view opcode = statement.opcode;
  if (opcode == "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")
    instruction.handler = multiply<TensorBf16>;
  else if (opcode == "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")
    instruction.handler = multiply<TensorF16>;
  else if (opcode == "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32")
    instruction.handler = multiply<TensorE4m3>;
  else
    names.refuse("this form of mma is not known here");
  if (arguments.size() != 4 || arguments[0].elements.size() != 4 ||
      arguments[1].elements.size() != 4 || arguments[2].elements.size() != 2 ||
      arguments[3].elements.size() != 4)
    names.refuse("operands are missing");
  for (const std::string_view name : arguments[0].elements)
    instruction.many.push_back(names.destination(name, Type::f32));
  for (const size_t i : {1, 2}) {
    for (const std::string_view name : arguments[i].elements)
      instruction.many.push_back(names.source(name, Type::b32));
  }
  for (const std::string_view name : arguments[3].elements)
    instruction.many.push_back(names.source(name, Type::f32));
}

// ---- 8 x 8 matrices ----

using Matrix = std::array<std::array<uint16_t, 8>, 8>;

Matrix matrix_in(const uint32_t* lanes) {
  Matrix matrix;
  for (size_t lane = 0; lane < warp_size; ++lane) {
    matrix[lane / 4][lane % 4 * 2] = static_cast<uint16_t>(lanes[lane]);
    matrix[lane / 4][lane % 4 * 2 + 1] = static_cast<uint16_t>(lanes[lane] >> 16);
  }
  return matrix;
}

void put_matrix(const Matrix& matrix, uint32_t* lanes) {
  for (size_t lane = 0; lane < warp_size; ++lane) {
    const auto& row = matrix[lane / 4];
    lanes[lane] = row[lane % 4 * 2] | static_cast<uint32_t>(row[lane % 4 * 2 + 1]) << 16;
  }
}

Matrix transposed(const Matrix& matrix) {
  Matrix result;
  for (size_t i = 0; i < 8; ++i) {
    for (size_t j = 0; j < 8; ++j) result[j][i] = matrix[i][j];
  }
  return result;
}

// Row `row` of matrix `matrix`, whose address lane 8 matrix + row has.
std::byte* row_of(Warp& warp, const Instruction& instruction, size_t matrix, size_t row,
                  Access access) {
  const size_t lane = 8 * matrix + row;
  const uint32_t address = warp.lanes<uint32_t>(instruction.operands[0])[lane];
  return warp.shared(address + static_cast<uint32_t>(instruction.offset), 16, instruction,
                     static_cast<int>(lane), access);
}

// operands[0]: addresses; many: one register a matrix.
template <bool transposes>
void load_matrices(Warp& warp, const Instruction& instruction, LaneMask active) {
  if (!whole_warp(warp, instruction, active)) return;
  std::array<Matrix, 4> matrices;  // all are read before a register of addresses may be written
  for (size_t i = 0; i < instruction.many.size(); ++i) {
    for (size_t row = 0; row < 8; ++row)
      std::memcpy(matrices[i][row].data(), row_of(warp, instruction, i, row, Access::read), 16);
  }
  for (size_t i = 0; i < instruction.many.size(); ++i)
    put_matrix(transposes ? transposed(matrices[i]) : matrices[i],
               warp.lanes<uint32_t>(instruction.many[i]));
}

template <bool transposes>
void store_matrices(Warp& warp, const Instruction& instruction, LaneMask active) {
  if (!whole_warp(warp, instruction, active)) return;
  for (size_t i = 0; i < instruction.many.size(); ++i) {
    const Matrix given = matrix_in(warp.lanes<uint32_t>(instruction.many[i]));
    const Matrix matrix = transposes ? transposed(given) : given;
    for (size_t row = 0; row < 8; ++row)
      std::memcpy(row_of(warp, instruction, i, row, Access::write), matrix[row].data(), 16);
  }
}

void transpose(Warp& warp, const Instruction& instruction, LaneMask active) {
  if (!whole_warp(warp, instruction, active)) return;
  const Matrix matrix = matrix_in(warp.lanes<uint32_t>(instruction.operands[1]));
  put_matrix(transposed(matrix), warp.lanes<uint32_t>(instruction.operands[0]));
}

size_t matrix_count(const Statement& statement, Names& names) {
  if (!statement.has("m8n8") || !statement.has("b16") ||
      (!statement.has("shared") && !statement.has("shared::cta")))
    names.refuse("only m8n8 of b16 in shared memory is known here");
  return statement.has("x4") ? 4 : statement.has("x2") ? 2 : 1;
}

// A list, or one register of .x1 without braces.
std::vector<std::string_view> registers_of(const Argument& argument) {
  if (argument.kind == Argument::Kind::vector) return argument.elements;
  return {argument.text};
}

void decode_ldmatrix(const Statement& statement, Names& names, Instruction& instruction) {
  const size_t count = matrix_count(statement, names);
  const std::vector<std::string_view> registers = registers_of(statement.arguments.at(0));
  if (registers.size() != count) names.refuse("there are not as many registers as matrices");
  instruction.handler = statement.has("trans") ? load_matrices<true> : load_matrices<false>;
  instruction.operands[0] = names.source(statement.arguments.at(1).text, Type::b32);
  instruction.offset = statement.arguments[1].offset;
  for (const std::string_view name : registers)
    instruction.many.push_back(names.destination(name, Type::b32));
}

void decode_stmatrix(const Statement& statement, Names& names, Instruction& instruction) {
  const size_t count = matrix_count(statement, names);
  const std::vector<std::string_view> registers = registers_of(statement.arguments.at(1));
  if (registers.size() != count) names.refuse("there are not as many registers as matrices");
  instruction.handler = statement.has("trans") ? store_matrices<true> : store_matrices<false>;
  instruction.operands[0] = names.source(statement.arguments[0].text, Type::b32);
  instruction.offset = statement.arguments[0].offset;
  for (const std::string_view name : registers)
    instruction.many.push_back(names.source(name, Type::b32));
}

void decode_movmatrix(const Statement& statement, Names& names, Instruction& instruction) {
  if (statement.opcode != "movmatrix.sync.aligned.m8n8.trans.b16")
    names.refuse("this form of movmatrix is not known here");
  instruction.handler = transpose;
  instruction.operands[0] = names.destination(statement.arguments.at(0), Type::b32);
  instruction.operands[1] = names.source(statement.arguments.at(1), Type::b32);
}

}  // namespace

const Decoders& matrix_decoders() {
  static const Decoders decoders = {{"mma", decode_mma},
                                    {"ldmatrix", decode_ldmatrix},
                                    {"stmatrix", decode_stmatrix},
                                    {"movmatrix", decode_movmatrix}};
  return decoders;
}

}  // namespace qnext::emulator
