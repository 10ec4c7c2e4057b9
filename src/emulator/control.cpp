// Branches and the end of a thread. Calls and returns, which copy parameters, are decoder.cpp's.
#include "emulator/statement.h"
#include "emulator/warp.h"

namespace qnext::emulator {
namespace {

void branch(Warp& warp, const Instruction& instruction, LaneMask active) {
  warp.branch(instruction.target, active);
}

void leave(Warp& warp, const Instruction&, LaneMask active) {
  warp.leave(active);
}

void trap(Warp& warp, const Instruction& instruction, LaneMask active) {
  warp.fault(instruction, std::countr_zero(active), "trap");
}

// The target is set where labels are known.
void decode_branch(const Statement&, Names&, Instruction& instruction) {
  instruction.handler = branch;
}

void decode_exit(const Statement&, Names&, Instruction& instruction) {
  instruction.handler = leave;
}

void decode_trap(const Statement&, Names&, Instruction& instruction) {
  instruction.handler = trap;
}

}  // namespace

const Decoders& control_decoders() {
  static const Decoders decoders = {
      {"bra", decode_branch}, {"exit", decode_exit}, {"trap", decode_trap}};
  return decoders;
}

}  // namespace qnext::emulator
