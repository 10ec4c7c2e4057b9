// Turns a kernel, and the functions that it calls, into Instructions.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>

#include "emulator/instruction.h"
#include "emulator/parser.h"

namespace qnext::emulator {

// globals: addresses of the module's .global and .const variables. Throws Error where the module
// has no such kernel, or an instruction is not known.
Kernel decode_kernel(const ModuleText& module,
                     const std::unordered_map<std::string_view, uint64_t>& globals,
                     std::string_view name);

}  // namespace qnext::emulator
