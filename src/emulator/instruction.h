// A kernel ready to run: PTX with names turned into places and opcodes into functions.
//
// Each register of a warp is an array of 32 values of its declared width (8-bit values lie in
// 16-bit registers; a predicate is one LaneMask). An Operand says where such an array begins: in
// the warp's registers, or in the constants of its kernel, where immediates lie 32 times.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "emulator/lanes.h"
#include "emulator/types.h"

namespace qnext::emulator {

class Warp;
struct Instruction;

using Operand = uint32_t;
constexpr Operand constant_bank = Operand{1} << 31;  // this bit: an offset into constants
constexpr Operand no_operand = ~Operand{0};

// Executes the instruction for the threads in `active`, which is never empty.
using Handler = void (*)(Warp& warp, const Instruction& instruction, LaneMask active);

struct Instruction {
  Handler handler = nullptr;
  Operand guard = no_operand;  // the predicate of @p or @!p
  LaneMask guard_flip = 0;     // all lanes for @!p
  // Meaning is the handler's own; by custom destinations come first, then sources, in PTX's order.
  std::array<Operand, 6> operands{no_operand, no_operand, no_operand,
                                  no_operand, no_operand, no_operand};
  std::vector<Operand> many;        // elements of {a, b, ...}, one vector behind the other
  int64_t offset = 0;               // of an address: [%rd1+16]
  uint32_t target = 0;              // of a branch or call: the place of an instruction
  std::array<int32_t, 4> detail{};  // shapes, counts, modes
  uint32_t line = 0;                // in the module's PTX
};

struct Parameter {
  std::string name;
  size_t offset = 0;  // in the kernel's parameters
  size_t bytes = 0;
};

// A register of 64-bit addresses that a warp finds filled: where memory begins that is a thread's
// own, or the launch's.
struct OwnMemory {
  enum class Where {
    local,      // .local, of a thread
    registers,  // of the warp: parameters of functions
    launch,     // the launch's parameters: the same address for all threads
  };
  Operand address = no_operand;
  Where where = Where::local;
  size_t offset = 0;
  size_t bytes = 0;  // in registers: of a thread
};

struct Kernel {
  std::string name;
  std::vector<Instruction> code;
  std::vector<std::byte> constants;
  size_t register_bytes = 0;  // of a warp
  size_t local_bytes = 0;     // of a thread
  size_t static_shared_bytes = 0;
  size_t parameter_bytes = 0;
  std::vector<Parameter> parameters;
  std::array<int, 3> cluster{0, 0, 0};  // as the kernel itself demands; 0: it does not
  int largest_block = 1024;             // threads, by .maxntid
  std::vector<std::string_view> lines;  // the PTX of each instruction, for messages
  std::vector<OwnMemory> own_memory;
};

}  // namespace qnext::emulator
