// Limits of the emulated device, an H200's.
#pragma once

#include <limits>

namespace qnext::emulator::device {

constexpr int major = 9, minor = 0;
constexpr int multiprocessors = 132;
constexpr int threads_of_block = 1024, threads_of_multiprocessor = 2048;
constexpr int block[3] = {1024, 1024, 64};
constexpr int grid[3] = {std::numeric_limits<int>::max(), 65535, 65535};
constexpr int shared_of_block = 48 << 10;  // unless the kernel is allowed more:
constexpr int shared_of_block_at_most = 227 << 10;
constexpr int shared_of_multiprocessor = 228 << 10;
constexpr int reserved_shared = 1 << 10;  // of each block
constexpr int blocks_of_cluster = 8;      // unless the kernel is allowed more:
constexpr int blocks_of_cluster_at_most = 16;
constexpr int registers = 65536;
constexpr int l2_cache = 60 << 20;

}  // namespace qnext::emulator::device
