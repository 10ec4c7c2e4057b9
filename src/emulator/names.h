// The names that a function of a kernel may use, and the places they stand for.
//
// Scopes side by side use the same places, for registers of the same width: threads of a warp may
// be in several scopes at once, and then each still has its own value. Functions have places of
// their own: they never call themselves.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "emulator/instruction.h"
#include "emulator/parser.h"
#include "emulator/statement.h"

namespace qnext::emulator {

// Memory with a name: parameters, results, .local.
struct NamedMemory {
  Operand address = no_operand;    // 64 bits
  Operand registers = no_operand;  // where it lies in registers, or none
  size_t bytes = 0;
  bool of_launch = false;  // the same for all threads
};

// Registers, constants and memory of a kernel while it is decoded.
class Places {
 public:
  explicit Places(Kernel& kernel) : kernel_(kernel) {}

  Operand registers(size_t bytes);  // 64-byte aligned

  // One register (1: a predicate), maybe one that was given back.
  Operand take(int bits);
  void give_back(Operand operand, int bits) { free_[bits].push_back(operand); }

  // `bits` wide (1: a predicate), 32 times.
  Operand constant(uint64_t value, int bits);
  // A register with the address of memory of each thread's own, or of the launch's parameters.
  Operand own_memory(OwnMemory::Where where, size_t offset, size_t bytes);

  // A parameter's memory, maybe such as was given back.
  NamedMemory take_parameter(size_t bytes);
  void give_back(const NamedMemory& memory) { free_memory_[memory.bytes].push_back(memory); }

  Kernel& kernel() { return kernel_; }

 private:
  Kernel& kernel_;
  std::map<int, std::vector<Operand>> free_;                // by width
  std::map<size_t, std::vector<NamedMemory>> free_memory_;  // by bytes
  std::map<std::pair<uint64_t, int>, Operand> constants_;
};

class FunctionNames : public Names {
 public:
  // symbols: variables of the module, by name, and their addresses.
  FunctionNames(Places& places, const std::unordered_map<std::string_view, uint64_t>& symbols);

  void open_scope();
  void close_scope();
  void declare(const Variable& variable);
  void declare_memory(std::string_view name, const NamedMemory& memory);
  const NamedMemory& memory(std::string_view name) const;
  // Of which statement refuse() speaks.
  void now_at(const Statement& statement) { statement_ = &statement; }

  Operand destination(const Argument& argument, Type type) override;
  Operand destination(std::string_view name, Type type) override;
  Operand source(const Argument& argument, Type type) override;
  Operand source(std::string_view text, Type type) override;
  int width(std::string_view text) const override;
  bool is_uniform(std::string_view text) const override;
  Operand register_of(std::string_view name) override;
  [[noreturn]] void refuse(std::string_view why) const override;

 private:
  struct Register {
    Operand operand = no_operand;  // of the first one
    int bits = 0;
    int count = 0;  // of a family: %r<count>
  };
  struct Scope {
    std::unordered_map<std::string_view, Register> registers;  // a family by its prefix
    std::unordered_map<std::string_view, NamedMemory> memory;
  };

  // The place and width of a register; no_operand where it is none.
  std::pair<Operand, int> find(std::string_view name) const;
  const NamedMemory* find_memory(std::string_view name) const;

  Places& places_;
  const std::unordered_map<std::string_view, uint64_t>& symbols_;
  std::vector<Scope> scopes_;
  const Statement* statement_ = nullptr;
};

// An immediate of PTX (12, -1, 0x1F, 0f3F800000, 0d..., 1.0) in the bits of `type`; false: it is
// none.
bool parse_immediate(std::string_view text, Type type, uint64_t& bits);

}  // namespace qnext::emulator
