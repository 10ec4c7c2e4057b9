// Registers that tell a thread where it is: %tid.x, %ctaid.x, %clock64. A part of mov.
#pragma once

#include <string_view>

#include "emulator/instruction.h"
#include "emulator/statement.h"

namespace qnext::emulator {

// Sets the handler for a destination of `bits`; false where `name` is no such register.
bool decode_special_register(std::string_view name, int bits, Instruction& instruction);

}  // namespace qnext::emulator
