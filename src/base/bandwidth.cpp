#include "base/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>

namespace qnext {

namespace {

constexpr size_t chunk = size_t{1} << 20;
constexpr int passes = 5;

// One word of each cache line is enough: a read costs the line. Eight independent chains keep the
// core's line buffers full. Nothing is asked for ahead: the hardware's prefetchers see a plain
// stream and are 15 to 20 % faster so (docs/performance.md).
uint64_t read_lines(const std::byte* data, size_t bytes) {
  uint64_t sums[8] = {};
  for (size_t at = 0; at + 512 <= bytes; at += 512)
    for (size_t line = 0; line < 8; ++line) {
      uint64_t word;
      std::memcpy(&word, data + at + 64 * line, sizeof word);
      sums[line] += word;
    }
  uint64_t total = 0;
  for (uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

ReadBandwidth::ReadBandwidth(size_t bytes)
    : buffer_(std::max(bytes, chunk) / chunk * chunk, "the bandwidth measurement") {
  // Touched pages: untouched ones would all be the kernel's one zero page.
  for (size_t at = 0; at < buffer_.size(); at += 4096) buffer_.data()[at] = std::byte{1};
}

double ReadBandwidth::pass(ThreadPool& pool) {
  std::atomic<uint64_t> sink{0};
  const auto start = std::chrono::steady_clock::now();
  pool.parallel_for(
      static_cast<int64_t>(buffer_.size() / chunk), 1, [&](int64_t begin, int64_t end) {
        const size_t at = static_cast<size_t>(begin) * chunk;
        sink += read_lines(buffer_.data() + at, static_cast<size_t>(end - begin) * chunk);
      });
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  return static_cast<double>(buffer_.size()) / elapsed.count();
}

double measure_read_bandwidth(ThreadPool& pool, size_t bytes) {
  ReadBandwidth buffer(bytes);
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) best = std::max(best, buffer.pass(pool));
  return best;
}

}  // namespace qnext
