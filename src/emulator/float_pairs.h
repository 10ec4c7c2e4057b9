// Arithmetic of f16 and bf16, alone and in pairs: a part of float_decoders().
#pragma once

#include "emulator/statement.h"

namespace qnext::emulator {

// Of add, sub, mul and fma.
void decode_narrow_float(const Statement& statement, Names& names, Instruction& instruction);

}  // namespace qnext::emulator
