// wgmma: products of four warps whose operands lie in shared memory, and which run on their own.
//
// Each warp forms its own 16 of the 64 rows, when it comes to the instruction or when it waits for
// it, by chance. Until then its registers and shared memory are read and written by the product, as
// PTX says.
#include <algorithm>
#include <array>
#include <cstring>

#include "emulator/copies.h"
#include "emulator/immediate.h"
#include "emulator/statement.h"
#include "emulator/tensor_sum.h"
#include "emulator/warp.h"

namespace qnext::emulator {
namespace {

constexpr size_t a_registers = 4;
constexpr size_t most_columns = 256;

// Of one wgmma, as far as it is known when the instruction is reached.
struct Product {
  uint64_t a = 0, b = 0;  // descriptors
  bool accumulates = false;
  Delayed delayed;
};

enum WgmmaOperand { a_descriptor, b_descriptor, scale_d };
enum WgmmaDetail { column_count, signs, transposed };
// detail[signs] and detail[transposed]: of a, of b
constexpr int32_t of_a = 1, of_b = 2;

// What a descriptor says about a matrix in shared memory.
struct Layout {
  uint32_t begin = 0;
  uint32_t leading = 0, stride = 0;  // bytes
  uint32_t swizzle_bytes = 0;        // 0: none
  const Delayed* delayed = nullptr;  // of the product that reads it
};

Layout layout_of(uint64_t descriptor, const Delayed& delayed, Warp& warp,
                 const Instruction& instruction) {
  constexpr std::array<uint32_t, 4> swizzles = {0, 128, 64, 32};
  if ((descriptor >> 49 & 7) != 0)
    warp.fault(instruction, 0, "a descriptor with a base offset is not known here");
  const auto field = [&](int bit) {
    return static_cast<uint32_t>(descriptor >> bit & 0x3FFF) << 4;
  };
  return {field(0), field(16), field(32), swizzles[descriptor >> 62], &delayed};
}

// The 16 bytes at the address that the layout's swizzle makes of this one.
const std::byte* chunk(Warp& warp, const Instruction& instruction, const Layout& layout,
                       uint32_t address) {
  const uint32_t bits = layout.swizzle_bytes == 0 ? 0 : layout.swizzle_bytes - 16;
  address &= 0x3FFFF;
  const std::byte* at =
      warp.shared(address ^ (address >> 3 & bits), 16, instruction, 0, Access::none);
  layout.delayed->note(at, 16, Access::read);
  return at;
}

// Rows of a or of b^T, k contiguous: values[row][k].
// Without swizzle: 8 rows x 16 bytes are 128 contiguous bytes, `leading` apart along k, `stride`
// across. With: rows of the swizzle's width, groups of 8 rows `stride` apart.
template <typename Format>
void read_rows(Warp& warp, const Instruction& instruction, const Layout& layout, int first,
               int count, double* values) {
  using Bits = typename Format::Bits;
  constexpr int chunk_values = static_cast<int>(16 / sizeof(Bits));
  const uint32_t row_bytes = layout.swizzle_bytes == 0 ? 16 : layout.swizzle_bytes;
  const uint32_t chunk_bytes = layout.swizzle_bytes == 0 ? layout.leading : 16;
  for (int row = first; row < first + count; ++row) {
    const auto at = static_cast<uint32_t>(row);
    const uint32_t begin = layout.begin + at / 8 * layout.stride + at % 8 * row_bytes;
    for (uint32_t i = 0; i < 2; ++i) {
      Bits bits[chunk_values];
      std::memcpy(bits, chunk(warp, instruction, layout, begin + i * chunk_bytes), 16);
      for (int j = 0; j < chunk_values; ++j) *values++ = Format::widen(bits[j]);
    }
  }
}

// The same of a matrix whose rows (of a, or columns of b) are contiguous, of 16-bit values.
// Without swizzle: 8 rows of 16 bytes, each of one k, are 128 contiguous bytes. With: rows of one k
// have the swizzle's width, what lies behind it is `leading` apart, groups of 8 k `stride`.
template <typename Format>
void read_columns(Warp& warp, const Instruction& instruction, const Layout& layout, int first,
                  int count, double* values) {
  const bool swizzles = layout.swizzle_bytes != 0;
  const uint32_t row_bytes = swizzles ? layout.swizzle_bytes : 16;
  const uint32_t along_k = swizzles ? layout.stride : layout.leading;
  const uint32_t across = swizzles ? layout.leading : layout.stride;
  for (int row = first; row < first + count; row += 8) {
    const auto byte = static_cast<uint32_t>(row) * 2;
    const uint32_t begin = layout.begin + byte / row_bytes * across + byte % row_bytes;
    for (uint32_t k = 0; k < Format::k; ++k) {
      uint16_t bits[8];
      std::memcpy(
          bits, chunk(warp, instruction, layout, begin + k / 8 * along_k + k % 8 * row_bytes), 16);
      double* to = values + (row - first) * Format::k + static_cast<int>(k);
      for (int i = 0; i < 8; ++i) to[i * Format::k] = Format::widen(bits[i]);
    }
  }
}

template <typename Format>
void read_matrix(Warp& warp, const Instruction& instruction, uint64_t descriptor,
                 const Delayed& delayed, bool columns, int first, int count, double* values) {
  const Layout layout = layout_of(descriptor, delayed, warp, instruction);
  if constexpr (sizeof(typename Format::Bits) == 2) {
    if (columns) return read_columns<Format>(warp, instruction, layout, first, count, values);
  }
  read_rows<Format>(warp, instruction, layout, first, count, values);
}

void negate(double* values, size_t count) {
  for (size_t i = 0; i < count; ++i) values[i] = -values[i];
}

// many: d, and a's four registers if it is no descriptor.
template <typename Format>
void multiply(Warp& warp, const Instruction& instruction, const Product& product) {
  const int columns = instruction.detail[column_count];
  const auto sums = static_cast<size_t>(columns) / 2;
  const int32_t transposes = instruction.detail[transposed];
  double a[Format::k * tensor_rows], b[most_columns * Format::k];
  float d[most_columns * tensor_rows];
  if (instruction.many.size() > sums) {
    widen_fragment<Format>(warp, &instruction.many[sums], a);
  } else {
    double rows[tensor_rows * Format::k];
    read_matrix<Format>(warp, instruction, product.a, product.delayed, (transposes & of_a) != 0,
                        warp.index() % 4 * tensor_rows, tensor_rows, rows);
    for (int k = 0; k < Format::k; ++k) {
      for (int row = 0; row < tensor_rows; ++row)
        a[k * tensor_rows + row] = rows[row * Format::k + k];
    }
  }
  read_matrix<Format>(warp, instruction, product.b, product.delayed, (transposes & of_b) != 0, 0,
                      columns, b);
  if (instruction.detail[signs] == of_a || instruction.detail[signs] == of_b)
    negate(a, std::size(a));
  if (product.accumulates)
    gather_sums(warp, instruction.many.data(), columns, d);
  else
    std::fill_n(d, columns * tensor_rows, 0.0f);
  add_tensor_products(a, b, Format::k, columns, d);
  scatter_sums(warp, instruction.many.data(), columns, d);
}

bool any_waits(const Warp::Deferred& products) {
  if (!products.open.empty()) return true;
  for (const auto& group : products.committed) {
    if (!group.empty()) return true;
  }
  return false;
}

template <typename Format>
void start_product(Warp& warp, const Instruction& instruction, LaneMask active) {
  if (!whole_warp(warp, instruction, active)) return;
  Product product;
  if (instruction.operands[a_descriptor] != no_operand)
    product.a = warp.lanes<uint64_t>(instruction.operands[a_descriptor])[0];
  product.b = warp.lanes<uint64_t>(instruction.operands[b_descriptor])[0];
  product.accumulates = (warp.predicate(instruction.operands[scale_d]) & 1) != 0;
  // In order: none is done while an earlier one waits.
  product.delayed = Delayed(warp, instruction);
  if (!any_waits(warp.products) && comes_at_once(warp.block()) && !product.delayed)
    return multiply<Format>(warp, instruction, product);
  warp.products.open.push_back([&warp, &instruction, product]() mutable {
    product.delayed.happen();
    multiply<Format>(warp, instruction, product);
  });
}

void commit_group(Warp& warp, const Instruction& instruction, LaneMask active) {
  if (!whole_warp(warp, instruction, active)) return;
  warp.products.committed.push_back(std::move(warp.products.open));
  warp.products.open.clear();
}

// detail[0]: groups that may still run.
void wait_group(Warp& warp, const Instruction& instruction, LaneMask active) {
  if (!whole_warp(warp, instruction, active)) return;
  auto& committed = warp.products.committed;
  const auto latest = static_cast<size_t>(instruction.detail[0]);
  if (committed.size() <= latest) return;
  const auto end = committed.end() - static_cast<std::ptrdiff_t>(latest);
  for (auto group = committed.begin(); group != end; ++group) {
    for (auto& product : *group) product();
  }
  committed.erase(committed.begin(), end);
}

void do_nothing(Warp&, const Instruction&, LaneMask) {}

// ---- decoders ----

// "m64n96k16" of 16-bit values: 96
int32_t columns_of(std::string_view shape, std::string_view k, Names& names) {
  if (!shape.starts_with("m64n") || !shape.ends_with(k))
    names.refuse("this shape is not known here");
  shape.remove_prefix(4);
  shape.remove_suffix(k.size());
  const int32_t columns = immediate(shape, names);
  if (columns < 8 || columns > static_cast<int32_t>(most_columns) || columns % 8 != 0)
    names.refuse("columns are 8 to 256, a multiple of 8");
  return columns;
}

// scale-d, imm-scale-a, imm-scale-b{, imm-trans-a}{, imm-trans-b}: trans-a where a has a
// descriptor.
void set_flags(const Statement& statement, size_t first, bool has_transposes, Names& names,
               Instruction& instruction) {
  const auto& arguments = statement.arguments;
  const bool a_in_registers = instruction.operands[a_descriptor] == no_operand;
  const size_t transposes = !has_transposes ? 0 : a_in_registers ? 1 : 2;
  if (arguments.size() != first + 3 + transposes) names.refuse("so many operands are not known");
  instruction.operands[scale_d] = names.source(arguments[first], Type::pred);
  const auto flag = [&](size_t i, std::string_view set) {
    const std::string_view text = arguments[first + i].text;
    if (text != set && immediate(text, names) != (set == "1" ? 0 : 1))
      names.refuse("an operand is none of its two values");
    return text == set;
  };
  instruction.detail[signs] = (flag(1, "-1") ? of_a : 0) | (flag(2, "-1") ? of_b : 0);
  if (transposes == 2)
    instruction.detail[transposed] = (flag(3, "1") ? of_a : 0) | (flag(4, "1") ? of_b : 0);
  if (transposes == 1) instruction.detail[transposed] = flag(3, "1") ? of_b : 0;
}

void decode_product(const Statement& statement, Names& names, Instruction& instruction) {
  const auto& arguments = statement.arguments;
  const std::string_view opcode = statement.opcode;
  bool has_transposes = true;
  if (opcode.ends_with(".f32.bf16.bf16")) {
    instruction.handler = start_product<TensorBf16>;
  } else if (opcode.ends_with(".f32.f16.f16")) {
    instruction.handler = start_product<TensorF16>;
  } else if (opcode.ends_with(".f32.e4m3.e4m3")) {
    instruction.handler = start_product<TensorE4m3>;
    has_transposes = false;
  } else {
    names.refuse("these types are not known here");
  }
  if (statement.parts.size() < 5 || arguments.size() < 6) names.refuse("operands are missing");
  const int32_t columns = columns_of(statement.parts[4], has_transposes ? "k16" : "k32", names);
  instruction.detail[column_count] = columns;
  if (arguments[0].elements.size() * 2 != static_cast<size_t>(columns))
    names.refuse("there are not as many sums as columns");
  for (const std::string_view name : arguments[0].elements)
    instruction.many.push_back(names.destination(name, Type::f32));
  if (arguments[1].kind == Argument::Kind::vector) {
    if (arguments[1].elements.size() != a_registers) names.refuse("a has four registers");
    for (const std::string_view name : arguments[1].elements)
      instruction.many.push_back(names.source(name, Type::b32));
  } else {
    instruction.operands[a_descriptor] = names.source(arguments[1], Type::b64);
  }
  instruction.operands[b_descriptor] = names.source(arguments[2], Type::b64);
  set_flags(statement, 3, has_transposes, names, instruction);
}

void decode_wgmma(const Statement& statement, Names& names, Instruction& instruction) {
  const std::string_view what = statement.parts.size() > 1 ? statement.parts[1] : "";
  if (what == "mma_async") return decode_product(statement, names, instruction);
  if (what == "fence") {
    instruction.handler = do_nothing;
  } else if (what == "commit_group") {
    instruction.handler = commit_group;
  } else if (what == "wait_group") {
    instruction.handler = wait_group;
    instruction.detail[0] = immediate(statement.arguments.at(0).text, names);
  } else {
    names.refuse("this form of wgmma is not known here");
  }
}

// setmaxnreg: there are registers enough here.
void decode_registers(const Statement&, Names&, Instruction& instruction) {
  instruction.handler = do_nothing;
}

}  // namespace

const Decoders& warpgroup_decoders() {
  static const Decoders decoders = {{"wgmma", decode_wgmma}, {"setmaxnreg", decode_registers}};
  return decoders;
}

}  // namespace qnext::emulator
