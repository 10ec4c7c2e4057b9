#include "emulator/names.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>

#include "base/error.h"
#include "emulator/alignment.h"

namespace qnext::emulator {
namespace {

constexpr size_t line_bytes = 64;

size_t register_bytes(int bits) {
  return bits == 1 ? sizeof(LaneMask) : static_cast<size_t>(bits) / 8 * warp_size;
}

size_t whole_lines(size_t bytes) {
  return round_up(bytes, line_bytes);
}

}  // namespace

Operand Places::registers(size_t bytes) {
  const size_t begin = kernel_.register_bytes;
  kernel_.register_bytes += whole_lines(bytes);
  return static_cast<Operand>(begin);
}

Operand Places::take(int bits) {
  std::vector<Operand>& free = free_[bits];
  if (free.empty()) return registers(register_bytes(bits));
  const Operand operand = free.back();
  free.pop_back();
  return operand;
}

Operand Places::constant(uint64_t value, int bits) {
  const auto [at, is_new] = constants_.try_emplace({value, bits}, 0);
  if (!is_new) return at->second;
  std::vector<std::byte>& constants = kernel_.constants;
  const size_t begin = constants.size();
  const size_t bytes = register_bytes(bits);
  constants.resize(begin + whole_lines(bytes));
  if (bits == 1) {
    const LaneMask mask = value != 0 ? all_lanes : 0;
    std::memcpy(constants.data() + begin, &mask, sizeof mask);
  } else {
    const auto width = static_cast<size_t>(bits) / 8;  // the low bytes come first
    for (size_t lane = 0; lane < warp_size; ++lane)
      std::memcpy(constants.data() + begin + lane * width, &value, width);
  }
  at->second = static_cast<Operand>(begin) | constant_bank;
  return at->second;
}

Operand Places::own_memory(OwnMemory::Where where, size_t offset, size_t bytes) {
  const Operand address = registers(register_bytes(64));
  kernel_.own_memory.push_back({address, where, offset, bytes});
  return address;
}

NamedMemory Places::take_parameter(size_t bytes) {
  std::vector<NamedMemory>& free = free_memory_[bytes];
  if (!free.empty()) {
    const NamedMemory memory = free.back();
    free.pop_back();
    return memory;
  }
  NamedMemory memory;
  memory.bytes = bytes;
  memory.registers = registers(bytes * warp_size);
  memory.address = own_memory(OwnMemory::Where::registers, memory.registers, bytes);
  return memory;
}

bool parse_immediate(std::string_view text, Type type, uint64_t& bits) {
  const bool negative = text.starts_with('-');
  std::string_view digits = text.substr(negative ? 1 : 0);
  if (digits.ends_with('U')) digits.remove_suffix(1);
  if (digits.empty() || digits[0] < '0' || digits[0] > '9') return false;
  int base = 10;
  if (digits.starts_with("0x") || digits.starts_with("0f") || digits.starts_with("0F") ||
      digits.starts_with("0d") || digits.starts_with("0D")) {
    base = 16;
    digits.remove_prefix(2);
  } else if (digits.find('.') != std::string_view::npos) {
    double value = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (negative) value = -value;
    bits = type == Type::f64 ? std::bit_cast<uint64_t>(value)
                             : std::bit_cast<uint32_t>(static_cast<float>(value));
    return true;
  }
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), bits, base);
  if (result.ec != std::errc{} || result.ptr != digits.data() + digits.size()) return false;
  if (negative) bits = ~bits + 1;
  return true;
}

FunctionNames::FunctionNames(Places& places,
                             const std::unordered_map<std::string_view, uint64_t>& symbols)
    : places_(places), symbols_(symbols) {
  open_scope();
}

void FunctionNames::open_scope() {
  scopes_.emplace_back();
}

void FunctionNames::close_scope() {
  for (const auto& [name, one] : scopes_.back().registers) {
    if (one.count == 0) places_.give_back(one.operand, one.bits);
  }
  for (const auto& [name, memory] : scopes_.back().memory) {
    if (memory.registers != no_operand) places_.give_back(memory);
  }
  scopes_.pop_back();
}

void FunctionNames::declare(const Variable& variable) {
  if (variable.space == "reg") {
    const int bits = std::max(bits_of(variable.type), variable.type == Type::pred ? 1 : 16);
    const Operand first = variable.count == 0
                              ? places_.take(bits)
                              : places_.registers(whole_lines(register_bytes(bits)) *
                                                  static_cast<size_t>(variable.count));
    scopes_.back().registers[variable.name] = {first, bits, variable.count};
    return;
  }
  if (variable.space == "shared") return;  // placed with those of the module
  if (variable.space == "param")
    return declare_memory(variable.name, places_.take_parameter(variable.bytes));
  if (variable.space != "local")
    refuse(fmt::format("variables of .{} inside of a function are not known here", variable.space));
  NamedMemory memory;
  memory.bytes = variable.bytes;
  size_t& top = places_.kernel().local_bytes;
  top = round_up(top, variable.alignment);
  memory.address = places_.own_memory(OwnMemory::Where::local, top, variable.bytes);
  // A thread's memory is a multiple of 16, so that it begins aligned for every thread.
  top = round_up(top + variable.bytes, 16);
  declare_memory(variable.name, memory);
}

void FunctionNames::declare_memory(std::string_view name, const NamedMemory& memory) {
  scopes_.back().memory[name] = memory;
}

const NamedMemory& FunctionNames::memory(std::string_view name) const {
  const NamedMemory* memory = find_memory(name);
  if (memory == nullptr) refuse(fmt::format("{} is no parameter", name));
  return *memory;
}

const NamedMemory* FunctionNames::find_memory(std::string_view name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto found = scope->memory.find(name);
    if (found != scope->memory.end()) return &found->second;
  }
  return nullptr;
}

std::pair<Operand, int> FunctionNames::find(std::string_view name) const {
  const size_t digits = name.find_last_not_of("0123456789") + 1;
  int number = 0;
  const bool numbered =
      digits < name.size() &&
      std::from_chars(name.data() + digits, name.data() + name.size(), number).ec == std::errc{};
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto exact = scope->registers.find(name);
    if (exact != scope->registers.end() && exact->second.count == 0)
      return {exact->second.operand, exact->second.bits};
    if (!numbered) continue;
    const auto family = scope->registers.find(name.substr(0, digits));
    if (family == scope->registers.end() || number >= family->second.count) continue;
    const Register& first = family->second;
    const size_t bytes = whole_lines(register_bytes(first.bits));
    return {static_cast<Operand>(first.operand + bytes * static_cast<size_t>(number)), first.bits};
  }
  return {no_operand, 0};
}

int FunctionNames::width(std::string_view text) const {
  return find(text).second;
}

bool FunctionNames::is_uniform(std::string_view text) const {
  if (const NamedMemory* memory = find_memory(text)) return memory->of_launch;
  return find(text).first == no_operand;
}

Operand FunctionNames::register_of(std::string_view name) {
  const Operand operand = find(name).first;
  if (operand == no_operand) refuse(fmt::format("there is no register {}", name));
  return operand;
}

Operand FunctionNames::destination(const Argument& argument, Type type) {
  return destination(argument.text, type);
}

Operand FunctionNames::destination(std::string_view name, Type type) {
  const int bits = std::max(bits_of(type), type == Type::pred ? 1 : 16);
  if (name == "_") return places_.registers(register_bytes(bits));
  const auto [operand, width] = find(name);
  if (operand == no_operand) refuse(fmt::format("there is no register {}", name));
  if (width != bits) refuse(fmt::format("{} has {} bits, {} are written", name, width, bits));
  return operand;
}

Operand FunctionNames::source(const Argument& argument, Type type) {
  return source(argument.text, type);
}

Operand FunctionNames::source(std::string_view text, Type type) {
  const int bits = std::max(bits_of(type), type == Type::pred ? 1 : 16);
  const auto [operand, width] = find(text);
  if (operand != no_operand) {
    if (width != bits) refuse(fmt::format("{} has {} bits, {} are read", text, width, bits));
    return operand;
  }
  uint64_t value = 0;
  if (parse_immediate(text, type, value)) {
    if (bits < 64 && bits > 1) value &= (uint64_t{1} << bits) - 1;
    return places_.constant(value, bits);
  }
  if (const NamedMemory* memory = find_memory(text)) {
    if (bits != 64) refuse(fmt::format("the address of {} has 64 bits", text));
    return memory->address;
  }
  const auto symbol = symbols_.find(text);
  if (symbol == symbols_.end()) refuse(fmt::format("{} is not known", text));
  return places_.constant(symbol->second, bits);
}

void FunctionNames::refuse(std::string_view why) const {
  if (statement_ == nullptr) fail("PTX of kernel {}: {}", places_.kernel().name, why);
  fail("PTX of kernel {}, line {}, {}: {}", places_.kernel().name, statement_->line,
       statement_->opcode, why);
}

}  // namespace qnext::emulator
