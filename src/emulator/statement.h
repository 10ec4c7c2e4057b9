// One PTX instruction as written, and what decoders need to turn it into an Instruction.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "emulator/instruction.h"

namespace qnext::emulator {

// An operand as written.
struct Argument {
  enum class Kind {
    value,    // %r1, 5, 0f3F800000, a symbol, a label, or _ (nothing)
    vector,   // {%r1, %r2}: elements
    address,  // [%rd1+16], [symbol+4]: text is the base, offset the number; [%rd1, {%r1, %r2}] of
              // tensor copies has the coordinates in elements
    pair,     // %r1|%p1: elements are the two
    list,     // (a, b) of a call: elements
  };
  Kind kind = Kind::value;
  std::string_view text;
  std::vector<std::string_view> elements;
  int64_t offset = 0;
};

struct Statement {
  std::string_view opcode;              // "ld.shared.v4.f32"
  std::vector<std::string_view> parts;  // "ld", "shared", "v4", "f32"; "shared::cta" is one part
  std::vector<Argument> arguments;
  std::string_view guard;  // empty: none
  bool guard_inverted = false;
  uint32_t line = 0;

  bool has(std::string_view part) const;
  Type type(size_t from_the_end = 0) const;  // of parts[size - 1 - from_the_end]
};

// Resolves names of the function that is being decoded. All throw Error naming the line.
class Names {
 public:
  virtual ~Names() = default;

  // A register to be written. Its width must be that of the type, unless any_width.
  virtual Operand destination(const Argument& argument, Type type) = 0;
  virtual Operand destination(std::string_view name, Type type) = 0;
  // A register to be read as `type`, of the same width; or an immediate or the address of a symbol,
  // which becomes a constant of that width. 8-bit types are read as 16-bit registers.
  virtual Operand source(const Argument& argument, Type type) = 0;
  virtual Operand source(std::string_view text, Type type) = 0;
  // The declared width of a register: 1, 16, 32 or 64; 0 for what is no register.
  virtual int width(std::string_view text) const = 0;
  // Is it the same for all threads: an immediate, a symbol, a parameter of the kernel?
  virtual bool is_uniform(std::string_view text) const = 0;
  // A register whatever its width.
  virtual Operand register_of(std::string_view name) = 0;
  [[noreturn]] virtual void refuse(std::string_view why) const = 0;
};

// A predicate to be read, "%p1" or "!%p1"; flip becomes -1, all lanes, for the latter.
inline Operand source_predicate(std::string_view text, Names& names, int32_t& flip) {
  if (text.starts_with('!')) {
    text.remove_prefix(1);
    flip = -1;
  }
  return names.source(text, Type::pred);
}

// Fills handler, operands, many, offset and detail; guard, line and branch targets are set by the
// caller. Refuses (names.refuse) what it does not know.
using Decoder = void (*)(const Statement& statement, Names& names, Instruction& instruction);

// By the first part of an opcode: "add", "wgmma". One table a file of handlers.
using Decoders = std::unordered_map<std::string_view, Decoder>;

const Decoders& control_decoders();     // control.cpp: bra, exit, trap
const Decoders& integer_decoders();     // integers.cpp: integers, logic, shifts, bits
const Decoders& float_decoders();       // floats.cpp: f32, f64, f16 and bf16 pairs
const Decoders& conversion_decoders();  // conversions.cpp: cvt
const Decoders& selection_decoders();   // selections.cpp: setp, selp, mov, predicates
const Decoders& memory_decoders();      // memory_access.cpp: ld, st, atom, cvta, mapa, prefetch
const Decoders& warp_wide_decoders();   // warp_wide.cpp: shfl, vote, match, redux
const Decoders& matrix_decoders();      // matrices.cpp: mma, ldmatrix, stmatrix, movmatrix
const Decoders& warpgroup_decoders();   // warpgroups.cpp: wgmma, setmaxnreg
const Decoders& copy_decoders();        // copies.cpp: cp.async and its relatives, st.async
const Decoders& barrier_decoders();  // barriers.cpp: bar, barrier, mbarrier, fence, griddepcontrol

}  // namespace qnext::emulator
