// cp.async.bulk: runs of bytes between global and shared memory.
#pragma once

#include "emulator/statement.h"

namespace qnext::emulator {

void decode_bulk_copy(const Statement& statement, Names& names, Instruction& instruction);

}  // namespace qnext::emulator
