// Memory of the emulated GPU. Addresses are the host's own, so copies are memcpy; every access of a
// kernel is looked up here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace qnext::emulator {

struct Range {
  std::byte* begin = nullptr;
  size_t bytes = 0;
  bool holds(uint64_t address, size_t count) const {
    const uint64_t start = reinterpret_cast<uint64_t>(begin);
    return address >= start && count <= bytes && address - start <= bytes - count;
  }
};

class DeviceMemory {
 public:
  // 256-byte aligned and filled with 0xFF (NaN in every float format, -1 in integers).
  std::byte* allocate(size_t bytes);
  // What others own but kernels may use: page-locked memory, a module's variables.
  void add(std::byte* begin, size_t bytes);
  // Frees or forgets; false where nothing begins there.
  bool release(const void* begin);
  // The range that holds all of the bytes.
  std::optional<Range> find(uint64_t address, size_t count) const;
  // For messages: "12 bytes behind an allocation of 4096", "in no allocation".
  std::string describe(uint64_t address) const;
  size_t used() const { return used_; }

 private:
  struct Block {
    size_t bytes = 0;
    bool owned = false;
  };
  std::map<uint64_t, Block> blocks_;  // by address
  size_t used_ = 0;
};

// The one of this process.
DeviceMemory& device_memory();

}  // namespace qnext::emulator
