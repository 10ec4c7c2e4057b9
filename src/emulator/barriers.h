// Where threads wait for each other: what others have to tell the barriers.
#pragma once

#include <cstdint>

namespace qnext::emulator {

struct Block;

// `count` threads have left (live_threads says so already): who waits for all may go on.
void threads_left(Block& block, uint32_t count);

}  // namespace qnext::emulator
