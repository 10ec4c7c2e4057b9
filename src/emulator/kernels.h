// The kernels of this program, by the host's functions that stand for them, and what
// cudaFuncSetAttribute() has allowed them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <optional>
#include <string>

#include "emulator/instruction.h"

namespace qnext::emulator {

struct FatBinary;

struct Function {
  FatBinary* binary = nullptr;
  std::string name;                              // mangled
  std::optional<size_t> dynamic_shared_allowed;  // else what is left of 48 KB
  bool large_clusters = false;
};

// Null where it stands for none.
Function* find_function(const void* host_function);
bool is_function(const Function* function);

// Decodes it when it is first asked for. Null, and one line on stderr, where that fails.
const Kernel* kernel_of(const Function& function);

// What a launch may ask for.
size_t dynamic_shared_allowed(const Function& function, const Kernel& kernel);

}  // namespace qnext::emulator
