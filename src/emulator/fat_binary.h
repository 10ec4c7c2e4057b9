// The fat binary that nvcc embeds for each .cu file: machine code and PTX, one entry each.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace qnext::emulator {

// The text of the first PTX entry. `wrapper` is what __cudaRegisterFatBinary() gets. Throws Error
// where there is no PTX, or it is compressed in a way that is not known here.
std::string ptx_of(const void* wrapper);

// The same for the entries themselves; at least their header must be there.
std::string ptx_in(std::span<const std::byte> fat_binary);

}  // namespace qnext::emulator
