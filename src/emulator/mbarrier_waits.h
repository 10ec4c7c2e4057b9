// The instructions mbarrier.*: arrivals at barriers in shared memory, and waits for their phases.
#pragma once

#include "emulator/statement.h"

namespace qnext::emulator {

void decode_mbarrier(const Statement& statement, Names& names, Instruction& instruction);

}  // namespace qnext::emulator
