// Logic, shifts and searches for bits: a part of integer_decoders().
#pragma once

#include "emulator/statement.h"

namespace qnext::emulator {

const Decoders& bit_decoders();

}  // namespace qnext::emulator
